//! One task: a few images through every step and back, in one workspace.

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

/// What all tasks of one call share.
#[derive(Clone, Copy)]
pub struct PassContext<'a> {
    pub graph: &'a Graph,
    pub plan: &'a ExecutionPlan,
    pub isa: Isa,
    pub weights: &'a PackedWeights,
}

/// The images of one task, `(images, H, W, C)` and `(images,)`.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub x: &'a [f32],
    pub t: &'a [f32],
}

/// A task's images in its workspace.
pub struct Pass<'a> {
    context: PassContext<'a>,
    images: usize,
    arena: *mut f32,
    scratch: *mut f32,
}

/// Scratch numbers that `images` images need.
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

    fn view(&self, place: Option<BufferSlice>) -> View {
        let place = place.expect("the plan stores what its steps touch");
        // SAFETY: the plan's offsets lie in an arena of `plan.arena` numbers an image.
        let at = unsafe { self.arena.add(place.offset * self.images + place.channel) };
        View { at, stride: place.stride, images: self.images, shape: place.shape }
    }

    /// A node's value, there until something else needs its place.
    pub fn value(&self, node: NodeId) -> View {
        self.view(self.context.plan.values[node.0])
    }

    fn gradient(&self, node: NodeId) -> View {
        self.view(self.context.plan.gradients[node.0])
    }

    fn param(&self, id: ParamId) -> *const f32 {
        self.context.weights.param(id).as_ptr()
    }

    /// The network's output, image by image.
    pub fn output(&self) -> View {
        self.value(self.context.graph.output())
    }

    pub fn output_gradient(&self) -> View {
        self.gradient(self.context.graph.output())
    }

    fn norm(&self, step: &PlanStep, y: View) -> Norm {
        let (x, groups, weight, bias, film) = match step.op {
            Op::GroupNorm { x, groups, weight, bias } => (x, groups, weight, bias, None),
            Op::FilmNorm { x, v, groups, weight, bias } => (x, groups, weight, bias, Some(self.value(v))),
            _ => unreachable!("called for normalisations"),
        };
        Norm {
            x: self.value(x),
            y,
            groups,
            silu: step.silu,
            weight: self.param(weight),
            bias: self.param(bias),
            film,
            // SAFETY: the plan keeps two numbers a group and image there.
            moments: unsafe { self.arena.add(step.saved * self.images) },
            scratch: self.scratch,
        }
    }

    fn attention(&self, step: &PlanStep, [q, k, v]: [NodeId; 3], heads: usize, image: usize) -> Attention {
        let part = |node| self.value(node).image(image);
        let q = part(q);
        // SAFETY: the plan keeps two numbers a head, query and image there.
        let moments =
            unsafe { self.arena.add(step.saved * self.images + image * attention::moments_len(q.rows(), heads)) };
        Attention { q, k: part(k), v: part(v), heads, moments, scratch: self.scratch }
    }

    /// A transposed convolution's products before they are dealt out to pixels: the scratch, `(rows, 2 · 2 · O)`.
    fn windows(&self, x: &View, outputs: usize) -> View {
        let mut shape = x.shape;
        shape.channels = 4 * outputs;
        View { at: self.scratch, stride: shape.channels, images: x.images, shape }
    }

    /// y (+)= x · packed weights.
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
        // SAFETY: the caller's, passed on.
        unsafe { gemm(self.context.isa, &g) }
    }
}

/// The reverse of [`copy_in`].
pub fn copy_out(from: &View, values: &mut [f32]) {
    assert_eq!(values.len(), from.rows() * from.channels());
    for (row, pixel) in values.chunks_exact_mut(from.channels()).enumerate() {
        // SAFETY: as many pixels as the view has rows.
        unsafe { std::ptr::copy_nonoverlapping(from.at.add(row * from.stride), pixel.as_mut_ptr(), pixel.len()) }
    }
}
