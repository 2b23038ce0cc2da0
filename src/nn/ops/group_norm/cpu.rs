//! The forward and backward pass with kernels for the CPU.

use super::kernel::{self, Norm, NormBackward};
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::view::View;
use crate::nn::graph::{FilmNorm, Graph, GroupNorm, Shape};

impl CpuKernel for GroupNorm {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn saved_len(&self, _: &Graph) -> usize {
        2 * self.groups
    }

    fn scratch_len(&self, _: &Graph, output: Shape, _: usize, _: bool) -> usize {
        kernel::scratch_len(output.channels)
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            kernel::forward(step.isa(), &norm(step, self, None, step.output()));
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe { backward(step, self, None) }
    }
}

impl CpuKernel for FilmNorm {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn saved_len(&self, _: &Graph) -> usize {
        2 * self.norm.groups
    }

    fn scratch_len(&self, _: &Graph, output: Shape, _: usize, _: bool) -> usize {
        kernel::scratch_len(output.channels)
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            kernel::forward(step.isa(), &norm(step, &self.norm, Some(step.value(self.v)), step.output()));
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe { backward(step, &self.norm, Some(step.value(self.v))) }
    }
}

fn norm(step: &StepContext, norm: &GroupNorm, film: Option<View>, y: View) -> Norm {
    Norm {
        x: step.value(norm.x),
        y,
        groups: norm.groups,
        silu: step.silu(),
        weight: step.param(norm.weight),
        bias: step.param(norm.bias),
        film,
        moments: step.saved(),
        scratch: step.scratch(),
    }
}

unsafe fn backward(step: &StepContext, op: &GroupNorm, film: Option<View>) {
    let dy = step.output_gradient();
    let no_view = View { at: std::ptr::null_mut(), ..dy };
    let (dx, accumulate) = step.input_gradient(0).unwrap_or((no_view, false));
    let (d_weight, d_bias) = (step.param_gradient(op.weight), step.param_gradient(op.bias));
    let d_film = film.and_then(|_| step.input_gradient(1));
    let norm = norm(step, op, film, dy);
    // SAFETY: upheld by the caller.
    unsafe { kernel::backward(step.isa(), &NormBackward { norm, dx, accumulate, d_weight, d_bias, d_film }) }
}
