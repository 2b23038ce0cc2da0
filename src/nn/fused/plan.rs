//! Compiles a graph: determines the order of execution, and the location of every value and gradient in one arena.
//!
//! - A normalisation whose only reader is a `Silu` is fused with it; the value between them is never stored.
//! - Operands of a `Concat` are written directly into its channels, and `Add` and `AddVector` work in place, if no
//!   other step can observe it.
//! - The gradient of a value with a single reader reuses the buffer of the gradient that it is computed from.
//! - Every buffer has a first and a last time of use; buffers whose lifetimes don't overlap share memory.
//!
//! Offsets are for one image and are multiplied by the number of images in a task.

use crate::nn::graph::{Add, AddVector, Concat, FilmNorm, Graph, GroupNorm, NodeId, Op, Shape, Silu};

/// The length of a cache line, in numbers. Lengths of buffers are multiples of it.
const LINE: usize = 16;

/// The location of one image's value in the arena.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BufferSlice {
    /// The offset of the buffer, before multiplication by the number of images.
    pub(super) offset: usize,
    /// The first channel within the buffer.
    pub(super) channel: usize,
    /// The number of channels of the buffer: the distance between pixels.
    pub(super) stride: usize,
    pub(super) shape: Shape,
}

/// The gradient of an input that a step computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct InputGradient {
    pub(super) node: NodeId,
    /// Whether to add to the gradient, because another step has written it already.
    pub(super) accumulate: bool,
}

/// One step of the plan: a node to compute.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlanStep {
    pub(super) node: NodeId,
    /// The operation; for a fused pair, the normalisation.
    pub(super) op: Op,
    /// Whether SiLU is applied after the normalisation.
    pub(super) silu: bool,
    /// The offset of intermediate values that are saved for the backward pass.
    pub(super) saved: usize,
    /// For each input of `op`, in the order of [`Op::inputs`]: the gradient to compute; `None` if the input depends on
    /// no parameter.
    pub(super) gradients: Vec<Option<InputGradient>>,
    /// For each input of a `Concat`: whether it must be copied.
    pub(super) copies: [bool; 2],
    /// The constants of `op`.
    pub(super) constants: Vec<f32>,
}

/// The execution plan of a graph, for inference or training.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExecutionPlan {
    pub(super) steps: Vec<PlanStep>,
    /// By node; `None` for values that are not stored.
    pub(super) values: Vec<Option<BufferSlice>>,
    /// By node; `None` for gradients that are not stored.
    pub(super) gradients: Vec<Option<BufferSlice>>,
    /// The size of the arena in numbers per image.
    pub(super) arena: usize,
}

impl ExecutionPlan {
    pub(super) fn new(graph: &Graph, training: bool) -> Self {
        Self::with_values(graph, training, &[])
    }

