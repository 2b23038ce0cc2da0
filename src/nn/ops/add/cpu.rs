//! The forward and backward pass with kernels for the CPU.

use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::pointwise;
use crate::nn::graph::{Add, Graph, Shape};

impl CpuKernel for Add {
    fn reads_inputs_backward(&self) -> bool {
        false
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            pointwise::add_scaled(step.isa(), &step.value(self.a), &step.value(self.b), 1.0, &step.output());
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let dy = step.output_gradient();
            for i in [1, 0] {
                if let Some((dx, accumulate)) = step.input_gradient(i).filter(|(dx, _)| dx.at != dy.at) {
                    pointwise::scale(step.isa(), &dy, 1.0, &dx, accumulate);
                }
            }
        }
    }
}
