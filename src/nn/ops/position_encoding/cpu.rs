//! The forward and backward pass with kernels for the CPU.

use crate::nn::fused::pass::{CpuKernel, StepContext, copy_in};
use crate::nn::graph::{Graph, PositionEncoding, Shape, position_encoding};

impl CpuKernel for PositionEncoding {
    fn reads_inputs_backward(&self) -> bool {
        false
    }

    fn constants(&self, output: Shape) -> Vec<f32> {
        position_encoding(output, self.spacing)
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, step: &StepContext) {
        let y = step.output();
        (0..step.images()).for_each(|i| copy_in(step.constants(), &y.image(i)));
    }

    unsafe fn backward(&self, _: &StepContext) {}
}
