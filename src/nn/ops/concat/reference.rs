//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::Matrix;
use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::graph::{Concat, Graph, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for Concat {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, output: ImageShape, _: usize) -> ImageTensor<D, T> {
        let (n, h, w, first) = *run.value(self.a).shape();
        let (second, all) = (run.value(self.b).shape().3, output.channels);
        let a: Matrix<D, T> = shaped(run.taped(self.a), (n * h * w, first));
        let b: Matrix<D, T> = shaped(run.retaped(self.b), (n * h * w, second));
        let both = a.matmul(run.constants.channel_placement(first, 0, all))
            + b.matmul(run.constants.channel_placement(second, first, all));
        shaped(both, (n, h, w, all))
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        3 * output.len()
    }
}
