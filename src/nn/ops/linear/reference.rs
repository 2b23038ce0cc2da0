//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::graph::{Graph, Linear, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for Linear {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let (b, h, w, c) = *run.value(self.x).shape();
        let rows = shaped(run.taped(self.x), (b * h * w, c));
        run.affine(rows, self.weight, self.bias, (b, h, w))
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        2 * output.len()
    }
}
