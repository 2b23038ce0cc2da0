//! A graph compiled: what runs in which order, and where every value and gradient lies in one arena.
//!
//! - A normalisation whose only reader is a `Silu` runs as one step; what lies between is never stored.
//! - Operands of a `Concat` are written into its channels, and what an `Add` or `AddVector` adds to is changed in place,
//!   when nothing else can notice.
//! - The gradient of a value that one step reads takes the place of the gradient that the step turns it from.
//! - Everything has a first and a last moment of use; buffers whose times don't overlap share memory.
//!
//! Offsets are for one image and are multiplied by the images of a task.

use super::attention::moments_len;
use crate::nn::graph::{self, Graph, NodeId, Op, Shape};

/// Rounds buffers to whole cache lines.
const LINE: usize = 16;

/// Where a value lies for one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BufferSlice {
    /// Offset of the buffer, before multiplication by the images.
    pub offset: usize,
    /// First channel inside the buffer.
    pub channel: usize,
    /// Channels of the buffer: numbers from pixel to pixel.
    pub stride: usize,
    pub shape: Shape,
}

/// One input's gradient as a step leaves it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputGradient {
    pub node: NodeId,
    /// Whether another step has been there, so that this one adds.
    pub accumulate: bool,
}

/// A node that is computed.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanStep {
    pub node: NodeId,
    /// The operation; the normalisation for the fused pair.
    pub op: Op,
    /// Whether SiLU follows the normalisation.
    pub silu: bool,
    /// Offset of what else it keeps for its backward pass.
    pub saved: usize,
    /// For each input of `op`, in the order of [`Op::inputs`]; `None` if nothing learned lies above it.
    pub gradients: Vec<Option<InputGradient>>,
    /// For each input of a `Concat`, whether it must be copied.
    pub copies: [bool; 2],
    /// A `Sinusoid`'s frequencies, the values of `Positions`.
    pub constants: Vec<f32>,
}

/// The layout of one pass, inference or training.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionPlan {
    pub steps: Vec<PlanStep>,
    /// By node; `None` where nothing is stored.
    pub values: Vec<Option<BufferSlice>>,
    pub gradients: Vec<Option<BufferSlice>>,
    /// Numbers an image.
    pub arena: usize,
}

impl ExecutionPlan {
    pub fn new(graph: &Graph, training: bool) -> Self {
        Self::with_values(graph, training, &[])
    }

    /// One whose pass leaves the values of some `saved` nodes as they are, whatever else the output needs.
    pub fn with_values(graph: &Graph, training: bool, retained: &[NodeId]) -> Self {
        let mut steps = steps(graph, retained);
        let readers = readers(graph, &steps, retained);
        let needs = graph.requires_grad();
        let value_parent = value_parents(graph, &steps, &readers);
        for step in &mut steps {
            if let Op::Concat { a, b } = step.op {
                let inside = |x: NodeId, channel| value_parent[x.0] == Some((step.node, channel));
                step.copies = [!inside(a, 0), a == b || !inside(b, graph.shape(a).channels)];
            }
        }
        let gradient_parent = gradient_parents(graph, &steps, &readers, &value_parent);
        let mut buffers = BufferTable { list: vec![], owner: vec![None; 2 * graph.nodes.len()] };
        let (last, end) = (graph.output(), 2 * steps.len() + 1);
        let backward_time = |index: usize| end - 1 - index;
        for (time, step) in steps.iter().enumerate() {
            buffers.touch(root(&value_parent, step.node), graph, 0, time);
            if training && reads_output_backward(&step.op) {
                buffers.touch(root(&value_parent, step.node), graph, 0, backward_time(time));
            }
            for x in step.op.inputs() {
                let root = root(&value_parent, x);
                buffers.touch(root, graph, 0, time);
                if training && reads_inputs_backward(&step.op) {
                    buffers.touch(root, graph, 0, backward_time(time));
                }
            }
        }
        for x in retained {
            buffers.touch(root(&value_parent, *x), graph, 0, steps.len());
        }
        // The loss is taken between the passes.
        buffers.touch(root(&value_parent, last), graph, 0, steps.len());
        let mut saved = vec![None; steps.len()];
        if training {
            let mut written = vec![false; graph.nodes.len()];
            buffers.touch(root(&gradient_parent, last), graph, 1, steps.len());
            for (index, step) in steps.iter_mut().enumerate().rev() {
                let time = backward_time(index);
                if !needs[step.node.0] {
                    step.gradients = step.op.inputs().iter().map(|_| None).collect();
                    continue;
                }
                buffers.touch(root(&gradient_parent, step.node), graph, 1, time);
                step.gradients = (step.op.inputs().into_iter().enumerate())
                    .map(|(i, x)| {
                        let aliased = matches!(step.op, Op::Concat { .. }) && !step.copies[i];
                        let wanted = needs[x.0];
                        let accumulate = written[x.0];
                        if wanted {
                            buffers.touch(root(&gradient_parent, x), graph, 1, time);
                        }
                        written[x.0] |= wanted;
                        (wanted && !aliased).then_some(InputGradient { node: x, accumulate })
                    })
                    .collect();
            }
        }
        for (time, step) in steps.iter().enumerate() {
            let len = match step.op {
                Op::GroupNorm { groups, .. } | Op::FilmNorm { groups, .. } => 2 * groups,
                Op::Attention { q, heads, .. } => moments_len(graph.shape(q).positions(), heads),
                _ => continue,
            };
            let last = if training { backward_time(time) } else { time };
            saved[time] = Some(buffers.push(len, time, last));
        }
        let (offsets, arena) = buffers.arrange();
        for (step, saved) in steps.iter_mut().zip(saved) {
            step.saved = saved.map_or(0, |buffer: usize| offsets[buffer]);
        }
        let place = |parents: &Parents, kind: usize, node: usize| {
            let (root, channel) = root(parents, NodeId(node));
            let buffer = buffers.owner[2 * root.0 + kind]?;
            let stride = graph.shape(root).channels;
            Some(BufferSlice { offset: offsets[buffer], channel, stride, shape: graph.nodes[node].shape })
        };
        let all = 0..graph.nodes.len();
        Self {
            values: all.clone().map(|n| place(&value_parent, 0, n)).collect(),
            gradients: all.map(|n| place(&gradient_parent, 1, n)).collect(),
            steps,
            arena,
        }
    }
}

