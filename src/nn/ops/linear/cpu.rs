//! The forward and backward pass with kernels for the CPU.

use crate::nn::fused::gemm::SumInit;
use crate::nn::fused::pass::{CpuKernel, StepContext};
use crate::nn::fused::reduce::column_sums;
use crate::nn::fused::weights::WeightShape;
use crate::nn::graph::{Graph, Linear, Shape};

impl CpuKernel for Linear {
    fn reads_inputs_backward(&self) -> bool {
        true
    }

    fn scratch_len(&self, _: &Graph, _: Shape, _: usize, _: bool) -> usize {
        0
    }

    fn packed_weight(&self, graph: &Graph) -> Option<WeightShape> {
        let inputs = graph.shape(self.x).channels;
        let outputs = graph.params[self.weight.0].layout.len() / inputs;
        Some(WeightShape { weight: self.weight, inputs, outputs })
    }

    unsafe fn forward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let init = SumInit::Bias(step.param(self.bias));
            step.multiply(&step.value(self.x), step.forward_weights(), &step.output(), init);
        }
    }

    unsafe fn backward(&self, step: &StepContext) {
        // SAFETY: upheld by the caller.
        unsafe {
            let dy = step.output_gradient();
            column_sums(step.isa(), &dy, step.param_gradient(self.bias));
            step.add_matrix_gradient(&step.value(self.x), &dy, step.param_gradient(self.weight));
            if let Some((dx, accumulate)) = step.input_gradient(0) {
                step.multiply(&dy, step.backward_weights(), &dx, SumInit::accumulating(accumulate));
            }
        }
    }
}
