//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::run::{Reference, Run, RunTape};
use crate::nn::graph::{Graph, Shape as ImageShape, Silu};
use crate::nn::{Device, ImageTensor};

impl Reference for Silu {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let x = run.taped(self.x);
        x.with_empty_tape().sigmoid() * x
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        2 * output.len()
    }
}
