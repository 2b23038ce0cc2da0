//! A network as data: what is computed, from which parameters, never how.
//!
//! `model` builds a [`Graph`] once; a [`Backend`](super::Backend) runs it. Nodes are in evaluation order and single
//! assignment. A value has a shape `(height, width, channels)` per image, stored channels-last; the batch is implicit,
//! and no operation mixes images, so a backend may work on one image at a time.

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

    pub fn vector(channels: usize) -> Self {
        Self::new(1, 1, channels)
    }

    pub fn positions(self) -> usize {
        self.height * self.width
    }

    /// Number of values in one image.
    pub fn len(self) -> usize {
        self.positions() * self.channels
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// One operation on values of one image. `x: (H, W, C)` unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// The network's image input: the noisy image's channels, then the condition's.
    Input,
    /// The network's time input, one number an image, in `[0, 1)`; shape `(1, 1, 1)`.
    Time,
    /// Sines, then cosines, of a time at falling frequencies: see [`sinusoid_frequencies`]. Nothing learns through it.
    Sinusoid { t: NodeId },
    /// Where each position lies in the image, the same in every image, `cell` pixels from one to the next: see
    /// [`position_encoding`].
    PositionEncoding { cell: usize },
    /// 3×3 convolution, stride 1, zero padding 1. Weight `(3, 3, C, O)`, bias `(O)`.
    Conv3x3 { x: NodeId, weight: ParamId, bias: ParamId },
    /// A matrix applied at every position (a 1×1 convolution; a linear layer on a vector). Weight `(C, O)`, bias `(O)`.
    Linear { x: NodeId, weight: ParamId, bias: ParamId },
    /// Transposed 2×2 convolution of stride 2: `(H, W, C)` to `(2H, 2W, O)`. Weight `(C, 2, 2, O)`, bias `(O)`.
    UpConv2x2 { x: NodeId, weight: ParamId, bias: ParamId },
    /// Group normalisation (Wu and He 2018), ε = 1e-5, population variance, then a scale and a shift a channel.
    /// Group `g` holds the channels `g·C/groups ..`. Weight and bias `(C)`.
    GroupNorm { x: NodeId, groups: usize, weight: ParamId, bias: ParamId },
    /// As `GroupNorm`, then a scale and a shift an image: with `v: (1, 1, 2C)`, times 1 + its first C channels, plus its
    /// others (FiLM, Perez et al. 2018).
    FilmNorm { x: NodeId, v: NodeId, groups: usize, weight: ParamId, bias: ParamId },
    /// x · sigmoid(x).
    Silu { x: NodeId },
    /// 2×2 maximum, stride 2: `(H, W, C)` to `(H/2, W/2, C)`; H and W even. The gradient goes to the first maximum in
    /// row-major order of the window.
    MaxPool2x2 { x: NodeId },
    /// The mean of every `factor × factor` block, of as many channels as the result has, from `first`.
    MeanPool { x: NodeId, first: usize, factor: usize },
    /// Channels of `a`, then channels of `b`; equal heights and widths.
    Concat { a: NodeId, b: NodeId },
    /// `a + b`, two values of one shape.
    Add { a: NodeId, b: NodeId },
    /// `x` plus the vector `v: (1, 1, C)` at every position.
    AddVector { x: NodeId, v: NodeId },
    /// softmax(q kᵀ / √d) v over positions (Vaswani et al. 2017, eq. 1), in `heads` slices of the channels;
    /// `q, k: (H, W, D)`, `v: (H, W, C)`, d = D / heads.
    Attention { q: NodeId, k: NodeId, v: NodeId, heads: usize },
    /// softmax(q) (softmax(k)ᵀ v), q's over the features of a head and k's over positions (Shen et al. 2021, eq. 5); the
    /// cost grows with the positions, not with their square. Shapes and `heads` as for `Attention`.
    LinearAttention { q: NodeId, k: NodeId, v: NodeId, heads: usize },
    /// `gamma · branch + skip`, gamma a single learned number.
    Gate { branch: NodeId, skip: NodeId, gamma: ParamId },
}

impl Op {
    /// The nodes that this operation reads, in a fixed order.
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

/// The values a parameter starts with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Constant(f32),
    /// Uniform in `[-bound, bound]`: PyTorch's default for convolutions and linear layers, bound = 1/√fan_in.
    Uniform {
        bound: f32,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// The name in a PyTorch state dict, such as `enc1.0.weight`.
    pub name: String,
    pub layout: Layout,
    pub init: Init,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    pub op: Op,
    pub shape: Shape,
}

/// A network: nodes in evaluation order, the last of them the output.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub params: Vec<ParamSpec>,
    /// Layers to look into while the network learns, in order.
    pub probes: Vec<Probe>,
}

/// A layer that adds something to what it reads; whether it does much is worth knowing.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub name: String,
    /// What is added (times gamma), a vector where it is the same at every position.
    pub branch: NodeId,
    /// What it is added to.
    pub skip: NodeId,
    pub gamma: Option<ParamId>,
    /// An `Attention` or `LinearAttention`, whose weights have an entropy.
    pub attention: Option<NodeId>,
    /// Hidden channels that were solved for.
    pub width: Option<usize>,
}

impl Graph {
    /// A graph that reads an image of `input` shape and a time.
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

    /// Number of learned values.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(|p| p.layout.len()).sum()
    }

    /// Floating-point operations of one image's forward pass: two a multiply-add of every convolution and product.
    pub fn forward_flops(&self) -> u64 {
        self.live().map(|n| 2 * self.multiply_adds(n)).sum()
    }

    /// Of one image's training step: the forward pass, and backward as much again for each gradient, of what a product
    /// reads and of its weights. No gradient is wanted of the inputs.
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

    /// The nodes that the output depends on, in order.
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

    /// By node, whether something learned lies at it or above it.
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
