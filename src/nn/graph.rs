//! A network as data: what is computed, from which parameters, never how.
//!
//! `model` builds a [`Graph`] once; a [`Backend`](super::Backend) runs it. Nodes are in evaluation order and single
//! assignment. A value has a shape `(height, width, channels)` per image, stored channels-last; the batch is implicit,
//! and no operation mixes images, so a backend may work on one image at a time.

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
    /// 3×3 convolution, stride 1, zero padding 1. Weight `(3, 3, C, O)`, bias `(O)`.
    Conv3x3 { x: NodeId, weight: ParamId, bias: ParamId },
    /// A matrix applied at every position (a 1×1 convolution; a linear layer on a vector). Weight `(C, O)`, bias `(O)`.
    Linear { x: NodeId, weight: ParamId, bias: ParamId },
    /// Transposed 2×2 convolution of stride 2: `(H, W, C)` to `(2H, 2W, O)`. Weight `(C, 2, 2, O)`, bias `(O)`.
    UpConv2x2 { x: NodeId, weight: ParamId, bias: ParamId },
    /// Group normalisation (Wu and He 2018), ε = 1e-5, population variance, then a scale and a shift a channel.
    /// Group `g` holds the channels `g·C/groups ..`. Weight and bias `(C)`.
    GroupNorm { x: NodeId, groups: usize, weight: ParamId, bias: ParamId },
    /// x · sigmoid(x).
    Silu { x: NodeId },
    /// 2×2 maximum, stride 2: `(H, W, C)` to `(H/2, W/2, C)`; H and W even. The gradient goes to the first maximum in
    /// row-major order of the window.
    MaxPool2x2 { x: NodeId },
    /// Channels of `a`, then channels of `b`; equal heights and widths.
    Concat { a: NodeId, b: NodeId },
    /// `x` plus the vector `v: (1, 1, C)` at every position.
    AddVector { x: NodeId, v: NodeId },
    /// softmax(q kᵀ / √d) v over positions (Vaswani et al. 2017, eq. 1), in `heads` slices of the channels;
    /// `q, k: (H, W, D)`, `v: (H, W, C)`, d = D / heads.
    Attention { q: NodeId, k: NodeId, v: NodeId, heads: usize },
    /// `gamma · branch + skip`, gamma a single learned number.
    Gate { branch: NodeId, skip: NodeId, gamma: ParamId },
}

impl Op {
    /// The nodes that this operation reads, in a fixed order.
    pub fn inputs(&self) -> Vec<NodeId> {
        match *self {
            Op::Input | Op::Time => vec![],
            Op::Conv3x3 { x, .. }
            | Op::Linear { x, .. }
            | Op::UpConv2x2 { x, .. }
            | Op::GroupNorm { x, .. }
            | Op::Silu { x }
            | Op::MaxPool2x2 { x } => vec![x],
            Op::Concat { a, b } => vec![a, b],
            Op::AddVector { x, v } => vec![x, v],
            Op::Attention { q, k, v, .. } => vec![q, k, v],
            Op::Gate { branch, skip, .. } => vec![branch, skip],
        }
    }
}

/// How a parameter lies in a PyTorch state dict; in a backend it lies as the [`Op`] that uses it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Convolution `(O, I, k, k)` to `(k, k, I, O)`.
    Conv { outputs: usize, inputs: usize, kernel: usize },
    /// Linear `(O, I)` to `(I, O)`.
    Linear { outputs: usize, inputs: usize },
    /// Transposed convolution `(I, O, 2, 2)` to `(I, 2, 2, O)`.
    UpConv { inputs: usize, outputs: usize },
    /// A vector, the same in both.
    Vector(usize),
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
}

impl Graph {
    /// A graph that reads an image of `input` shape and a time.
    pub fn new(input: Shape) -> (Self, NodeId, NodeId) {
        let mut graph = Self { nodes: vec![], params: vec![] };
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
        let flops = |node: &Node| {
            let s = node.shape;
            let weight_len = |p: ParamId| self.params[p.0].layout.len();
            2 * match node.op {
                Op::Conv3x3 { weight, .. } | Op::Linear { weight, .. } => s.positions() * weight_len(weight),
                Op::UpConv2x2 { weight, .. } => s.positions() / 4 * weight_len(weight),
                Op::Attention { q, k, .. } => {
                    let (queries, keys) = (self.shape(q), self.shape(k));
                    queries.positions() * keys.positions() * (queries.channels + s.channels)
                }
                _ => 0,
            } as u64
        };
        self.nodes.iter().map(flops).sum()
    }

    /// Those of a training step's passes: every product once forward, once for the gradient of either factor.
    pub fn training_flops(&self) -> u64 {
        3 * self.forward_flops()
    }

