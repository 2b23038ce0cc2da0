//! Runs the operations of a graph in order. Their implementations are in `nn::ops`.

use dfdx::prelude::*;

use super::constants::{Constants, Rows};
use super::{Device, ImageTensor, Matrix, Positions, VectorTensor};
use crate::nn::graph::{Graph, NodeId, Op, ParamId, Shape as ImageShape};

/// The implementation of an operation with dfdx's operations.
pub trait Reference {
    /// Computes the operation's value: for each image, of shape `output`.
    fn apply<D: Device, T: RunTape<D>>(
        &self,
        run: &mut Run<D, T>,
        output: ImageShape,
        images: usize,
    ) -> ImageTensor<D, T>;

    /// Returns the size of all values that are allocated for one image, including the result, in numbers.
    fn allocated_len(&self, graph: &Graph, output: ImageShape, training: bool) -> usize;
}

/// A tape that operations are recorded on: `OwnedTape`, or `NoneTape` if no gradients are needed.
pub trait RunTape<D: Device>: Tape<f32, D> + Merge<Self> + Merge<NoneTape> {}
impl<D: Device, T: Tape<f32, D> + Merge<T> + Merge<NoneTape>> RunTape<D> for T {}

/// The state of a run: the values that are still needed, and the tape that all of them share.
pub struct Run<'a, D: Device, T: RunTape<D>> {
    pub constants: &'a Constants<D>,
    params: &'a [VectorTensor<D>],
    values: Vec<Option<ImageTensor<D>>>,
    tape: Option<T>,
}

/// Computes the values of the `wanted` nodes for images and their times. Returns them with the tape that recorded them.
pub(super) fn run<D: Device, T: RunTape<D>>(
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
            Op::Input(_) => x.clone(),
            Op::Time(_) => t.clone().reshape_like(&(images, 1usize, 1usize, 1usize)),
            _ => {
                let (value, tape) = node.apply_reference(&mut run, images).split_tape();
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

impl<D: Device, T: RunTape<D>> Run<'_, D, T> {
    /// Returns the value of a node, without the tape.
    pub fn value(&self, id: NodeId) -> &ImageTensor<D> {
        self.values[id.0].as_ref().expect("a value is kept until its last use")
    }

    /// Returns the value of a node, with the tape.
    pub(in crate::nn) fn taped(&mut self, id: NodeId) -> ImageTensor<D, T> {
        let tape = self.take_tape();
        self.value(id).clone().put_tape(tape)
    }

    /// Takes the tape, for a value that has no gradient.
    pub(in crate::nn) fn take_tape(&mut self) -> T {
        self.tape.take().expect("only one value at a time holds the tape")
    }

    /// Returns the value of a node with a new tape, which dfdx merges with that of another operand.
    pub(in crate::nn) fn retaped(&self, id: NodeId) -> ImageTensor<D, T> {
        self.value(id).retaped::<T>()
    }

    /// Returns a parameter with a new tape.
    pub fn param(&self, id: ParamId) -> VectorTensor<D, T> {
        self.params[id.0].retaped::<T>()
    }

    /// Returns a parameter as a matrix with this number of rows.
    pub fn matrix(&self, id: ParamId, rows: usize) -> Matrix<D, T> {
        let columns = self.params[id.0].shape().0 / rows;
        self.param(id).reshape_like(&(rows, columns))
    }

    /// Computes rows · weight + bias, and reshapes the result to `b` images of `h` × `w` positions.
    pub(in crate::nn) fn affine(
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

    /// Reorders `(B, H, W, heads · D)` to `(B · heads, H·W, D)`, so that a product is one call for all images. With
    /// another dimension, dfdx would call cuBLAS once per image.
    pub(in crate::nn) fn split_heads(&self, x: ImageTensor<D, T>, heads: usize) -> Positions<D, T> {
        let (b, h, w, c) = *x.shape();
        let (len, d) = (h * w, c / heads);
        let x: Positions<D, T> = shaped(x, (b, len * heads, d));
        let x = if heads == 1 { x } else { x.gather(self.constants.rows(Rows::HeadsFirst { heads, len }, b)) };
        shaped(x, (b * heads, len, d))
    }

    /// Reorders `(B · heads, H·W, D)` to `(B, H, W, heads · D)`.
    pub(in crate::nn) fn join_heads(&self, x: Positions<D, T>, (b, h, w): (usize, usize, usize)) -> ImageTensor<D, T> {
        let (all, len, d) = *x.shape();
        let heads = all / b;
        let x: Positions<D, T> = shaped(x, (b, heads * len, d));
        let x = if heads == 1 { x } else { x.gather(self.constants.rows(Rows::HeadsLast { heads, len }, b)) };
        shaped(x, (b, h, w, heads * d))
    }
}

/// Reshapes a contiguous tensor. For other tensors, dfdx would need a kernel that is not in the binary.
pub(in crate::nn) fn shaped<S: Shape, R: Shape, D: Device, T: Tape<f32, D>>(
    x: Tensor<S, f32, D, T>,
    shape: R,
) -> Tensor<R, f32, D, T> {
    debug_assert!(is_dense(&x), "{:?} is not contiguous", x.shape());
    x.reshape_like(&shape)
}

/// Returns whether a tensor is contiguous. dfdx does not expose strides, but it records the reshaping of a tensor on
/// the tape only if the tensor is not contiguous.
fn is_dense<S: Shape, D: Device, T>(x: &Tensor<S, f32, D, T>) -> bool {
    let flat = x.retaped::<OwnedTape<f32, D>>().reshape_like(&(x.shape().num_elements(),));
    format!("{:?}", flat.split_tape().1).contains("num_operations: 0")
}

/// Copies a tensor, so that it can be sliced: on the CPU, the gradient of dfdx's `slice` overwrites the gradient of its
/// input instead of adding to it.
pub(in crate::nn) fn copy_before_slice<S: Shape, D: Device, T: Tape<f32, D>>(
    x: Tensor<S, f32, D, T>,
) -> Tensor<S, f32, D, T> {
    x * 1.0
}
