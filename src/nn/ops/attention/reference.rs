//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::Positions;
use crate::nn::composed::run::{Reference, Run, RunTape};
use crate::nn::graph::{Attention, Graph, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for Attention {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, images: usize) -> ImageTensor<D, T> {
        let (query, key) = (*run.value(self.q).shape(), *run.value(self.k).shape());
        let value = *run.value(self.v).shape();
        let scale = 1.0 / ((query.3 / self.heads) as f32).sqrt();
        let q = run.taped(self.q);
        let q = run.split_heads(q, self.heads);
        let k = run.split_heads(run.retaped(self.k), self.heads);
        let v = run.split_heads(run.retaped(self.v), self.heads);
        debug_assert_eq!(key.1 * key.2, value.1 * value.2);
        let scores = q.matmul(k.permute::<_, Axes3<0, 2, 1>>()) * scale;
        let weighted: Positions<D, T> = scores.softmax::<Axis<2>>().matmul(v);
        run.join_heads(weighted, (images, query.1, query.2))
    }

    fn allocated_len(&self, graph: &Graph, output: ImageShape, training: bool) -> usize {
        let len = output.len();
        let weights = self.heads * graph.shape(self.q).positions() * graph.shape(self.k).positions();
        // Splitting heads copies the values.
        let split_len =
            if self.heads == 1 { 0 } else { [self.q, self.k, self.v].map(|x| graph.shape(x).len()).iter().sum() };
        if training { 2 * weights + 3 * len + split_len } else { weights + 3 * len + split_len }
    }
}
