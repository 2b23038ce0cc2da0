//! The forward and backward pass with kernels for the CPU.

use super::super::attention::kernel::{ImageAttention, image_targets};
use super::kernel;
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::graph::{Graph, LinearAttention, Shape};

impl CpuKernel for LinearAttention {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn scratch_len(&self, graph: &Graph, output: Shape, _: usize, _: bool) -> usize {
        let (queries, keys) = (graph.shape(self.q), graph.shape(self.k));
        let channels = [queries.channels, output.channels];
        kernel::scratch_len(queries.positions(), keys.positions(), channels, self.heads)
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let y = step.output();
            for i in 0..step.images() {
                kernel::forward(step.isa(), &of_image(self, step, i), &y.image(i));
            }
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let dy = step.output_gradient();
            for i in 0..step.images() {
                kernel::backward(step.isa(), &of_image(self, step, i), &dy.image(i), image_targets(step, i));
            }
        }
    }
}

fn of_image(op: &LinearAttention, step: &StepContext, image: usize) -> ImageAttention {
    let [q, k, v] = [op.q, op.k, op.v].map(|x| step.value(x).image(image));
    // The backward pass recomputes everything, so nothing is saved.
    ImageAttention { q, k, v, heads: op.heads, moments: std::ptr::null_mut(), scratch: step.scratch() }
}
