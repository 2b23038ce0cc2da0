//! One task: takes a few images through the forward pass and, in training, the backward pass, in one workspace.

mod backward;
mod forward;

use super::attention::{self, Attention};
use super::gemm::{Gemm, Panels, SumInit, gemm};
use super::linear_attention;
use super::norm::{self, Norm};
use super::plan::{BufferSlice, ExecutionPlan, PlanStep};
use super::simd::Isa;
use super::view::View;
use super::weights::PackedWeights;
use super::winograd;
use super::workspace::Workspace;
use crate::nn::graph::{Graph, NodeId, Op, ParamId};

/// The state that all tasks of one call share.
#[derive(Clone, Copy)]
pub struct PassContext<'a> {
    pub graph: &'a Graph,
    pub plan: &'a ExecutionPlan,
    pub isa: Isa,
    pub weights: &'a PackedWeights,
}

/// The inputs of one task, `(images, H, W, C)` and `(images,)`.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub x: &'a [f32],
    pub t: &'a [f32],
}

/// The execution of one task in its workspace.
pub struct Pass<'a> {
    context: PassContext<'a>,
    images: usize,
    arena: *mut f32,
    scratch: *mut f32,
}

/// Returns the size of the scratch memory for `images` images, in numbers.
pub fn scratch_len(graph: &Graph, plan: &ExecutionPlan, images: usize, training: bool) -> usize {
    let of = |step: &PlanStep| {
        let out = graph.shape(step.node);
        match step.op {
            Op::Conv3x3 { x, .. } => {
                let c = graph.shape(x).channels;
                let passes =
                    winograd::convolve_scratch(c, out.channels).max(winograd::convolve_scratch(out.channels, c));
                if training { passes.max(winograd::filter_gradient_scratch(c, out.channels)) } else { passes }
            }
            Op::UpConv2x2 { .. } => images * out.len(),
            Op::GroupNorm { .. } | Op::FilmNorm { .. } => norm::scratch_len(out.channels),
            Op::Gate { .. } => out.channels,
            Op::Attention { q, heads, .. } => {
                let queries = graph.shape(q);
                let channels = [queries.channels, out.channels];
                attention::scratch_len(queries.positions(), channels.map(|c| c / heads), training)
            }
            Op::LinearAttention { q, k, heads, .. } => {
                let (queries, keys) = (graph.shape(q), graph.shape(k));
                let channels = [queries.channels, out.channels];
                linear_attention::scratch_len(queries.positions(), keys.positions(), channels, heads)
            }
            _ => 0,
        }
    };
    plan.steps.iter().map(of).max().unwrap_or(0)
}

impl<'a> Pass<'a> {
    pub fn new(context: PassContext<'a>, workspace: &'a mut Workspace, images: usize, training: bool) -> Self {
        let arena = workspace.arena.at_least(context.plan.arena * images);
        let scratch = workspace.scratch.at_least(scratch_len(context.graph, context.plan, images, training));
        Self { context, images, arena, scratch }
    }

    fn view(&self, slice: Option<BufferSlice>) -> View {
        let slice = slice.expect("the plan stores every value that its steps access");
        // SAFETY: the plan's offsets are within an arena of `plan.arena` numbers per image.
        let at = unsafe { self.arena.add(slice.offset * self.images + slice.channel) };
        View { at, stride: slice.stride, images: self.images, shape: slice.shape }
    }

    /// Returns the value of a node, which is valid until its memory is reused.
    pub fn value(&self, node: NodeId) -> View {
        self.view(self.context.plan.values[node.0])
    }

    fn gradient(&self, node: NodeId) -> View {
        self.view(self.context.plan.gradients[node.0])
    }

    fn param(&self, id: ParamId) -> *const f32 {
        self.context.weights.param(id).as_ptr()
    }

    /// Returns the network's output.
    pub fn output(&self) -> View {
        self.value(self.context.graph.output())
    }

    /// Returns the gradient of the network's output.
    pub fn output_gradient(&self) -> View {
        self.gradient(self.context.graph.output())
    }

    fn norm(&self, step: &PlanStep, y: View) -> Norm {
        let (x, groups, weight, bias, film) = match step.op {
            Op::GroupNorm { x, groups, weight, bias } => (x, groups, weight, bias, None),
            Op::FilmNorm { x, v, groups, weight, bias } => (x, groups, weight, bias, Some(self.value(v))),
            _ => unreachable!("only called for normalisations"),
        };
        Norm {
            x: self.value(x),
            y,
            groups,
            silu: step.silu,
            weight: self.param(weight),
            bias: self.param(bias),
            film,
            // SAFETY: the plan reserves two numbers per group and image there.
            moments: unsafe { self.arena.add(step.saved * self.images) },
            scratch: self.scratch,
        }
    }

    fn attention(&self, step: &PlanStep, [q, k, v]: [NodeId; 3], heads: usize, image: usize) -> Attention {
        let part = |node| self.value(node).image(image);
        let q = part(q);
        // SAFETY: the plan reserves two numbers per head, query and image there.
        let moments =
            unsafe { self.arena.add(step.saved * self.images + image * attention::moments_len(q.rows(), heads)) };
        Attention { q, k: part(k), v: part(v), heads, moments, scratch: self.scratch }
    }

    /// Returns the scratch memory as the products of a transposed convolution, `(rows, 2 · 2 · O)`, before they are
    /// scattered to pixels.
    fn windows(&self, x: &View, outputs: usize) -> View {
        let mut shape = x.shape;
        shape.channels = 4 * outputs;
        View { at: self.scratch, stride: shape.channels, images: x.images, shape }
    }

    /// Computes y (+)= x · weights, with `weights` packed in panels.
    unsafe fn multiply(&self, x: &View, weights: *const f32, y: &View, init: SumInit) {
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
        unsafe { gemm(self.context.isa, &g) }
    }
}

/// Copies the values of all images out of a view; the inverse of `copy_in`.
pub fn copy_out(from: &View, values: &mut [f32]) {
    assert_eq!(values.len(), from.rows() * from.channels());
    for (row, pixel) in values.chunks_exact_mut(from.channels()).enumerate() {
        // SAFETY: there are as many pixels as the view has rows.
        unsafe { std::ptr::copy_nonoverlapping(from.at.add(row * from.stride), pixel.as_mut_ptr(), pixel.len()) }
    }
}
