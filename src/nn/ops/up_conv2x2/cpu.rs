//! The forward and backward pass with kernels for the CPU.

use super::kernel::{pixels_to_windows, windows_to_pixels};
use crate::nn::fused::gemm::SumInit;
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::reduce::column_sums;
use crate::nn::fused::view::View;
use crate::nn::fused::weights::WeightShape;
use crate::nn::graph::{Graph, Shape, UpConv2x2};

impl CpuKernel for UpConv2x2 {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn scratch_len(&self, _: &Graph, output: Shape, images: usize, _: bool) -> usize {
        images * output.len()
    }

    fn packed_weight(&self, graph: &Graph) -> Option<WeightShape> {
        let inputs = graph.shape(self.x).channels;
        let outputs = graph.params[self.weight.0].layout.len() / inputs;
        Some(WeightShape { weight: self.weight, inputs, outputs })
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (x, y) = (step.value(self.x), step.output());
            let windows = windows(step, &x, y.channels());
            step.multiply(&x, step.forward_weights(), &windows, SumInit::Zero);
            windows_to_pixels(step.isa(), windows.at, step.param(self.bias), x.shape, &y);
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (isa, x, dy) = (step.isa(), step.value(self.x), step.output_gradient());
            column_sums(isa, &dy, step.param_gradient(self.bias));
            let windows = windows(step, &x, dy.channels());
            pixels_to_windows(isa, &dy, x.shape, windows.at);
            step.add_matrix_gradient(&x, &windows, step.param_gradient(self.weight));
            if let Some((dx, accumulate)) = step.input_gradient(0) {
                step.multiply(&windows, step.backward_weights(), &dx, SumInit::accumulating(accumulate));
            }
        }
    }
}

/// Returns a view of the scratch memory for the 2×2 windows of all positions of `x`, `(rows, 2 · 2 · O)`, before they
/// are copied to pixels.
fn windows(step: &StepContext, x: &View, outputs: usize) -> View {
    let mut shape = x.shape;
    shape.channels = 4 * outputs;
    View { at: step.scratch(), stride: shape.channels, images: x.images, shape }
}
