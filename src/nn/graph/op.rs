//! The operations as data: which values and parameters each reads.
//!
//! What an operation does (shape checks, FLOPs, reference implementation, kernels) is in its folder under `nn::ops`.

use super::{Graph, NodeId, ParamId, Shape};

/// An operation on the values of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    Input(Input),
    Time(Time),
    TimeEncoding(TimeEncoding),
    PositionEncoding(PositionEncoding),
    Conv3x3(Conv3x3),
    Linear(Linear),
    UpConv2x2(UpConv2x2),
    GroupNorm(GroupNorm),
    FilmNorm(FilmNorm),
    Silu(Silu),
    MaxPool2x2(MaxPool2x2),
    MeanPool(MeanPool),
    Concat(Concat),
    Add(Add),
    AddVector(AddVector),
    Attention(Attention),
    LinearAttention(LinearAttention),
    Gate(Gate),
}

/// The properties of an operation that do not depend on the backend.
pub trait Operation {
    /// Returns the nodes that this operation reads, in a fixed order.
    fn inputs(&self) -> Vec<NodeId>;

    /// Returns the number of multiply-adds of one image's forward pass, counting only convolutions and matrix products.
    fn multiply_adds(&self, graph: &Graph, output: Shape) -> usize;

    /// Returns the number of multiply-adds of one image's backward pass. The default assumes that the gradients of both
    /// factors of each product are computed.
    fn backward_multiply_adds(&self, graph: &Graph, output: Shape, _requires_grad: &[bool]) -> usize {
        2 * self.multiply_adds(graph, output)
    }

    /// Returns whether the value depends on a parameter, so that gradients must be propagated to it, given whether any
    /// input does.
    fn requires_grad(&self, inputs: bool) -> bool;
}

/// The image input: the channels of the noisy image, then those of the condition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Input;

/// The time input: one number per image in `[0, 1)`, of shape `(1, 1, 1)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Time;

/// Sines, then cosines, of the time at decreasing frequencies: see
/// [`sinusoid_frequencies`](super::sinusoid_frequencies). Has no gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeEncoding {
    pub t: NodeId,
}

/// The encoding of each position's location in the image, the same for every image: see
/// [`position_encoding`](super::position_encoding).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionEncoding {
    /// The distance between positions, in pixels.
    pub spacing: usize,
}

/// 3×3 convolution of `x: (H, W, C)`, stride 1, zero padding 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv3x3 {
    pub x: NodeId,
    /// `(3, 3, C, O)`
    pub weight: ParamId,
    /// `(O)`
    pub bias: ParamId,
}

/// A linear map applied at every position of `x: (H, W, C)` (a 1×1 convolution, or a linear layer on a vector).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    pub x: NodeId,
    /// `(C, O)`
    pub weight: ParamId,
    /// `(O)`
    pub bias: ParamId,
}

/// Transposed 2×2 convolution with stride 2: `(H, W, C)` to `(2H, 2W, O)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpConv2x2 {
    pub x: NodeId,
    /// `(C, 2, 2, O)`
    pub weight: ParamId,
    /// `(O)`
    pub bias: ParamId,
}

/// Group normalisation (Wu and He 2018), ε = 1e-5, population variance, followed by a scale and a shift per channel.
/// Group `g` consists of channels `g·C/groups .. (g+1)·C/groups`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNorm {
    pub x: NodeId,
    pub groups: usize,
    /// `(C)`
    pub weight: ParamId,
    /// `(C)`
    pub bias: ParamId,
}

/// [`GroupNorm`] followed by a scale and a shift per image (FiLM, Perez et al. 2018): `y · (1 + v[..C]) + v[C..]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilmNorm {
    pub norm: GroupNorm,
    /// `(1, 1, 2C)`
    pub v: NodeId,
}

/// x · sigmoid(x).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Silu {
    pub x: NodeId,
}

/// 2×2 max pooling with stride 2: `(H, W, C)` to `(H/2, W/2, C)`, for even H and W. The gradient goes to the first
/// maximum of the window in row-major order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaxPool2x2 {
    pub x: NodeId,
}

/// The mean of every `factor × factor` block, for as many channels as the result has, starting with channel `first`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanPool {
    pub x: NodeId,
    pub first: usize,
    pub factor: usize,
}

/// The channels of `a`, then those of `b`; both have the same height and width.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Concat {
    pub a: NodeId,
    pub b: NodeId,
}

/// `a + b`, both of the same shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Add {
    pub a: NodeId,
    pub b: NodeId,
}

/// `x` plus the vector `v: (1, 1, C)` at every position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AddVector {
    pub x: NodeId,
    pub v: NodeId,
}

/// Softmax attention, softmax(q kᵀ / √d) v over positions (Vaswani et al. 2017, eq. 1), with the channels split into
/// `heads`; `q, k: (H, W, D)`, `v: (H, W, C)`, d = D / heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    pub q: NodeId,
    pub k: NodeId,
    pub v: NodeId,
    pub heads: usize,
}

/// Linear attention, softmax(q) (softmax(k)ᵀ v) (Shen et al. 2021, eq. 5): q's softmax is over the features of a head,
/// k's over positions. The cost is linear in the number of positions. Shapes and `heads` as for [`Attention`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearAttention {
    pub q: NodeId,
    pub k: NodeId,
    pub v: NodeId,
    pub heads: usize,
}

/// `gamma · branch + skip`, where gamma is one learned scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    pub branch: NodeId,
    pub skip: NodeId,
    pub gamma: ParamId,
}
