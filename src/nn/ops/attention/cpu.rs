//! The forward and backward pass with kernels for the CPU.

use super::kernel::{self, ImageAttention};
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::graph::{Attention, Graph, Shape};

impl CpuKernel for Attention {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn reads_output_backward(&self) -> bool {
        true
    }

    fn saved_len(&self, graph: &Graph) -> usize {
        kernel::moments_len(graph.shape(self.q).positions(), self.heads)
    }

    fn scratch_len(&self, graph: &Graph, output: Shape, _: usize, training: bool) -> usize {
        let queries = graph.shape(self.q);
        let channels = [queries.channels, output.channels].map(|c| c / self.heads);
        kernel::scratch_len(queries.positions(), channels, training)
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
            let (y, dy) = (step.output(), step.output_gradient());
            for i in 0..step.images() {
                let targets = kernel::image_targets(step, i);
                kernel::backward(step.isa(), &of_image(self, step, i), &y.image(i), &dy.image(i), targets);
            }
        }
    }
}

fn of_image(op: &Attention, step: &StepContext, image: usize) -> ImageAttention {
    let [q, k, v] = [op.q, op.k, op.v].map(|x| step.value(x).image(image));
    // SAFETY: the plan reserves `saved_len` numbers per image there.
    let moments = unsafe { step.saved().add(image * kernel::moments_len(q.rows(), op.heads)) };
    ImageAttention { q, k, v, heads: op.heads, moments, scratch: step.scratch() }
}
