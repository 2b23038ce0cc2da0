//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::Matrix;
use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::graph::{Graph, Shape as ImageShape, TimeEncoding};
use crate::nn::{Device, ImageTensor};

impl Reference for TimeEncoding {
    fn apply<D: Device, T: RunTape<D>>(
        &self,
        run: &mut Run<D, T>,
        output: ImageShape,
        images: usize,
    ) -> ImageTensor<D, T> {
        let (c, n) = (output.channels, output.channels / 2);
        let t: Matrix<D> = shaped(run.value(self.t).clone(), (images, 1usize));
        let angles = t.matmul(run.constants.frequencies(c));
        let both = angles.clone().sin().matmul(run.constants.channel_placement(n, 0, c))
            + angles.cos().matmul(run.constants.channel_placement(n, n, c));
        shaped(both, (images, 1usize, 1usize, c)).put_tape(run.take_tape())
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        output.len()
    }
}