    pub fn conv3x3(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Conv { outputs, inputs: s.channels, kernel: 3 };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, 9 * s.channels);
        self.push(Op::Conv3x3 { x, weight, bias }, Shape::new(s.height, s.width, outputs))
    }

    /// A 1×1 convolution, in PyTorch a `Conv2d` with a kernel of 1.
    pub fn conv1x1(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Conv { outputs, inputs: s.channels, kernel: 1 };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, s.channels);
        self.push(Op::Linear { x, weight, bias }, Shape::new(s.height, s.width, outputs))
    }

    pub fn linear(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Linear { outputs, inputs: s.channels };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, s.channels);
        self.push(Op::Linear { x, weight, bias }, Shape::new(s.height, s.width, outputs))
    }

    pub fn up_conv2x2(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::UpConv { inputs: s.channels, outputs };
        // PyTorch takes the fan-in of a transposed convolution from the second axis of its weight.
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, 4 * outputs);
        self.push(Op::UpConv2x2 { x, weight, bias }, Shape::new(2 * s.height, 2 * s.width, outputs))
    }

    /// Panics unless `groups` divides the channels.
    pub fn group_norm(&mut self, x: NodeId, name: &str, groups: usize) -> NodeId {
        let s = self.shape(x);
        assert_eq!(s.channels % groups, 0, "{} channels in {groups} groups", s.channels);
        let weight = self.param(format!("{name}.weight"), Layout::Vector(s.channels), Init::Constant(1.0));
        let bias = self.param(format!("{name}.bias"), Layout::Vector(s.channels), Init::Constant(0.0));
        self.push(Op::GroupNorm { x, groups, weight, bias }, s)
    }

    pub fn silu(&mut self, x: NodeId) -> NodeId {
        self.push(Op::Silu { x }, self.shape(x))
    }

    pub fn max_pool2x2(&mut self, x: NodeId) -> NodeId {
        let s = self.shape(x);
        let even = s.height.is_multiple_of(2) && s.width.is_multiple_of(2);
        assert!(even, "pooling needs even sizes, not {}×{}", s.height, s.width);
        self.push(Op::MaxPool2x2 { x }, Shape::new(s.height / 2, s.width / 2, s.channels))
    }

    pub fn concat(&mut self, a: NodeId, b: NodeId) -> NodeId {
        let (s, t) = (self.shape(a), self.shape(b));
        assert_eq!((s.height, s.width), (t.height, t.width));
        self.push(Op::Concat { a, b }, Shape::new(s.height, s.width, s.channels + t.channels))
    }

    pub fn add_vector(&mut self, x: NodeId, v: NodeId) -> NodeId {
        assert_eq!(self.shape(v), Shape::vector(self.shape(x).channels));
        self.push(Op::AddVector { x, v }, self.shape(x))
    }

    pub fn attention(&mut self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> NodeId {
        let (query, key, value) = (self.shape(q), self.shape(k), self.shape(v));
        assert_eq!(query.channels, key.channels);
        assert_eq!(key.positions(), value.positions());
        assert!(query.channels % heads == 0 && value.channels % heads == 0);
        self.push(Op::Attention { q, k, v, heads }, Shape::new(query.height, query.width, value.channels))
    }

    pub fn gate(&mut self, branch: NodeId, skip: NodeId, name: &str) -> NodeId {
        assert_eq!(self.shape(branch), self.shape(skip));
        let gamma = self.param(name.to_string(), Layout::Vector(1), Init::Constant(0.0));
        self.push(Op::Gate { branch, skip, gamma }, self.shape(skip))
    }

    fn weight_and_bias(&mut self, name: &str, layout: Layout, outputs: usize, fan_in: usize) -> (ParamId, ParamId) {
        let init = Init::Uniform { bound: 1.0 / (fan_in as f32).sqrt() };
        let weight = self.param(format!("{name}.weight"), layout, init);
        let bias = self.param(format!("{name}.bias"), Layout::Vector(outputs), init);
        (weight, bias)
    }

    fn param(&mut self, name: String, layout: Layout, init: Init) -> ParamId {
        self.params.push(ParamSpec { name, layout, init });
        ParamId(self.params.len() - 1)
    }

    fn push(&mut self, op: Op, shape: Shape) -> NodeId {
        self.nodes.push(Node { op, shape });
        NodeId(self.nodes.len() - 1)
    }
}

impl Layout {
    pub fn len(self) -> usize {
        self.torch_shape().iter().product()
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The shape in a PyTorch state dict.
    pub fn torch_shape(self) -> Vec<usize> {
        match self {
            Layout::Conv { outputs, inputs, kernel } => vec![outputs, inputs, kernel, kernel],
            Layout::Linear { outputs, inputs } => vec![outputs, inputs],
            Layout::UpConv { inputs, outputs } => vec![inputs, outputs, 2, 2],
            Layout::Vector(n) => vec![n],
        }
    }

    /// From PyTorch's order of values to a backend's.
    pub fn from_torch(self, values: &[f32]) -> Vec<f32> {
        self.permuted(values)
    }

    /// From a backend's order of values to PyTorch's.
    pub fn to_torch(self, values: &[f32]) -> Vec<f32> {
        let mut result = vec![0.0; values.len()];
        let order: Vec<usize> = (0..values.len()).collect();
        let indices = self.permuted(&order);
        for (value, index) in values.iter().zip(indices) {
            result[index] = *value;
        }
        result
    }

    /// The values in PyTorch's order, rearranged into a backend's.
    fn permuted<T: Copy>(self, values: &[T]) -> Vec<T> {
        assert_eq!(values.len(), self.len());
        match self {
            Layout::Vector(_) => values.to_vec(),
            Layout::Linear { outputs, inputs } => transpose(values, outputs, inputs),
            Layout::Conv { outputs, inputs, kernel } => {
                // (O, I, K) to (K, I, O)
                let taps = kernel * kernel;
                let mut result = Vec::with_capacity(values.len());
                for tap in 0..taps {
                    for i in 0..inputs {
                        result.extend((0..outputs).map(|o| values[(o * inputs + i) * taps + tap]));
                    }
                }
                result
            }
            Layout::UpConv { inputs, outputs } => {
                // (I, O, 4) to (I, 4, O)
                let mut result = Vec::with_capacity(values.len());
                for i in 0..inputs {
                    result.extend(transpose(&values[i * outputs * 4..][..outputs * 4], outputs, 4));
                }
                result
            }
        }
    }
}

fn transpose<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}
