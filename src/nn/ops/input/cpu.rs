//! The interface to the CPU backend, which copies the inputs itself.

use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::graph::{Graph, Input, Shape, Time};

impl CpuKernel for Input {
    fn reads_inputs_backward(&self) -> bool {
        false
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, _: &StepContext) {
        unreachable!("inputs are copied by the pass")
    }

    unsafe fn backward(&self, _: &StepContext) {}
}

impl CpuKernel for Time {
    fn reads_inputs_backward(&self) -> bool {
        false
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    unsafe fn forward(&self, _: &StepContext) {
        unreachable!("inputs are copied by the pass")
    }

    unsafe fn backward(&self, _: &StepContext) {}
}
