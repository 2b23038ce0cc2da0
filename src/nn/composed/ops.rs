//! Runs the operations of a graph in order.

use dfdx::prelude::*;

use super::constants::{Constants, Rows};
use super::{Device, ImageTensor, Matrix, Positions, VectorTensor};
use crate::nn::graph::{Graph, Node, NodeId, Op, ParamId};

/// The values that are still needed, and the one tape that all of them share.
struct Run<'a, D: Device, T: Tape<f32, D>> {
    constants: &'a Constants<D>,
    params: &'a [VectorTensor<D>],
    values: Vec<Option<ImageTensor<D>>>,
    tape: Option<T>,
}

/// Returns the values of `wanted` nodes for images and their times, and the tape that they were recorded on.
pub fn run<D: Device, T: Tape<f32, D> + Merge<T> + Merge<NoneTape>>(
    graph: &Graph,
    constants: &Constants<D>,
    params: &[VectorTensor<D>],
    (x, t): (ImageTensor<D>, VectorTensor<D>),
    tape: T,
    wanted: &[NodeId],
) -> (Vec<ImageTensor<D>>, T) {
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for (i, node) in graph.nodes.iter().enumerate() {
        node.op.inputs().into_iter().for_each(|x| last_use[x.0] = i);
    }
    wanted.iter().for_each(|node| last_use[node.0] = graph.nodes.len());

    let images = t.shape().0;
    let mut run = Run { constants, params, values: vec![], tape: Some(tape) };
    for (i, node) in graph.nodes.iter().enumerate() {
        let value = match node.op {
            Op::Input => x.clone(),
            Op::Time => t.clone().reshape_like(&(images, 1usize, 1usize, 1usize)),
            _ => {
                let (value, tape) = run.apply(node, images).split_tape();
                run.tape = Some(tape);
                value
            }
        };
        run.values.push((last_use[i] > i).then_some(value));
        for x in node.op.inputs().into_iter().filter(|x| last_use[x.0] == i) {
            run.values[x.0] = None;
        }
    }
    let values = wanted.iter().map(|&node| run.value(node).clone()).collect();
    (values, run.tape.expect("every operation passes the tape on"))
}

