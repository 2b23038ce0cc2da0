//! The forward and backward pass with kernels for the CPU.

use super::winograd::{self, Convolve, FilterGradient};
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::reduce::column_sums;
use crate::nn::fused::simd::Isa;
use crate::nn::fused::weights::WeightShape;
use crate::nn::graph::{Conv3x3, Graph, Shape};

impl CpuKernel for Conv3x3 {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn scratch_len(&self, graph: &Graph, output: Shape, _: usize, training: bool) -> usize {
        let (c, o) = (graph.shape(self.x).channels, output.channels);
        let convolve = winograd::convolve_scratch(c, o).max(winograd::convolve_scratch(o, c));
        if training { convolve.max(winograd::filter_gradient_scratch(c, o)) } else { convolve }
    }

    fn packed_weight(&self, graph: &Graph) -> Option<WeightShape> {
        let inputs = graph.shape(self.x).channels;
        let outputs = graph.params[self.weight.0].layout.len() / (9 * inputs);
        Some(WeightShape { weight: self.weight, inputs, outputs })
    }

    fn packed_len(&self, inputs: usize, outputs: usize) -> usize {
        winograd::filter_len(inputs, outputs)
    }

    fn pack(&self, isa: Isa, values: &[f32], [inputs, outputs]: [usize; 2], backward: bool, to: &mut [f32]) {
        assert!(values.len() == 9 * inputs * outputs && to.len() == winograd::filter_len(inputs, outputs));
        // SAFETY: the lengths have been checked.
        unsafe { winograd::transform_filter(isa, values.as_ptr(), inputs, outputs, backward, to.as_mut_ptr()) }
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (x, y, bias) = (step.value(self.x), step.output(), step.param(self.bias));
            let (filter, scratch) = (step.forward_weights(), step.scratch());
            winograd::convolve(step.isa(), &Convolve { x, y, filter, bias, accumulate: false, scratch });
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (isa, x, dy, scratch) = (step.isa(), step.value(self.x), step.output_gradient(), step.scratch());
            column_sums(isa, &dy, step.param_gradient(self.bias));
            let gradient = step.param_gradient(self.weight);
            winograd::filter_gradient(isa, &FilterGradient { x, dy, gradient, scratch });
            if let Some((dx, accumulate)) = step.input_gradient(0) {
                let (filter, bias) = (step.backward_weights(), std::ptr::null());
                winograd::convolve(isa, &Convolve { x: dy, y: dx, filter, bias, accumulate, scratch });
            }
        }
    }
}
