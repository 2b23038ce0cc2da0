//! The forward and backward pass with kernels for the CPU.

use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::pointwise;
use crate::nn::graph::{Concat, Graph, Shape};

impl CpuKernel for Concat {
    fn reads_inputs_backward(&self) -> bool {
        false
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (a, b, y) = (step.value(self.a), step.value(self.b), step.output());
            let parts = [y.slice(0, a.channels()), y.slice(a.channels(), b.channels())];
            for ((from, to), copy) in [a, b].iter().zip(parts).zip(step.copies()) {
                if copy {
                    pointwise::scale(step.isa(), from, 1.0, &to, false);
                }
            }
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let dy = step.output_gradient();
            let [a, b] = [self.a, self.b].map(|x| step.channels(x));
            for (i, part) in [dy.slice(0, a), dy.slice(a, b)].iter().enumerate() {
                if let Some((dx, accumulate)) = step.input_gradient(i) {
                    pointwise::scale(step.isa(), part, 1.0, &dx, accumulate);
                }
            }
        }
    }
}
