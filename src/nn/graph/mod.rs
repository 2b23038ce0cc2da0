//! A network as data: what is computed, from which parameters, but not how.
//!
//! `model` builds a [`Graph`], and a [`Backend`](super::Backend) runs it. Nodes are in evaluation order, and each is
//! assigned once. A value has a shape `(height, width, channels)` per image and is stored channels-last. The batch
//! dimension is implicit, and no operation mixes images, so a backend may process one image at a time.

mod build;
mod constants;
mod layout;

pub use constants::{position_encoding, sinusoid_frequencies};
pub use layout::Layout;

/// Index of a node in [`Graph::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// Index of a parameter in [`Graph::params`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub usize);

/// The shape of one image's value, channels-last; a vector is `1 × 1 × channels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub height: usize,
    pub width: usize,
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

/// An operation on the values of one image. `x: (H, W, C)` unless stated otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// The image input: the channels of the noisy image, then those of the condition.
    Input,
    /// The time input: one number per image in `[0, 1)`, of shape `(1, 1, 1)`.
    Time,
    /// Sines, then cosines, of the time at decreasing frequencies: see [`sinusoid_frequencies`]. Has no gradient.
    Sinusoid { t: NodeId },
    /// An encoding of each position's location in the image, the same for every image: see [`position_encoding`].
    /// Positions are `cell` pixels apart.
    PositionEncoding { cell: usize },
    /// 3×3 convolution, stride 1, zero padding 1. Weight `(3, 3, C, O)`, bias `(O)`.
    Conv3x3 { x: NodeId, weight: ParamId, bias: ParamId },
    /// A linear map applied at every position (a 1×1 convolution, or a linear layer on a vector). Weight `(C, O)`, bias
    /// `(O)`.
    Linear { x: NodeId, weight: ParamId, bias: ParamId },
    /// Transposed 2×2 convolution with stride 2: `(H, W, C)` to `(2H, 2W, O)`. Weight `(C, 2, 2, O)`, bias `(O)`.
    UpConv2x2 { x: NodeId, weight: ParamId, bias: ParamId },
    /// Group normalisation (Wu and He 2018), ε = 1e-5, population variance, followed by a scale and a shift per
    /// channel. Group `g` consists of channels `g·C/groups .. (g+1)·C/groups`. Weight and bias `(C)`.
    GroupNorm { x: NodeId, groups: usize, weight: ParamId, bias: ParamId },
    /// `GroupNorm` followed by a scale and a shift per image (FiLM, Perez et al. 2018): `y · (1 + v[..C]) + v[C..]`
    /// with `v: (1, 1, 2C)`.
    FilmNorm { x: NodeId, v: NodeId, groups: usize, weight: ParamId, bias: ParamId },
    /// x · sigmoid(x).
    Silu { x: NodeId },
    /// 2×2 max pooling with stride 2: `(H, W, C)` to `(H/2, W/2, C)`, for even H and W. The gradient goes to the first
    /// maximum of the window in row-major order.
    MaxPool2x2 { x: NodeId },
    /// The mean of every `factor × factor` block of the channels from `first` on, as many channels as the result has.
    MeanPool { x: NodeId, first: usize, factor: usize },
    /// The channels of `a`, then those of `b`; both have the same height and width.
    Concat { a: NodeId, b: NodeId },
    /// `a + b`, both of the same shape.
    Add { a: NodeId, b: NodeId },
    /// `x` plus the vector `v: (1, 1, C)` at every position.
    AddVector { x: NodeId, v: NodeId },
    /// Softmax attention, softmax(q kᵀ / √d) v over positions (Vaswani et al. 2017, eq. 1), with the channels split
    /// into `heads`; `q, k: (H, W, D)`, `v: (H, W, C)`, d = D / heads.
    Attention { q: NodeId, k: NodeId, v: NodeId, heads: usize },
    /// Linear attention, softmax(q) (softmax(k)ᵀ v) (Shen et al. 2021, eq. 5): q's softmax is over the features of a
    /// head, k's over positions. The cost is linear in the number of positions. Shapes and `heads` as for `Attention`.
    LinearAttention { q: NodeId, k: NodeId, v: NodeId, heads: usize },
    /// `gamma · branch + skip` with a single learned number gamma.
    Gate { branch: NodeId, skip: NodeId, gamma: ParamId },
}

