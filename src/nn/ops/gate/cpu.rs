//! The forward and backward pass with kernels for the CPU.

use super::kernel::channel_products;
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::pointwise;
use crate::nn::graph::{Gate, Graph, Shape};

impl CpuKernel for Gate {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn scratch_len(&self, _: &Graph, output: Shape, _: usize, _: bool) -> usize {
        output.channels
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (branch, skip, gamma) = (step.value(self.branch), step.value(self.skip), *step.param(self.gamma));
            pointwise::add_scaled(step.isa(), &branch, &skip, gamma, &step.output());
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (isa, dy, sums) = (step.isa(), step.output_gradient(), step.scratch());
            std::ptr::write_bytes(sums, 0, dy.channels());
            channel_products(isa, &step.value(self.branch), &dy, sums);
            let sum: f64 = (0..dy.channels()).map(|c| f64::from(*sums.add(c))).sum();
            *step.param_gradient(self.gamma) += sum as f32;
            if let Some((dx, accumulate)) = step.input_gradient(0) {
                pointwise::scale(isa, &dy, *step.param(self.gamma), &dx, accumulate);
            }
            if let Some((dx, accumulate)) = step.input_gradient(1) {
                pointwise::scale(isa, &dy, 1.0, &dx, accumulate);
            }
        }
    }
}
