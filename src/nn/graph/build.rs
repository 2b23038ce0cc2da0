//! Appends operations to a graph: checks shapes and declares parameters.

use super::{Graph, Init, Layout, Node, NodeId, Op, ParamId, ParamSpec, Probe, Shape};

impl Graph {
    /// Appends a 3×3 convolution with `outputs` channels, stride 1 and zero padding 1.
    pub fn conv3x3(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Conv { outputs, inputs: s.channels, kernel: 3 };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, 9 * s.channels);
        self.push(Op::Conv3x3 { x, weight, bias }, Shape::new(s.height, s.width, outputs))
    }

    /// Appends a 1×1 convolution (in PyTorch: `Conv2d` with kernel size 1) with `outputs` channels.
    pub fn conv1x1(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Conv { outputs, inputs: s.channels, kernel: 1 };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, s.channels);
        self.push(Op::Linear { x, weight, bias }, Shape::new(s.height, s.width, outputs))
    }

    /// Appends a 1×1 convolution whose weights start at zero, so that the branch that it ends starts with no effect.
    pub fn zero_conv1x1(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let y = self.conv1x1(x, name, outputs);
        let Op::Linear { weight, bias, .. } = self.nodes[y.0].op else { unreachable!("just pushed") };
        for p in [weight, bias] {
            self.params[p.0].init = Init::Constant(0.0);
        }
        y
    }

    /// Appends a linear layer with `outputs` channels.
    pub fn linear(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Linear { outputs, inputs: s.channels };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, s.channels);
        self.push(Op::Linear { x, weight, bias }, Shape::new(s.height, s.width, outputs))
    }

    /// Appends a transposed 2×2 convolution with stride 2, which doubles height and width.
    pub fn up_conv2x2(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::UpConv { inputs: s.channels, outputs };
        // PyTorch computes the fan-in of a transposed convolution from the second axis of its weight.
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, 4 * outputs);
        self.push(Op::UpConv2x2 { x, weight, bias }, Shape::new(2 * s.height, 2 * s.width, outputs))
    }

    /// Appends a group normalisation. Panics unless `groups` divides the channels.
    pub fn group_norm(&mut self, x: NodeId, name: &str, groups: usize) -> NodeId {
        let s = self.shape(x);
        assert_eq!(s.channels % groups, 0, "{} channels can't be divided into {groups} groups", s.channels);
        let weight = self.param(format!("{name}.weight"), Layout::Vector(s.channels), Init::Constant(1.0));
        let bias = self.param(format!("{name}.bias"), Layout::Vector(s.channels), Init::Constant(0.0));
        self.push(Op::GroupNorm { x, groups, weight, bias }, s)
    }

    /// Appends a group normalisation with FiLM conditioning. Panics unless `groups` divides the channels and `v` has
    /// two numbers per channel.
    pub fn film_norm(&mut self, x: NodeId, v: NodeId, name: &str, groups: usize) -> NodeId {
        assert_eq!(self.shape(v), Shape::vector(2 * self.shape(x).channels));
        let norm = self.group_norm(x, name, groups);
        let Op::GroupNorm { x, groups, weight, bias } = self.nodes[norm.0].op else { unreachable!("just pushed") };
        self.nodes[norm.0].op = Op::FilmNorm { x, v, groups, weight, bias };
        norm
    }

    /// Appends a sinusoidal time embedding. Panics unless `channels` is even.
    pub fn sinusoid(&mut self, t: NodeId, channels: usize) -> NodeId {
        assert_eq!(self.shape(t), Shape::vector(1));
        assert!(
            channels.is_multiple_of(2),
            "the channels must be even, found {channels}: a sine and a cosine of each frequency"
        );
        self.push(Op::Sinusoid { t }, Shape::vector(channels))
    }

    /// Appends the position encoding of a feature map whose positions are `cell` pixels apart.
    pub fn positions(&mut self, shape: Shape, cell: usize) -> NodeId {
        self.push(Op::PositionEncoding { cell }, shape)
    }

    /// Appends a SiLU activation.
    pub fn silu(&mut self, x: NodeId) -> NodeId {
        self.push(Op::Silu { x }, self.shape(x))
    }

    /// Appends 2×2 max pooling with stride 2. Panics unless height and width are even.
    pub fn max_pool2x2(&mut self, x: NodeId) -> NodeId {
        let s = self.shape(x);
        let even = s.height.is_multiple_of(2) && s.width.is_multiple_of(2);
        assert!(even, "max pooling needs even sizes, found {}×{}", s.height, s.width);
        self.push(Op::MaxPool2x2 { x }, Shape::new(s.height / 2, s.width / 2, s.channels))
    }

    /// Appends mean pooling of `factor × factor` blocks.
    pub fn mean_pool(&mut self, x: NodeId, factor: usize) -> NodeId {
        self.mean_pool_of(x, 0..self.shape(x).channels, factor)
    }

    /// Appends mean pooling of some channels. Panics unless `factor` divides height and width.
    pub fn mean_pool_of(&mut self, x: NodeId, channels: std::ops::Range<usize>, factor: usize) -> NodeId {
        let s = self.shape(x);
        assert!(channels.end <= s.channels, "channels {channels:?} of {}", s.channels);
        let whole = s.height.is_multiple_of(factor) && s.width.is_multiple_of(factor);
        assert!(whole, "{}×{} positions can't be divided into {factor}×{factor} blocks", s.height, s.width);
        let shape = Shape::new(s.height / factor, s.width / factor, channels.len());
        self.push(Op::MeanPool { x, first: channels.start, factor }, shape)
    }

    /// Appends the sum of two different values. Panics unless their shapes match.
    pub fn add(&mut self, a: NodeId, b: NodeId) -> NodeId {
        assert_ne!(a, b);
        assert_eq!(self.shape(a), self.shape(b));
        self.push(Op::Add { a, b }, self.shape(a))
    }

    /// Appends the concatenation of channels. Panics unless heights and widths match.
    pub fn concat(&mut self, a: NodeId, b: NodeId) -> NodeId {
        let (s, t) = (self.shape(a), self.shape(b));
        assert_eq!((s.height, s.width), (t.height, t.width));
        self.push(Op::Concat { a, b }, Shape::new(s.height, s.width, s.channels + t.channels))
    }

    /// Appends the addition of a vector to every position. Panics unless the channels match.
    pub fn add_vector(&mut self, x: NodeId, v: NodeId) -> NodeId {
        assert_eq!(self.shape(v), Shape::vector(self.shape(x).channels));
        self.push(Op::AddVector { x, v }, self.shape(x))
    }

    /// Appends softmax attention with `heads` heads.
    pub fn attention(&mut self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> NodeId {
        let shape = self.attention_shape(q, k, v, heads);
        self.push(Op::Attention { q, k, v, heads }, shape)
    }

    /// Appends linear attention with `heads` heads.
    pub fn linear_attention(&mut self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> NodeId {
        let shape = self.attention_shape(q, k, v, heads);
        self.push(Op::LinearAttention { q, k, v, heads }, shape)
    }

    /// Returns the shape of the result of attention. Panics unless the shapes of q, k and v match.
    fn attention_shape(&self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> Shape {
        let (query, key, value) = (self.shape(q), self.shape(k), self.shape(v));
        assert_eq!(query.channels, key.channels);
        assert_eq!(key.positions(), value.positions());
        let split = query.channels % heads == 0 && value.channels % heads == 0;
        assert!(split, "{heads} heads can't divide {} and {} channels", query.channels, value.channels);
        Shape::new(query.height, query.width, value.channels)
    }

    /// Appends `gamma · branch + skip` with a learned gamma that starts at 0. Returns the node and gamma.
    pub fn gate(&mut self, branch: NodeId, skip: NodeId, name: &str) -> (NodeId, ParamId) {
        assert_eq!(self.shape(branch), self.shape(skip));
        let gamma = self.param(name.to_string(), Layout::Vector(1), Init::Constant(0.0));
        (self.push(Op::Gate { branch, skip, gamma }, self.shape(skip)), gamma)
    }

    /// Registers a layer for monitoring during training.
    pub fn probe(&mut self, layer: Probe) {
        self.probes.push(layer);
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

    pub(super) fn push(&mut self, op: Op, shape: Shape) -> NodeId {
        self.nodes.push(Node { op, shape });
        NodeId(self.nodes.len() - 1)
    }
}
