//! A network as data: which operations it consists of and which parameters they use, but not how they are computed.
//!
//! `model` builds a [`Graph`], and a [`Backend`](super::Backend) runs it. Nodes are in evaluation order, and each is
//! computed once. A value has a shape `(height, width, channels)` per image and is stored channels-last. The batch
//! dimension is implicit, and no operation mixes images, so a backend may process one image at a time.

mod build;
mod constants;
mod layout;
mod op;

pub use constants::{position_encoding, sinusoid_frequencies};
pub use layout::Layout;
pub use op::*;

/// The index of a node in [`Graph::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// The index of a parameter in [`Graph::params`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub usize);

/// The shape of a value for one image, channels-last; a vector is `1 × 1 × channels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub height: usize,
    pub(super) width: usize,
    pub channels: usize,
}

impl Shape {
    pub fn new(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels }
    }

    /// Returns the shape of a vector: `1 × 1 × channels`.
    pub fn vector(channels: usize) -> Self {
        Self::new(1, 1, channels)
    }

    /// Returns the number of positions: `height · width`.
    pub fn positions(self) -> usize {
        self.height * self.width
    }

    /// Returns the number of values per image.
    pub fn len(self) -> usize {
        self.positions() * self.channels
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// The initial values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Init {
    Constant(f32),
    /// Uniform in `[-bound, bound]`. PyTorch's default for convolutions and linear layers is bound = 1/√fan_in.
    Uniform {
        bound: f32,
    },
}

/// The declaration of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// The name in a PyTorch state dict, such as `enc1.0.weight`.
    pub name: String,
    pub layout: Layout,
    pub(super) init: Init,
}

/// An operation and the shape of its result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    pub op: Op,
    pub shape: Shape,
}

/// A network: nodes in evaluation order; the last one is the output.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub params: Vec<ParamSpec>,
    /// Layers to monitor during training, in order.
    pub probes: Vec<Probe>,
}

/// A residual layer to monitor during training: its statistics show how much the branch contributes, and how sharp its
/// attention is.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub name: String,
    /// The value that is added to `skip`, before multiplication by gamma; a vector if it is the same at every position.
    pub branch: NodeId,
    /// The skip connection that the branch is added to.
    pub skip: NodeId,
    /// The learned factor that multiplies the branch, if any.
    pub gamma: Option<ParamId>,
    /// The layer's `Attention` or `LinearAttention` node, for the entropy of its weights.
    pub attention: Option<NodeId>,
    /// The number of hidden channels, if it was chosen to match a parameter count.
    pub width: Option<usize>,
}

impl Graph {
    /// Creates a graph that takes an image of shape `input` and a time. Returns it with the nodes of both inputs.
    pub fn new(input: Shape) -> (Self, NodeId, NodeId) {
        let mut graph = Self { nodes: vec![], params: vec![], probes: vec![] };
        let x = graph.push(Op::Input(Input), input);
        let t = graph.push(Op::Time(Time), Shape::vector(1));
        (graph, x, t)
    }

    pub fn shape(&self, id: NodeId) -> Shape {
        self.nodes[id.0].shape
    }

    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    pub(super) fn output(&self) -> NodeId {
        NodeId(self.nodes.len() - 1)
    }

    pub fn output_shape(&self) -> Shape {
        self.shape(self.output())
    }

    /// Returns the number of learned scalars.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(|p| p.layout.len()).sum()
    }

    /// Returns the number of floating-point operations of one image's forward pass. Only convolutions and matrix
    /// products count, a multiply-add as two.
    pub fn forward_flops(&self) -> u64 {
        self.live().map(|n| 2 * self.multiply_adds(n)).sum()
    }

    /// Returns the number of floating-point operations of one image's training step: the forward pass, and the
    /// gradients of weights and of those inputs that need them.
    pub fn training_flops(&self) -> u64 {
        let requires_grad = self.requires_grad();
        let backward = |n: NodeId| {
            let node = &self.nodes[n.0];
            node.op.operation().backward_multiply_adds(self, node.shape, &requires_grad) as u64
        };
        self.live().map(|n| 2 * (self.multiply_adds(n) + backward(n))).sum()
    }

    fn multiply_adds(&self, n: NodeId) -> u64 {
        let node = &self.nodes[n.0];
        node.op.operation().multiply_adds(self, node.shape) as u64
    }

    /// Returns the nodes that the output depends on, in evaluation order.
    pub(super) fn live(&self) -> impl Iterator<Item = NodeId> {
        let mut live = vec![false; self.nodes.len()];
        live[self.output().0] = true;
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if live[i] {
                node.op.inputs().into_iter().for_each(|x| live[x.0] = true);
            }
        }
        live.into_iter().enumerate().filter(|(_, live)| *live).map(|(i, _)| NodeId(i))
    }

    /// Returns for each node whether its value depends on a parameter, so that gradients must be propagated to it.
    pub(super) fn requires_grad(&self) -> Vec<bool> {
        let mut requires_grad: Vec<bool> = vec![];
        for node in &self.nodes {
            let inputs = node.op.inputs().iter().any(|x| requires_grad[x.0]);
            requires_grad.push(node.op.operation().requires_grad(inputs));
        }
        requires_grad
    }
}
