//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::Positions;
use crate::nn::composed::run::{Reference, Run, RunTape, copy_before_slice, shaped};
use crate::nn::graph::{Graph, MeanPool, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for MeanPool {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, output: ImageShape, _: usize) -> ImageTensor<D, T> {
        let (first, f) = (self.first, self.factor);
        let (b, h, w, _) = *run.value(self.x).shape();
        let c = output.channels;
        let part: ImageTensor<D, T> = copy_before_slice(run.taped(self.x)).slice((.., .., .., first..first + c));
        let blocks: Tensor<(usize, usize, usize, usize, usize), f32, D, T> =
            shaped(part, (b * (h / f), f, w / f, f, c));
        let means: Positions<D, T> = blocks.mean::<_, Axes2<1, 3>>();
        shaped(means, (b, h / f, w / f, c))
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        (2 * self.factor * self.factor + 1) * output.len()
    }
}
