//! The forward and backward pass with kernels for the CPU.

use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::graph::{Graph, Shape, TimeEncoding, sinusoid_frequencies};

impl CpuKernel for TimeEncoding {
    fn reads_inputs_backward(&self) -> bool {
        false
    }

    fn constants(&self, output: Shape) -> Vec<f32> {
        sinusoid_frequencies(output.channels)
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (t, y, frequencies) = (step.value(self.t), step.output(), step.constants());
            for i in 0..step.images() {
                let (t, to) = (*t.image(i).at, y.image(i).at);
                for (j, frequency) in frequencies.iter().enumerate() {
                    *to.add(j) = (t * frequency).sin();
                    *to.add(frequencies.len() + j) = (t * frequency).cos();
                }
            }
        }
    }

    unsafe fn backward(&self, _: &StepContext) {}
}
