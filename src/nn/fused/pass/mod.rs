//! One task: the forward pass and, in training, the backward pass of a few images, in one workspace.
//!
//! A pass runs the steps of a plan. `nn::ops` implements [`CpuKernel`] for every operation; a [`StepContext`] gives a
//! kernel access to values, gradients and parameters.

mod step;

use super::plan::{BufferSlice, ExecutionPlan};
use super::simd::{Isa, PANEL};
use super::view::View;
use super::weights::{PackedWeights, WeightShape, pack_matrix};
use super::workspace::Workspace;
use crate::nn::graph::{Graph, NodeId, Op, Shape};

pub use step::{GradientTarget, StepContext};

/// The implementation of an operation with kernels for the CPU.
pub trait CpuKernel {
    /// Returns whether the backward pass reads the operation's inputs.
    fn reads_inputs_backward(&self) -> bool;

    /// Returns whether the backward pass reads the operation's output.
    fn reads_output_backward(&self) -> bool {
        false
    }

    /// Returns the constants that both passes need; computed once per plan.
    fn constants(&self, _output: Shape) -> Vec<f32> {
        vec![]
    }

    /// Returns the size of the intermediate values that are saved for the backward pass, in numbers per image.
    fn saved_len(&self, _graph: &Graph) -> usize {
        0
    }

    /// Returns the size of the scratch memory for `images` images, in numbers.
    fn scratch_len(&self, graph: &Graph, output: Shape, images: usize, training: bool) -> usize;

    /// Returns the weight that the kernels read in a packed form, if any.
    fn packed_weight(&self, _graph: &Graph) -> Option<WeightShape> {
        None
    }

    /// Returns the length of a packed weight. The default is that of a matrix in panels.
    fn packed_len(&self, inputs: usize, outputs: usize) -> usize {
        inputs * outputs.next_multiple_of(PANEL)
    }

    /// Packs a weight of shape (taps, inputs, outputs); with `backward`, for the gradient of the operation's input. The
    /// default packs a matrix in panels.
    fn pack(&self, _isa: Isa, values: &[f32], [inputs, outputs]: [usize; 2], _backward: bool, to: &mut [f32]) {
        pack_matrix(values, inputs, outputs, to);
    }

    /// Computes the output.
    ///
    /// # Safety
    ///
    /// The context belongs to a step with this operation, in a plan for its graph.
    unsafe fn forward(&self, step: &StepContext);

    /// Computes the gradients of the inputs, and adds the gradients of the parameters.
    ///
    /// # Safety
    ///
    /// As for [`forward`](Self::forward), which has run; the context has the output's gradient.
    unsafe fn backward(&self, step: &StepContext);
}

/// The state that all tasks of one call share.
#[derive(Clone, Copy)]
pub(super) struct PassContext<'a> {
    pub(super) graph: &'a Graph,
    pub(super) plan: &'a ExecutionPlan,
    pub(super) isa: Isa,
    pub(super) weights: &'a PackedWeights,
}

/// The inputs of one task, `(images, H, W, C)` and `(images,)`.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) x: &'a [f32],
    pub(super) t: &'a [f32],
}

/// The execution of one task in its workspace.
pub(super) struct Pass<'a> {
    context: PassContext<'a>,
    images: usize,
    arena: *mut f32,
    scratch: *mut f32,
}

/// Returns the size of the scratch memory for `images` images, in numbers.
pub(super) fn scratch_len(graph: &Graph, plan: &ExecutionPlan, images: usize, training: bool) -> usize {
    let len = plan.steps.iter().map(|s| s.op.cpu().scratch_len(graph, graph.shape(s.node), images, training));
    len.max().unwrap_or(0)
}

impl<'a> Pass<'a> {
    pub(super) fn new(context: PassContext<'a>, workspace: &'a mut Workspace, images: usize, training: bool) -> Self {
        let arena = workspace.arena.at_least(context.plan.arena * images);
        let scratch = workspace.scratch.at_least(scratch_len(context.graph, context.plan, images, training));
        Self { context, images, arena, scratch }
    }

    /// Runs the forward pass.
    pub(super) fn forward(&mut self, inputs: Inputs) {
        for (index, step) in self.context.plan.steps.iter().enumerate() {
            match step.op {
                Op::Input(_) => copy_in(inputs.x, &self.value(step.node)),
                Op::Time(_) => copy_in(inputs.t, &self.value(step.node)),
                // SAFETY: the plan separates what a step reads from what it writes (or uses the same view for both
                // where the kernel allows it), in buffers of the shapes that the graph was checked for.
                op => unsafe { op.cpu().forward(&StepContext::new(self, step, index, std::ptr::null_mut())) },
            }
        }
    }

    /// Runs the backward pass, starting from the output's gradient. Adds the gradients of all parameters to
    /// `gradients`, which has the layout of the parameters. Overwrites stored values.
    pub(super) fn backward(&mut self, gradients: &mut [f32]) {
        assert_eq!(gradients.len(), self.context.graph.parameter_count());
        for (index, step) in self.context.plan.steps.iter().enumerate().rev() {
            if self.context.plan.gradients[step.node.0].is_some() {
                // SAFETY: as in `forward`; the length was checked.
                unsafe { step.op.cpu().backward(&StepContext::new(self, step, index, gradients.as_mut_ptr())) }
            }
        }
    }

    fn view(&self, slice: Option<BufferSlice>) -> View {
        let slice = slice.expect("the plan stores every value that its steps access");
        // SAFETY: the plan's offsets are within an arena of `plan.arena` numbers per image.
        let at = unsafe { self.arena.add(slice.offset * self.images + slice.channel) };
        View { at, stride: slice.stride, images: self.images, shape: slice.shape }
    }

    /// Returns the value of a node, which is valid until its memory is reused.
    pub(super) fn value(&self, node: NodeId) -> View {
        self.view(self.context.plan.values[node.0])
    }

    fn gradient(&self, node: NodeId) -> View {
        self.view(self.context.plan.gradients[node.0])
    }

    /// Returns the network's output.
    pub(super) fn output(&self) -> View {
        self.value(self.context.graph.output())
    }

    /// Returns the gradient of the network's output.
    pub(super) fn output_gradient(&self) -> View {
        self.gradient(self.context.graph.output())
    }
}

/// Copies the values of all images into a view.
pub(in crate::nn) fn copy_in(values: &[f32], to: &View) {
    assert_eq!(values.len(), to.rows() * to.channels());
    for (row, pixel) in values.chunks_exact(to.channels()).enumerate() {
        // SAFETY: there are as many pixels as the view has rows.
        unsafe { std::ptr::copy_nonoverlapping(pixel.as_ptr(), to.at.add(row * to.stride), pixel.len()) }
    }
}

/// Copies the values of all images out of a view; the inverse of [`copy_in`].
pub(super) fn copy_out(from: &View, values: &mut [f32]) {
    assert_eq!(values.len(), from.rows() * from.channels());
    for (row, pixel) in values.chunks_exact_mut(from.channels()).enumerate() {
        // SAFETY: there are as many pixels as the view has rows.
        unsafe { std::ptr::copy_nonoverlapping(from.at.add(row * from.stride), pixel.as_mut_ptr(), pixel.len()) }
    }
}