impl<D: Device, T: Tape<f32, D> + Merge<T> + Merge<NoneTape>> Run<'_, D, T> {
    fn value(&self, id: NodeId) -> &ImageTensor<D> {
        self.values[id.0].as_ref().expect("a value is kept until its last use")
    }

    /// Returns the value of a node, with the tape.
    fn taped(&mut self, id: NodeId) -> ImageTensor<D, T> {
        let tape = self.any_tape();
        self.value(id).clone().put_tape(tape)
    }

    /// Takes the tape, for a value without gradient.
    fn any_tape(&mut self) -> T {
        self.tape.take().expect("only one value at a time holds the tape")
    }

    /// Returns the value of a node with a new tape, to be merged.
    fn retaped(&self, id: NodeId) -> ImageTensor<D, T> {
        self.value(id).retaped::<T>()
    }

    fn param(&self, id: ParamId) -> VectorTensor<D, T> {
        self.params[id.0].retaped::<T>()
    }

    fn matrix(&self, id: ParamId, rows: usize) -> Matrix<D, T> {
        let columns = self.params[id.0].shape().0 / rows;
        self.param(id).reshape_like(&(rows, columns))
    }

    /// Applies a scale and a shift per channel.
    fn scaled(&self, x: ImageTensor<D, T>, weight: ParamId, bias: ParamId) -> ImageTensor<D, T> {
        let shape = *x.shape();
        x * self.param(weight).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
            + self.param(bias).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
    }

    fn apply(&mut self, node: &Node, images: usize) -> ImageTensor<D, T> {
        match node.op {
            Op::Input | Op::Time => unreachable!("inputs are set before"),
            Op::Conv3x3 { x, weight, bias } => {
                let (b, h, w, c) = *self.value(x).shape();
                let x = self.taped(x);
                let columns = shaped(self.neighbourhoods(x), (b * h * w, 9 * c));
                self.affine(columns, weight, bias, (b, h, w))
            }
            Op::Linear { x, weight, bias } => {
                let (b, h, w, c) = *self.value(x).shape();
                let rows = shaped(self.taped(x), (b * h * w, c));
                self.affine(rows, weight, bias, (b, h, w))
            }
            Op::UpConv2x2 { x, weight, bias } => {
                let (b, h, w, c) = *self.value(x).shape();
                let o = node.shape.channels;
                let y: Matrix<D, T> = shaped(self.taped(x), (b * h * w, c)).matmul(self.matrix(weight, c));
                let y: Positions<D, T> = shaped(y, (b, h * w * 4, o));
                let y = y.gather(self.constants.rows(Rows::Upsampled { height: h, width: w }, b));
                let y: ImageTensor<D, T> = shaped(y, (b, 2 * h, 2 * w, o));
                let shape = *y.shape();
                y + self.param(bias).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
            }
            Op::GroupNorm { x, groups, weight, bias } => {
                let x = self.taped(x);
                self.scaled(group_norm(x, groups), weight, bias)
            }
            Op::FilmNorm { x, v, groups, weight, bias } => {
                let x = self.taped(x);
                let shape = *x.shape();
                let part = |channels: std::ops::Range<usize>| -> ImageTensor<D, T> {
                    let v: Matrix<D, T> = shaped(self.retaped(v), (shape.0, 2 * shape.3));
                    own_gradient(v).slice((.., channels)).broadcast_like::<_, Axes2<1, 2>>(&shape)
                };
                let y = self.scaled(group_norm(x, groups), weight, bias);
                y * (part(0..shape.3) + 1.0) + part(shape.3..2 * shape.3)
            }
            Op::Sinusoid { t } => {
                let (c, n) = (node.shape.channels, node.shape.channels / 2);
                let t: Matrix<D> = shaped(self.value(t).clone(), (images, 1usize));
                let angles = t.matmul(self.constants.frequencies(c));
                let both = angles.clone().sin().matmul(self.constants.channel_placement(n, 0, c))
                    + angles.cos().matmul(self.constants.channel_placement(n, n, c));
                shaped(both, (images, 1usize, 1usize, c)).put_tape(self.any_tape())
            }
            Op::PositionEncoding { cell } => {
                let s = node.shape;
                let position_encoding = self.constants.position_encoding(s, cell, images);
                shaped(position_encoding, (images, s.height, s.width, s.channels)).put_tape(self.any_tape())
            }
            Op::Silu { x } => {
                let x = self.taped(x);
                x.with_empty_tape().sigmoid() * x
            }
            Op::MaxPool2x2 { x } => max_pool(self.taped(x)),
            Op::MeanPool { x, first, factor: f } => {
                let (b, h, w, _) = *self.value(x).shape();
                let c = node.shape.channels;
                let part: ImageTensor<D, T> = own_gradient(self.taped(x)).slice((.., .., .., first..first + c));
                let blocks: Tensor<(usize, usize, usize, usize, usize), f32, D, T> =
                    shaped(part, (b * (h / f), f, w / f, f, c));
                let means: Positions<D, T> = blocks.mean::<_, Axes2<1, 3>>();
                shaped(means, (b, h / f, w / f, c))
            }
            Op::Add { a, b } => self.taped(a) + self.value(b).clone(),
            Op::Concat { a, b } => {
                let (n, h, w, first) = *self.value(a).shape();
                let (second, all) = (self.value(b).shape().3, node.shape.channels);
                let a: Matrix<D, T> = shaped(self.taped(a), (n * h * w, first));
                let b: Matrix<D, T> = shaped(self.retaped(b), (n * h * w, second));
                let both = a.matmul(self.constants.channel_placement(first, 0, all))
                    + b.matmul(self.constants.channel_placement(second, first, all));
                shaped(both, (n, h, w, all))
            }
            Op::AddVector { x, v } => {
                let v = self.taped(v);
                let (b, _, _, c) = *v.shape();
                let shape = *self.value(x).shape();
                let v: Matrix<D, T> = shaped(v, (b, c));
                v.broadcast_like::<_, Axes2<1, 2>>(&shape) + self.value(x).clone()
            }
            Op::Attention { q, k, v, heads } => {
                let (query, key, value) = (*self.value(q).shape(), *self.value(k).shape(), *self.value(v).shape());
                let scale = 1.0 / ((query.3 / heads) as f32).sqrt();
                let q = self.taped(q);
                let q = self.split_heads(q, heads);
                let k = self.split_heads(self.retaped(k), heads);
                let v = self.split_heads(self.retaped(v), heads);
                debug_assert_eq!(key.1 * key.2, value.1 * value.2);
                let scores = q.matmul(k.permute::<_, Axes3<0, 2, 1>>()) * scale;
                let weighted: Positions<D, T> = scores.softmax::<Axis<2>>().matmul(v);
                self.join_heads(weighted, (images, query.1, query.2))
            }
            Op::LinearAttention { q, k, v, heads } => {
                let (b, h, w, _) = *self.value(q).shape();
                let q = self.taped(q);
                let q = self.split_heads(q, heads).softmax::<Axis<2>>();
                // Softmax before the permutation: dfdx differentiates the softmax of a permuted tensor incorrectly.
                let k = self.split_heads(self.retaped(k), heads).softmax::<Axis<1>>();
                let context = k.permute::<_, Axes3<0, 2, 1>>().matmul(self.split_heads(self.retaped(v), heads));
                self.join_heads(q.matmul(context), (b, h, w))
            }
            Op::Gate { branch, skip, gamma } => {
                let branch = self.taped(branch);
                let shape = *branch.shape();
                let gamma = shaped(self.param(gamma), (1usize,)).sum::<Rank0, _>();
                branch * gamma.broadcast_like(&shape) + self.value(skip).clone()
            }
        }
    }

    /// Computes rows · weight + bias, as images with `(b, h, w)` positions.
    fn affine(
        &self,
        rows: Matrix<D, T>,
        weight: ParamId,
        bias: ParamId,
        at: (usize, usize, usize),
    ) -> ImageTensor<D, T> {
        let inputs = rows.shape().1;
        let y = rows.matmul(self.matrix(weight, inputs));
        let shape = *y.shape();
        let y = y + self.param(bias).broadcast_like::<_, Axis<0>>(&shape);
        shaped(y, (at.0, at.1, at.2, shape.1))
    }

    /// Returns the 3×3 neighbourhood of every position, `(B, H·W·9, C)`. A row of zeros, appended to the others, stands
    /// for positions outside.
    fn neighbourhoods(&self, x: ImageTensor<D, T>) -> Positions<D, T> {
        let (b, height, width, c) = *x.shape();
        let len = height * width;
        let x: Positions<D, T> = shaped(x, (b, len, c));
        let x = x.gather(self.constants.rows(Rows::WithPadding { len }, b));
        let inside = self.constants.all_but_last(len + 1).retaped::<T>();
        let x = x * inside.broadcast_like::<_, Axes2<0, 2>>(&(b, len + 1, c));
        x.gather(self.constants.rows(Rows::Neighbours { height, width }, b))
    }

    /// Reorders `(B, H, W, heads · D)` to `(B · heads, H·W, D)`, so that a product is one call for all images. With
    /// another dimension, dfdx would call cuBLAS once per image.
    fn split_heads(&self, x: ImageTensor<D, T>, heads: usize) -> Positions<D, T> {
        let (b, h, w, c) = *x.shape();
        let (len, d) = (h * w, c / heads);
        let x: Positions<D, T> = shaped(x, (b, len * heads, d));
        let x = if heads == 1 { x } else { x.gather(self.constants.rows(Rows::HeadsFirst { heads, len }, b)) };
        shaped(x, (b * heads, len, d))
    }

    /// Reorders `(B · heads, H·W, D)` to `(B, H, W, heads · D)`.
    fn join_heads(&self, x: Positions<D, T>, (b, h, w): (usize, usize, usize)) -> ImageTensor<D, T> {
        let (all, len, d) = *x.shape();
        let heads = all / b;
        let x: Positions<D, T> = shaped(x, (b, heads * len, d));
        let x = if heads == 1 { x } else { x.gather(self.constants.rows(Rows::HeadsLast { heads, len }, b)) };
        shaped(x, (b, h, w, heads * d))
    }
}

