//! Operations appended to a graph, their shapes checked and their parameters named.

use super::{Graph, Init, Layout, Node, NodeId, Op, ParamId, ParamSpec, Probe, Shape};

impl Graph {
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

    /// A 1×1 convolution that starts as zero, so that what it ends starts as nothing.
    pub fn zero_conv1x1(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let y = self.conv1x1(x, name, outputs);
        let Op::Linear { weight, bias, .. } = self.nodes[y.0].op else { unreachable!("just pushed") };
        for p in [weight, bias] {
            self.params[p.0].init = Init::Constant(0.0);
        }
        y
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

    /// Panics unless `groups` divides the channels and `v` has two numbers a channel.
    pub fn film_norm(&mut self, x: NodeId, v: NodeId, name: &str, groups: usize) -> NodeId {
        assert_eq!(self.shape(v), Shape::vector(2 * self.shape(x).channels));
        let norm = self.group_norm(x, name, groups);
        let Op::GroupNorm { x, groups, weight, bias } = self.nodes[norm.0].op else { unreachable!("just pushed") };
        self.nodes[norm.0].op = Op::FilmNorm { x, v, groups, weight, bias };
        norm
    }

    /// Panics unless `channels` is even.
    pub fn sinusoid(&mut self, t: NodeId, channels: usize) -> NodeId {
        assert_eq!(self.shape(t), Shape::vector(1));
        assert!(channels.is_multiple_of(2), "a sine and a cosine of each frequency");
        self.push(Op::Sinusoid { t }, Shape::vector(channels))
    }

    pub fn positions(&mut self, shape: Shape, cell: usize) -> NodeId {
        self.push(Op::PositionEncoding { cell }, shape)
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

    /// Means of blocks of all channels.
    pub fn mean_pool(&mut self, x: NodeId, factor: usize) -> NodeId {
        self.mean_pool_of(x, 0..self.shape(x).channels, factor)
    }

    /// Means of blocks of some channels.
    pub fn mean_pool_of(&mut self, x: NodeId, channels: std::ops::Range<usize>, factor: usize) -> NodeId {
        let s = self.shape(x);
        assert!(channels.end <= s.channels, "channels {channels:?} of {}", s.channels);
        let whole = s.height.is_multiple_of(factor) && s.width.is_multiple_of(factor);
        assert!(whole, "{}×{} is no multiple of {factor}", s.height, s.width);
        let shape = Shape::new(s.height / factor, s.width / factor, channels.len());
        self.push(Op::MeanPool { x, first: channels.start, factor }, shape)
    }

    /// Two different values.
    pub fn add(&mut self, a: NodeId, b: NodeId) -> NodeId {
        assert_ne!(a, b);
        assert_eq!(self.shape(a), self.shape(b));
        self.push(Op::Add { a, b }, self.shape(a))
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
        let shape = self.attended(q, k, v, heads);
        self.push(Op::Attention { q, k, v, heads }, shape)
    }

    pub fn linear_attention(&mut self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> NodeId {
        let shape = self.attended(q, k, v, heads);
        self.push(Op::LinearAttention { q, k, v, heads }, shape)
    }

    fn attended(&self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> Shape {
        let (query, key, value) = (self.shape(q), self.shape(k), self.shape(v));
        assert_eq!(query.channels, key.channels);
        assert_eq!(key.positions(), value.positions());
        let split = query.channels % heads == 0 && value.channels % heads == 0;
        assert!(split, "{} and {} channels in {heads} heads", query.channels, value.channels);
        Shape::new(query.height, query.width, value.channels)
    }

    pub fn gate(&mut self, branch: NodeId, skip: NodeId, name: &str) -> (NodeId, ParamId) {
        assert_eq!(self.shape(branch), self.shape(skip));
        let gamma = self.param(name.to_string(), Layout::Vector(1), Init::Constant(0.0));
        (self.push(Op::Gate { branch, skip, gamma }, self.shape(skip)), gamma)
    }

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
