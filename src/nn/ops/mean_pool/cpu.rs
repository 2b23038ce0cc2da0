//! The forward and backward pass with kernels for the CPU.

use super::kernel::{mean_pool, mean_pool_backward};
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::pointwise;
use crate::nn::graph::{Graph, MeanPool, Shape};

impl CpuKernel for MeanPool {
    fn reads_inputs_backward(&self) -> bool {
        false
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let y = step.output();
            mean_pool(step.isa(), &step.value(self.x).slice(self.first, y.channels()), self.factor, &y);
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            if let Some((dx, accumulate)) = step.input_gradient(0) {
                let dy = step.output_gradient();
                let part = dx.slice(self.first, dy.channels());
                if !accumulate && part.channels() < dx.channels() {
                    pointwise::fill_zero(step.isa(), &dx);
                }
                mean_pool_backward(step.isa(), &dy, self.factor, &part, accumulate);
            }
        }
    }
}
