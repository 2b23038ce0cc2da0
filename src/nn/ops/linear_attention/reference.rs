//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::run::{Reference, Run, RunTape};
use crate::nn::graph::{Graph, LinearAttention, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for LinearAttention {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let (b, h, w, _) = *run.value(self.q).shape();
        let q = run.taped(self.q);
        let q = run.split_heads(q, self.heads).softmax::<Axis<2>>();
        // Softmax before the permutation: dfdx differentiates the softmax of a permuted tensor incorrectly.
        let k = run.split_heads(run.retaped(self.k), self.heads).softmax::<Axis<1>>();
        let context = k.permute::<_, Axes3<0, 2, 1>>().matmul(run.split_heads(run.retaped(self.v), self.heads));
        run.join_heads(q.matmul(context), (b, h, w))
    }

    fn allocated_len(&self, graph: &Graph, output: ImageShape, _: bool) -> usize {
        2 * (graph.shape(self.q).len() + graph.shape(self.k).len()) + graph.shape(self.v).len() + 2 * output.len()
    }
}