/// Reshapes a contiguous tensor. For other tensors, dfdx would need a kernel that is not in the binary.
fn shaped<S: Shape, R: Shape, D: Device, T: Tape<f32, D>>(x: Tensor<S, f32, D, T>, shape: R) -> Tensor<R, f32, D, T> {
    debug_assert!(is_dense(&x), "{:?} is not contiguous", x.shape());
    x.reshape_like(&shape)
}

/// Whether a tensor is contiguous. dfdx does not expose strides, but reshaping a non-contiguous tensor is recorded on
/// the tape.
fn is_dense<S: Shape, D: Device, T>(x: &Tensor<S, f32, D, T>) -> bool {
    let flat = x.retaped::<OwnedTape<f32, D>>().reshape_like(&(x.shape().num_elements(),));
    format!("{:?}", flat.split_tape().1).contains("num_operations: 0")
}

/// Computes (x − mean) / √(variance + ε) for each image and group of channels.
fn group_norm<D: Device, T: Tape<f32, D> + Merge<T>>(x: ImageTensor<D, T>, groups: usize) -> ImageTensor<D, T> {
    let (b, h, w, c) = *x.shape();
    let x: ImageTensor<D, T> = shaped(x, (b, h * w, groups, c / groups));
    let shape = *x.shape();
    let mean = x.with_empty_tape().mean::<(usize, usize), Axes2<1, 3>>();
    let x = x - mean.broadcast_like::<_, Axes2<1, 3>>(&shape);
    let variance = x.with_empty_tape().square().mean::<(usize, usize), Axes2<1, 3>>();
    let deviation = (variance + 1e-5).sqrt().broadcast_like::<_, Axes2<1, 3>>(&shape);
    shaped(x / deviation, (b, h, w, c))
}

fn max_pool<D: Device, T: Tape<f32, D>>(x: ImageTensor<D, T>) -> ImageTensor<D, T> {
    let (b, h, w, c) = *x.shape();
    let rows = shaped(x, (b, h / 2, 2usize, w / 2 * 2 * c));
    let rows: Positions<D, T> = rows.max::<_, Axis<2>>();
    let rows: ImageTensor<D, T> = shaped(rows, (b * (h / 2), w / 2, 2usize, c));
    let rows: Positions<D, T> = rows.max::<_, Axis<2>>();
    shaped(rows, (b, h / 2, w / 2, c))
}

/// Copies a tensor before `slice`, whose gradient on the CPU overwrites the gradient of its input instead of adding to
/// it.
fn own_gradient<S: Shape, D: Device, T: Tape<f32, D>>(x: Tensor<S, f32, D, T>) -> Tensor<S, f32, D, T> {
    x * 1.0
}
