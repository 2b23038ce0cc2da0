//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::graph::{Gate, Graph, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for Gate {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let branch = run.taped(self.branch);
        let shape = *branch.shape();
        let gamma = shaped(run.param(self.gamma), (1usize,)).sum::<Rank0, _>();
        branch * gamma.broadcast_like(&shape) + run.value(self.skip).clone()
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        2 * output.len()
    }
}