impl Op {
    /// Returns the nodes that this operation reads, in a fixed order.
    pub fn inputs(&self) -> Vec<NodeId> {
        match *self {
            Op::Input | Op::Time | Op::PositionEncoding { .. } => vec![],
            Op::Sinusoid { t } => vec![t],
            Op::Conv3x3 { x, .. }
            | Op::Linear { x, .. }
            | Op::UpConv2x2 { x, .. }
            | Op::GroupNorm { x, .. }
            | Op::Silu { x }
            | Op::MaxPool2x2 { x }
            | Op::MeanPool { x, .. } => vec![x],
            Op::Concat { a, b } | Op::Add { a, b } => vec![a, b],
            Op::AddVector { x, v } | Op::FilmNorm { x, v, .. } => vec![x, v],
            Op::Attention { q, k, v, .. } | Op::LinearAttention { q, k, v, .. } => vec![q, k, v],
            Op::Gate { branch, skip, .. } => vec![branch, skip],
        }
    }
}

/// The initial values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
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
    pub init: Init,
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

/// A residual layer to monitor during training: how much its branch contributes, and how sharp its attention is.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub name: String,
    /// What is added to `skip`, before the factor gamma; a vector if it is the same at every position.
    pub branch: NodeId,
    /// The residual connection that the branch is added to.
    pub skip: NodeId,
    /// The learned factor of the branch.
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
        let x = graph.push(Op::Input, input);
        let t = graph.push(Op::Time, Shape::vector(1));
        (graph, x, t)
    }

    pub fn shape(&self, id: NodeId) -> Shape {
        self.nodes[id.0].shape
    }

    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    pub fn output(&self) -> NodeId {
        NodeId(self.nodes.len() - 1)
    }

    pub fn output_shape(&self) -> Shape {
        self.shape(self.output())
    }

    /// Returns the number of learned values.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(|p| p.layout.len()).sum()
    }

    /// Returns the floating-point operations of one image's forward pass, counting convolutions and matrix products
    /// only; a multiply-add counts as two.
    pub fn forward_flops(&self) -> u64 {
        self.live().map(|n| 2 * self.multiply_adds(n)).sum()
    }

    /// Returns the floating-point operations of one image's training step: the forward pass, plus as much again for
    /// each gradient that is needed, with respect to the input and to the weights.
    pub fn training_flops(&self) -> u64 {
        let requires_grad = self.requires_grad();
        let passes = |n: NodeId| match self.nodes[n.0].op {
            Op::Conv3x3 { x, .. } | Op::Linear { x, .. } | Op::UpConv2x2 { x, .. } => 2 + u64::from(requires_grad[x.0]),
            _ => 3,
        };
        self.live().map(|n| 2 * self.multiply_adds(n) * passes(n)).sum()
    }

    fn multiply_adds(&self, n: NodeId) -> u64 {
        let s = self.shape(n);
        let weight_len = |p: ParamId| self.params[p.0].layout.len();
        let count = match self.nodes[n.0].op {
            Op::Conv3x3 { weight, .. } | Op::Linear { weight, .. } => s.positions() * weight_len(weight),
            Op::UpConv2x2 { weight, .. } => s.positions() / 4 * weight_len(weight),
            Op::Attention { q, k, .. } => {
                let (queries, keys) = (self.shape(q), self.shape(k));
                queries.positions() * keys.positions() * (queries.channels + s.channels)
            }
            Op::LinearAttention { q, k, heads, .. } => {
                let (queries, keys) = (self.shape(q), self.shape(k));
                (queries.positions() + keys.positions()) * queries.channels * s.channels / heads
            }
            _ => 0,
        };
        count as u64
    }

    /// Returns the nodes that the output depends on, in evaluation order.
    pub fn live(&self) -> impl Iterator<Item = NodeId> {
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
    pub fn requires_grad(&self) -> Vec<bool> {
        let mut requires_grad: Vec<bool> = vec![];
        for node in &self.nodes {
            let own = match node.op {
                Op::Conv3x3 { .. }
                | Op::Linear { .. }
                | Op::UpConv2x2 { .. }
                | Op::GroupNorm { .. }
                | Op::FilmNorm { .. }
                | Op::Gate { .. } => true,
                Op::Sinusoid { .. } => false,
                _ => node.op.inputs().iter().any(|x| requires_grad[x.0]),
            };
            requires_grad.push(own);
        }
        requires_grad
    }
}
