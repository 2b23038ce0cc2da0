//! The values, gradients, parameters and memory that the kernel of one step may access.

use super::Pass;
use crate::nn::fused::gemm::{Gemm, Panels, SumInit, gemm};
use crate::nn::fused::plan::PlanStep;
use crate::nn::fused::simd::Isa;
use crate::nn::fused::view::View;
use crate::nn::graph::{NodeId, ParamId};

/// A gradient to compute, and whether to add it to the current values; `None` if it is not needed.
pub type GradientTarget = Option<(View, bool)>;

/// The context in which the kernel of one step runs.
#[derive(Clone, Copy)]
pub struct StepContext<'a> {
    pass: &'a Pass<'a>,
    step: &'a PlanStep,
    index: usize,
    /// The gradients of all parameters; null in the forward pass.
    gradients: *mut f32,
}

impl<'a> StepContext<'a> {
    pub(super) fn new(pass: &'a Pass<'a>, step: &'a PlanStep, index: usize, gradients: *mut f32) -> Self {
        Self { pass, step, index, gradients }
    }

    pub fn isa(&self) -> Isa {
        self.pass.context.isa
    }

    /// Returns the number of images.
    pub fn images(&self) -> usize {
        self.pass.images
    }

    /// Returns the number of channels of an input.
    pub fn channels(&self, node: NodeId) -> usize {
        self.pass.context.graph.shape(node).channels
    }

    /// Returns the value of an input.
    pub fn value(&self, node: NodeId) -> View {
        self.pass.value(node)
    }

    /// Returns the value that the step computes.
    pub fn output(&self) -> View {
        self.pass.value(self.step.node)
    }

    /// Returns the gradient of the value that the step computes.
    pub(in crate::nn) fn output_gradient(&self) -> View {
        self.pass.gradient(self.step.node)
    }

    /// Returns the gradient of an input, given the input's index in [`Op::inputs`](crate::nn::graph::Op::inputs).
    pub(in crate::nn) fn input_gradient(&self, input: usize) -> GradientTarget {
        self.step.gradients[input].map(|gradient| (self.pass.gradient(gradient.node), gradient.accumulate))
    }

    /// Returns the values of a parameter.
    pub fn param(&self, id: ParamId) -> *const f32 {
        self.pass.context.weights.param(id).as_ptr()
    }

    /// Returns the gradient of a parameter, for kernels to add to. Valid only in the backward pass.
    pub(in crate::nn) fn param_gradient(&self, id: ParamId) -> *mut f32 {
        debug_assert!(!self.gradients.is_null());
        // SAFETY: the gradients have the parameters' layout.
        unsafe { self.gradients.add(self.pass.context.weights.starts()[id.0]) }
    }

    /// Returns the step's weight, packed for the forward pass.
    pub(in crate::nn) fn forward_weights(&self) -> *const f32 {
        self.pass.context.weights.forward(self.index)
    }

    /// Returns the step's weight, packed for the gradient of its input.
    pub(in crate::nn) fn backward_weights(&self) -> *const f32 {
        self.pass.context.weights.backward(self.index)
    }

    /// Returns the operation's constants.
    pub fn constants(&self) -> &[f32] {
        &self.step.constants
    }

    /// Returns whether SiLU is applied after the operation, which is a normalisation.
    pub fn silu(&self) -> bool {
        self.step.silu
    }

    /// Returns for each input of a `Concat` whether it must be copied.
    pub fn copies(&self) -> [bool; 2] {
        self.step.copies
    }

    /// Returns the intermediate values that the forward pass saves for the backward pass.
    pub fn saved(&self) -> *mut f32 {
        // SAFETY: the plan reserves them in the arena.
        unsafe { self.pass.arena.add(self.step.saved * self.pass.images) }
    }

    /// Returns the scratch memory.
    pub fn scratch(&self) -> *mut f32 {
        self.pass.scratch
    }

    /// Computes y (+)= x · weights, with `weights` packed in panels.
    ///
    /// # Safety
    ///
    /// The views and weights have matching sizes; `y` overlaps neither.
    pub(in crate::nn) unsafe fn multiply(&self, x: &View, weights: *const f32, y: &View, init: SumInit) {
        let g = Gemm {
            m: x.rows(),
            n: y.channels(),
            k: x.channels(),
            a: x.left(),
            b: Panels::packed(weights, x.channels()),
            c: y.right(),
            init,
        };
        // SAFETY: upheld by the caller.
        unsafe { gemm(self.isa(), &g) }
    }

    /// Computes gradient += xᵀ · dy.
    ///
    /// # Safety
    ///
    /// The views and the gradient have matching sizes; the gradient overlaps neither.
    pub(in crate::nn) unsafe fn add_matrix_gradient(&self, x: &View, dy: &View, gradient: *mut f32) {
        let g = Gemm {
            m: x.channels(),
            n: dy.channels(),
            k: x.rows(),
            a: x.left().transposed(),
            b: dy.right(),
            c: Panels::rows(gradient, dy.channels()),
            init: SumInit::Accumulate,
        };
        // SAFETY: upheld by the caller.
        unsafe { gemm(self.isa(), &g) }
    }
}
