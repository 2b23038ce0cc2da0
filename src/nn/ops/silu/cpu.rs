//! The forward and backward pass with kernels for the CPU.

use super::kernel::{silu, silu_backward};
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::graph::{Graph, Shape, Silu};

impl CpuKernel for Silu {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            silu(step.isa(), &step.value(self.x), &step.output());
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            if let Some((dx, accumulate)) = step.input_gradient(0) {
                silu_backward(step.isa(), &step.value(self.x), &step.output_gradient(), &dx, accumulate);
            }
        }
    }
}