/// For every node the node whose buffer it lives in, and at which channel; `None` for a buffer of its own.
type Parents = Vec<Option<(NodeId, usize)>>;

fn root(parents: &Parents, node: NodeId) -> (NodeId, usize) {
    let (mut node, mut channel) = (node, 0);
    while let Some((parent, at)) = parents[node.0] {
        (node, channel) = (parent, channel + at);
    }
    (node, channel)
}

/// The nodes that the output depends on, normalisations joined with the activations after them.
fn steps(graph: &Graph, retained: &[NodeId]) -> Vec<PlanStep> {
    let live: Vec<NodeId> = graph.live().collect();
    let mut readers = vec![0; graph.nodes.len()];
    let read = live.iter().flat_map(|n| graph.nodes[n.0].op.inputs());
    read.chain(retained.iter().copied()).for_each(|x| readers[x.0] += 1);
    let mut steps: Vec<PlanStep> = vec![];
    for node in live {
        let op = graph.nodes[node.0].op;
        let constants = match op {
            Op::Sinusoid { .. } => graph::sinusoid_frequencies(graph.shape(node).channels),
            Op::PositionEncoding { cell } => graph::position_encoding(graph.shape(node), cell),
            _ => vec![],
        };
        let mut step = PlanStep { node, op, silu: false, saved: 0, gradients: vec![], copies: [false; 2], constants };
        if let Op::Silu { x } = op
            && let norm @ (Op::GroupNorm { .. } | Op::FilmNorm { .. }) = graph.nodes[x.0].op
            && readers[x.0] == 1
        {
            steps.retain(|s| s.node != x);
            step.op = norm;
            step.silu = true;
        }
        steps.push(step);
    }
    steps
}

/// By node, the positions in `steps` of what reads it; who asked for a value reads it after all steps.
fn readers(graph: &Graph, steps: &[PlanStep], retained: &[NodeId]) -> Vec<Vec<usize>> {
    let mut readers = vec![vec![]; graph.nodes.len()];
    for (time, step) in steps.iter().enumerate() {
        for x in step.op.inputs() {
            readers[x.0].push(time);
        }
    }
    for x in retained {
        readers[x.0].push(steps.len());
    }
    readers
}

/// Whether a step's backward pass looks at the value it wrote.
fn reads_output_backward(op: &Op) -> bool {
    matches!(op, Op::Attention { .. })
}

/// Whether a step's backward pass looks at the values it read.
fn reads_inputs_backward(op: &Op) -> bool {
    !matches!(
        op,
        Op::Concat { .. }
            | Op::Add { .. }
            | Op::AddVector { .. }
            | Op::MeanPool { .. }
            | Op::Input
            | Op::Time
            | Op::Sinusoid { .. }
            | Op::PositionEncoding { .. }
    )
}

fn value_parents(graph: &Graph, steps: &[PlanStep], readers: &[Vec<usize>]) -> Parents {
    let mut parents: Parents = vec![None; graph.nodes.len()];
    for (time, step) in steps.iter().enumerate() {
        match step.op {
            Op::Concat { a, b } => {
                for (x, channel) in [(a, 0), (b, graph.shape(a).channels)] {
                    // A later reader's gradient would be there before the concatenation's.
                    if parents[x.0].is_none() && readers[x.0].iter().all(|r| *r <= time) && (x != b || a != b) {
                        parents[x.0] = Some((step.node, channel));
                    }
                }
            }
            // In place, unless the values before it are wanted again.
            Op::AddVector { x, .. } | Op::Add { a: x, .. }
                if readers[x.0].len() == 1 && !reads_output_backward(&graph.nodes[x.0].op) =>
            {
                parents[x.0] = Some((step.node, 0));
            }
            _ => {}
        }
    }
    parents
}

