//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::Matrix;
use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::graph::{AddVector, Graph, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for AddVector {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let v = run.taped(self.v);
        let (b, _, _, c) = *v.shape();
        let shape = *run.value(self.x).shape();
        let v: Matrix<D, T> = shaped(v, (b, c));
        v.broadcast_like::<_, Axes2<1, 2>>(&shape) + run.value(self.x).clone()
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        output.len()
    }
}