    /// Creates a plan that also keeps the values of the `retained` nodes until the end of the forward pass.
    pub(super) fn with_values(graph: &Graph, training: bool, retained: &[NodeId]) -> Self {
        let mut steps = steps(graph, retained);
        let readers = readers(graph, &steps, retained);
        let requires_grad = graph.requires_grad();
        let value_parent = value_parents(graph, &steps, &readers);
        for step in &mut steps {
            if let Op::Concat(Concat { a, b }) = step.op {
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
            if training && step.op.cpu().reads_output_backward() {
                buffers.touch(root(&value_parent, step.node), graph, 0, backward_time(time));
            }
            for x in step.op.inputs() {
                let root = root(&value_parent, x);
                buffers.touch(root, graph, 0, time);
                if training && step.op.cpu().reads_inputs_backward() {
                    buffers.touch(root, graph, 0, backward_time(time));
                }
            }
        }
        for x in retained {
            buffers.touch(root(&value_parent, *x), graph, 0, steps.len());
        }
        // The loss is computed between the passes.
        buffers.touch(root(&value_parent, last), graph, 0, steps.len());
        let mut saved = vec![None; steps.len()];
        if training {
            let mut written = vec![false; graph.nodes.len()];
            buffers.touch(root(&gradient_parent, last), graph, 1, steps.len());
            for (index, step) in steps.iter_mut().enumerate().rev() {
                let time = backward_time(index);
                if !requires_grad[step.node.0] {
                    step.gradients = step.op.inputs().iter().map(|_| None).collect();
                    continue;
                }
                buffers.touch(root(&gradient_parent, step.node), graph, 1, time);
                step.gradients = (step.op.inputs().into_iter().enumerate())
                    .map(|(i, x)| {
                        let aliased = matches!(step.op, Op::Concat(_)) && !step.copies[i];
                        let wanted = requires_grad[x.0];
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
            let len = step.op.cpu().saved_len(graph);
            if len == 0 {
                continue;
            }
            let last = if training { backward_time(time) } else { time };
            saved[time] = Some(buffers.push(len, time, last));
        }
        let (offsets, arena) = buffers.arrange();
        for (step, saved) in steps.iter_mut().zip(saved) {
            step.saved = saved.map_or(0, |buffer: usize| offsets[buffer]);
        }
        let slice = |parents: &Parents, kind: usize, node: usize| {
            let (root, channel) = root(parents, NodeId(node));
            let buffer = buffers.owner[2 * root.0 + kind]?;
            let stride = graph.shape(root).channels;
            Some(BufferSlice { offset: offsets[buffer], channel, stride, shape: graph.nodes[node].shape })
        };
        let all = 0..graph.nodes.len();
        Self {
            values: all.clone().map(|n| slice(&value_parent, 0, n)).collect(),
            gradients: all.map(|n| slice(&gradient_parent, 1, n)).collect(),
            steps,
            arena,
        }
    }
}

/// For each node, the node in whose buffer it is stored and its first channel there; `None` if it has its own buffer.
type Parents = Vec<Option<(NodeId, usize)>>;

/// Returns the node that owns the buffer of `node`, and the first channel in that buffer.
fn root(parents: &Parents, node: NodeId) -> (NodeId, usize) {
    let (mut node, mut channel) = (node, 0);
    while let Some((parent, at)) = parents[node.0] {
        (node, channel) = (parent, channel + at);
    }
    (node, channel)
}

/// Returns the steps that compute the output, with normalisations fused with the activations after them.
fn steps(graph: &Graph, retained: &[NodeId]) -> Vec<PlanStep> {
    let live: Vec<NodeId> = graph.live().collect();
    let mut readers = vec![0; graph.nodes.len()];
    let read = live.iter().flat_map(|n| graph.nodes[n.0].op.inputs());
    read.chain(retained.iter().copied()).for_each(|x| readers[x.0] += 1);
    let mut steps: Vec<PlanStep> = vec![];
    for node in live {
        let op = graph.nodes[node.0].op;
        let constants = op.cpu().constants(graph.shape(node));
        let mut step = PlanStep { node, op, silu: false, saved: 0, gradients: vec![], copies: [false; 2], constants };
        if let Op::Silu(Silu { x }) = op
            && let norm @ (Op::GroupNorm(_) | Op::FilmNorm(_)) = graph.nodes[x.0].op
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

/// Returns for each node the indices of the steps that read it. `retained` nodes are read after all steps.
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

/// Decides which values are stored in the buffers of other values.
fn value_parents(graph: &Graph, steps: &[PlanStep], readers: &[Vec<usize>]) -> Parents {
    let mut parents: Parents = vec![None; graph.nodes.len()];
    for (time, step) in steps.iter().enumerate() {
        match step.op {
            Op::Concat(Concat { a, b }) => {
                for (x, channel) in [(a, 0), (b, graph.shape(a).channels)] {
                    // If a later step also reads `x`, its backward step would write the gradient of `x` before the
                    // concatenation does.
                    if parents[x.0].is_none() && readers[x.0].iter().all(|r| *r <= time) && (x != b || a != b) {
                        parents[x.0] = Some((step.node, channel));
                    }
                }
            }
            // In place, unless the backward pass reads the previous values.
            Op::AddVector(AddVector { x, .. }) | Op::Add(Add { a: x, .. })
                if readers[x.0].len() == 1 && !graph.nodes[x.0].op.cpu().reads_output_backward() =>
            {
                parents[x.0] = Some((step.node, 0));
            }
            _ => {}
        }
    }
    parents
}

/// Decides which gradients are stored in the buffers of other gradients.
fn gradient_parents(graph: &Graph, steps: &[PlanStep], readers: &[Vec<usize>], values: &Parents) -> Parents {
    let mut parents = vec![None; graph.nodes.len()];
    for step in steps {
        match step.op {
            Op::Concat(Concat { a, b }) => {
                for x in [a, b] {
                    parents[x.0] = values[x.0].filter(|(parent, _)| *parent == step.node).or(parents[x.0]);
                }
            }
            Op::GroupNorm(GroupNorm { x, .. })
            | Op::FilmNorm(FilmNorm { norm: GroupNorm { x, .. }, .. })
            | Op::Silu(Silu { x })
            | Op::AddVector(AddVector { x, .. })
            | Op::Add(Add { a: x, .. })
                if readers[x.0].len() == 1 =>
            {
                parents[x.0] = Some((step.node, 0));
            }
            _ => {}
        }
    }
    parents
}

/// A buffer of the arena, with the first and last time of its use.
struct BufferLifetime {
    len: usize,
    first: usize,
    last: usize,
}

/// The buffers of a plan under construction.
struct BufferTable {
    list: Vec<BufferLifetime>,
    /// Indexed by twice the root node, plus one for a gradient.
    owner: Vec<Option<usize>>,
}

impl BufferTable {
    /// Adds a buffer and returns its index.
    fn push(&mut self, len: usize, first: usize, last: usize) -> usize {
        self.list.push(BufferLifetime { len: len.next_multiple_of(LINE), first, last });
        self.list.len() - 1
    }

    /// Extends the lifetime of the buffer of `root` to `time`; creates it if necessary.
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

    /// Returns the offset of each buffer and the size of the arena, such that buffers with overlapping lifetimes don't
    /// overlap. Places the largest buffers first, each at the lowest free offset.
    fn arrange(&self) -> (Vec<usize>, usize) {
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(self.list[*i].len), *i));
        let mut offsets = vec![0; self.list.len()];
        let mut placed: Vec<usize> = vec![];
        let mut total = 0;
        for i in order {
            let b = &self.list[i];
            let mut conflicts: Vec<usize> = placed.clone();
            conflicts.retain(|j| self.list[*j].first <= b.last && b.first <= self.list[*j].last);
            conflicts.sort_by_key(|j| offsets[*j]);
            let mut at = 0;
            for j in conflicts {
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
    fn buffers_with_overlapping_lifetimes_do_not_overlap_and_others_share_memory() {
        let list = vec![buffer(32, 0, 3), buffer(64, 2, 5), buffer(16, 4, 9), buffer(32, 6, 7), buffer(64, 8, 9)];
        let buffers = BufferTable { list, owner: vec![] };
        let (offsets, total) = buffers.arrange();
        for (i, a) in buffers.list.iter().enumerate() {
            for (j, b) in buffers.list.iter().enumerate().take(i) {
                let overlap_in_time = a.first <= b.last && b.first <= a.last;
                let disjoint = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                assert!(!overlap_in_time || disjoint, "{i} and {j}: {offsets:?}");
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
        assert_eq!(plan.values[normed.0], None, "the normalisation is fused with its activation");
        let slice = |n: NodeId| plan.values[n.0].unwrap();
        assert_eq!((slice(active).offset, slice(active).channel), (slice(both).offset, 0), "AddVector works in place");
        assert_eq!(
            (slice(skip).offset, slice(skip).channel),
            (slice(both).offset, 16),
            "the operand is written into the channels of the concatenation"
        );
        assert!(plan.steps.iter().all(|s| s.copies == [false; 2]));
        let gradient = plan.steps.iter().find(|s| s.node == active).unwrap().gradients[0].unwrap();
        assert!(gradient.accumulate, "the concatenation has already written the convolution's gradient");
    }
}