fn gradient_parents(graph: &Graph, steps: &[PlanStep], readers: &[Vec<usize>], values: &Parents) -> Parents {
    let mut parents = vec![None; graph.nodes.len()];
    for step in steps {
        match step.op {
            Op::Concat { a, b } => {
                for x in [a, b] {
                    parents[x.0] = values[x.0].filter(|(parent, _)| *parent == step.node).or(parents[x.0]);
                }
            }
            Op::GroupNorm { x, .. }
            | Op::FilmNorm { x, .. }
            | Op::Silu { x }
            | Op::AddVector { x, .. }
            | Op::Add { a: x, .. }
                if readers[x.0].len() == 1 =>
            {
                parents[x.0] = Some((step.node, 0));
            }
            _ => {}
        }
    }
    parents
}

/// A piece of the arena with the first and last moment of its use.
struct BufferLifetime {
    len: usize,
    first: usize,
    last: usize,
}

struct BufferTable {
    list: Vec<BufferLifetime>,
    /// By twice the root node, plus one for a gradient.
    owner: Vec<Option<usize>>,
}

impl BufferTable {
    fn push(&mut self, len: usize, first: usize, last: usize) -> usize {
        self.list.push(BufferLifetime { len: len.next_multiple_of(LINE), first, last });
        self.list.len() - 1
    }

    fn touch(&mut self, (root, _): (NodeId, usize), graph: &Graph, kind: usize, time: usize) {
        let slot = 2 * root.0 + kind;
        let buffer = match self.owner[slot] {
            Some(buffer) => buffer,
            None => self.push(graph.shape(root).len(), time, time),
        };
        self.owner[slot] = Some(buffer);
        self.list[buffer].first = self.list[buffer].first.min(time);
        self.list[buffer].last = self.list[buffer].last.max(time);
    }

    /// Offsets such that buffers alive at once don't overlap: largest first, each at the lowest place free.
    fn arrange(&self) -> (Vec<usize>, usize) {
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(self.list[*i].len), *i));
        let mut offsets = vec![0; self.list.len()];
        let mut placed: Vec<usize> = vec![];
        let mut total = 0;
        for i in order {
            let b = &self.list[i];
            let mut rivals: Vec<usize> = placed.clone();
            rivals.retain(|j| self.list[*j].first <= b.last && b.first <= self.list[*j].last);
            rivals.sort_by_key(|j| offsets[*j]);
            let mut at = 0;
            for j in rivals {
                if at + b.len <= offsets[j] {
                    break;
                }
                at = at.max(offsets[j] + self.list[j].len);
            }
            offsets[i] = at;
            total = total.max(at + b.len);
            placed.push(i);
        }
        (offsets, total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(len: usize, first: usize, last: usize) -> BufferLifetime {
        BufferLifetime { len, first, last }
    }

    #[test]
    fn buffers_alive_together_lie_apart_and_others_share() {
        let list = vec![buffer(32, 0, 3), buffer(64, 2, 5), buffer(16, 4, 9), buffer(32, 6, 7), buffer(64, 8, 9)];
        let buffers = BufferTable { list, owner: vec![] };
        let (offsets, total) = buffers.arrange();
        for (i, a) in buffers.list.iter().enumerate() {
            for (j, b) in buffers.list.iter().enumerate().take(i) {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                assert!(!together || apart, "{i} and {j}: {offsets:?}");
            }
        }
        assert_eq!(total, 96, "{offsets:?}");
    }

    #[test]
    fn a_block_stores_only_its_convolutions_and_its_result() {
        let (mut graph, x, t) = Graph::new(Shape::new(4, 4, 3));
        let skip = graph.conv3x3(x, "a", 16);
        let normed = graph.group_norm(skip, "n", 4);
        let active = graph.silu(normed);
        let v = graph.linear(t, "t", 16);
        let shifted = graph.add_vector(active, v);
        let both = graph.concat(shifted, skip);
        graph.conv1x1(both, "out", 3);
        let plan = ExecutionPlan::new(&graph, true);
        assert_eq!(plan.values[normed.0], None, "a normalisation lives only inside the step of its activation");
        let place = |n: NodeId| plan.values[n.0].unwrap();
        assert_eq!((place(active).offset, place(active).channel), (place(both).offset, 0), "added to in place");
        assert_eq!((place(skip).offset, place(skip).channel), (place(both).offset, 16), "written into its channels");
        assert!(plan.steps.iter().all(|s| s.copies == [false; 2]));
        let adds = plan.steps.iter().find(|s| s.node == active).unwrap().gradients[0].unwrap();
        assert!(adds.accumulate, "the concatenation has been at the convolution's gradient already");
    }
}
