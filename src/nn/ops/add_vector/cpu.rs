//! The forward and backward pass with kernels for the CPU.

use super::kernel::add_vector;
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::pointwise;
use crate::nn::fused::reduce::column_sums;
use crate::nn::graph::{AddVector, Graph, Shape};

impl CpuKernel for AddVector {
    fn reads_inputs_backward(&self) -> bool {
        false
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            add_vector(step.isa(), &step.value(self.x), &step.value(self.v), &step.output());
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (isa, dy) = (step.isa(), step.output_gradient());
            if let Some((dv, accumulate)) = step.input_gradient(1) {
                for i in 0..step.images() {
                    let sums = dv.image(i).at;
                    if !accumulate {
                        std::ptr::write_bytes(sums, 0, dv.channels());
                    }
                    column_sums(isa, &dy.image(i), sums);
                }
            }
            if let Some((dx, accumulate)) = step.input_gradient(0).filter(|(dx, _)| dx.at != dy.at) {
                pointwise::scale(isa, &dy, 1.0, &dx, accumulate);
            }
        }
    }
}
