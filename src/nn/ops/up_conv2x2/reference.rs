//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::constants::Rows;
use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::composed::{Matrix, Positions};
use crate::nn::graph::{Graph, Shape as ImageShape, UpConv2x2};
use crate::nn::{Device, ImageTensor};

impl Reference for UpConv2x2 {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, output: ImageShape, _: usize) -> ImageTensor<D, T> {
        let (b, h, w, c) = *run.value(self.x).shape();
        let o = output.channels;
        let y: Matrix<D, T> = shaped(run.taped(self.x), (b * h * w, c)).matmul(run.matrix(self.weight, c));
        let y: Positions<D, T> = shaped(y, (b, h * w * 4, o));
        let y = y.gather(run.constants.rows(Rows::Upsampled { height: h, width: w }, b));
        let y: ImageTensor<D, T> = shaped(y, (b, 2 * h, 2 * w, o));
        let shape = *y.shape();
        y + run.param(self.bias).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        3 * output.len()
    }
}
