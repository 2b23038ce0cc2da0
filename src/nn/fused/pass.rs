//! One task: a few images through every step and back, in one workspace.

use super::attention::{self, Attention};
use super::gemm::{Gemm, Init, gemm};
use super::linear_attention;
use super::mean_pool::{mean_pool, mean_pool_backward};
use super::norm::{self, Norm, NormBackward};
use super::plan::{Place, Plan, Step};
use super::pointwise;
use super::simd::{Level, PANEL};
use super::view::View;
use super::weights::Weights;
use super::winograd::{self, Convolve, FilterGradient};
use super::workspace::Workspace;
use crate::nn::graph::{self, Graph, NodeId, Op, ParamId};

/// What all tasks of one call share.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    pub graph: &'a Graph,
    pub plan: &'a Plan,
    pub level: Level,
    pub weights: &'a Weights,
}

/// The images of one task, `(images, H, W, C)` and `(images,)`.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub x: &'a [f32],
    pub t: &'a [f32],
}

/// A task's images in its workspace.
pub struct Pass<'a> {
    shared: Shared<'a>,
    images: usize,
    arena: *mut f32,
    scratch: *mut f32,
}

/// Scratch numbers that `images` images need.
pub fn scratch_len(graph: &Graph, plan: &Plan, images: usize, training: bool) -> usize {
    let of = |step: &Step| {
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
            Op::Attention { q, k, .. } => {
                let (queries, keys) = (graph.shape(q), graph.shape(k));
                let channels = [queries.channels, out.channels];
                attention::scratch_len(queries.positions(), keys.positions(), channels, training)
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
    pub fn new(shared: Shared<'a>, workspace: &'a mut Workspace, images: usize, training: bool) -> Self {
        let arena = workspace.arena.at_least(shared.plan.arena * images);
        let scratch = workspace.scratch.at_least(scratch_len(shared.graph, shared.plan, images, training));
        Self { shared, images, arena, scratch }
    }

    fn view(&self, place: Option<Place>) -> View {
        let place = place.expect("the plan stores what its steps touch");
        // SAFETY: the plan's offsets lie in an arena of `plan.arena` numbers an image.
        let at = unsafe { self.arena.add(place.offset * self.images + place.channel) };
        View { at, stride: place.stride, images: self.images, shape: place.shape }
    }

    /// A node's value, there until something else needs its place.
    pub fn value(&self, node: NodeId) -> View {
        self.view(self.shared.plan.values[node.0])
    }

    fn gradient(&self, node: NodeId) -> View {
        self.view(self.shared.plan.gradients[node.0])
    }

    fn param(&self, id: ParamId) -> *const f32 {
        self.shared.weights.param(id).as_ptr()
    }

    /// The network's output, image by image.
    pub fn output(&self) -> View {
        self.value(self.shared.graph.output())
    }

    pub fn output_gradient(&self) -> View {
        self.gradient(self.shared.graph.output())
    }

    /// Computes every node.
    pub fn forward(&mut self, inputs: Inputs) {
        for (index, step) in self.shared.plan.steps.iter().enumerate() {
            // SAFETY: the plan keeps apart what a step reads and what it writes (or makes them the same view where the
            // kernel allows that), in buffers of the shapes that the graph was checked for.
            unsafe { self.step(index, step, inputs) }
        }
    }

    unsafe fn step(&self, index: usize, step: &Step, inputs: Inputs) {
        let level = self.shared.level;
        let y = self.value(step.node);
        // SAFETY: the caller's, passed on.
        unsafe {
            match step.op {
                Op::Input => copy_in(inputs.x, &y),
                Op::Time => copy_in(inputs.t, &y),
                Op::Conv3x3 { x, bias, .. } => {
                    let (filter, bias) = (self.shared.weights.forward(index), self.param(bias));
                    let conv = Convolve { x: self.value(x), y, filter, bias, accumulate: false, scratch: self.scratch };
                    winograd::convolve(level, &conv);
                }
                Op::Linear { x, bias, .. } => {
                    self.multiply(&self.value(x), self.shared.weights.forward(index), &y, Init::Bias(self.param(bias)));
                }
                Op::UpConv2x2 { x, bias, .. } => {
                    let x = self.value(x);
                    let windows = self.windows(&x, y.channels());
                    self.multiply(&x, self.shared.weights.forward(index), &windows, Init::Zero);
                    pointwise::windows_to_pixels(level, windows.at, self.param(bias), x.shape, &y);
                }
                Op::GroupNorm { .. } | Op::FilmNorm { .. } => norm::forward(level, &self.norm(step, y)),
                Op::Sinusoid { t } => {
                    let (t, waves) = (self.value(t), graph::sinusoid(y.channels()));
                    for i in 0..self.images {
                        let (t, to) = (*t.image(i).at, y.image(i).at);
                        for (j, wave) in waves.iter().enumerate() {
                            *to.add(j) = (t * wave).sin();
                            *to.add(waves.len() + j) = (t * wave).cos();
                        }
                    }
                }
                Op::Positions { cell } => {
                    let places = graph::positions(y.shape, cell);
                    (0..self.images).for_each(|i| copy_in(&places, &y.image(i)));
                }
                Op::Silu { x } => pointwise::silu(level, &self.value(x), &y),
                Op::MaxPool2x2 { x } => pointwise::max_pool(level, &self.value(x), &y),
                Op::MeanPool { x, first, factor } => {
                    mean_pool(level, &self.value(x).slice(first, y.channels()), factor, &y);
                }
                Op::Add { a, b } => pointwise::gate(level, &self.value(a), &self.value(b), 1.0, &y),
                Op::Concat { a, b } => {
                    let (a, b) = (self.value(a), self.value(b));
                    let parts = [y.slice(0, a.channels()), y.slice(a.channels(), b.channels())];
                    for ((from, to), copy) in [a, b].iter().zip(parts).zip(step.copies) {
                        if copy {
                            pointwise::scale(level, from, 1.0, &to, false);
                        }
                    }
                }
                Op::AddVector { x, v } => pointwise::add_vector(level, &self.value(x), &self.value(v), &y),
                Op::Attention { q, k, v, heads } => {
                    for i in 0..self.images {
                        attention::forward(level, &self.attention([q, k, v], heads, i), &y.image(i));
                    }
                }
                Op::LinearAttention { q, k, v, heads } => {
                    for i in 0..self.images {
                        linear_attention::forward(level, &self.attention([q, k, v], heads, i), &y.image(i));
                    }
                }
                Op::Gate { branch, skip, gamma } => {
                    pointwise::gate(level, &self.value(branch), &self.value(skip), *self.param(gamma), &y);
                }
            }
        }
    }

    /// From the gradient of the output to the gradients of all parameters, added to `gradients`, which lies as the
    /// parameters do. Spends the values.
    pub fn backward(&mut self, gradients: &mut [f32]) {
        assert_eq!(gradients.len(), self.shared.graph.parameter_count());
        for (index, step) in self.shared.plan.steps.iter().enumerate().rev() {
            if self.shared.plan.gradients[step.node.0].is_some() {
                // SAFETY: as in `forward`; the length was checked.
                unsafe { self.step_backward(index, step, gradients.as_mut_ptr()) }
            }
        }
    }

    unsafe fn step_backward(&self, index: usize, step: &Step, gradients: *mut f32) {
        let level = self.shared.level;
        let dy = self.gradient(step.node);
        // SAFETY: the caller's, passed on.
        let of = |id: ParamId| unsafe { gradients.add(self.shared.weights.starts()[id.0]) };
        let target =
            |input: usize| step.gradients[input].map(|gradient| (self.gradient(gradient.node), gradient.accumulate));
        let init = |accumulate| if accumulate { Init::Accumulate } else { Init::Zero };
        // SAFETY: the caller's, passed on.
        unsafe {
            match step.op {
                Op::Input | Op::Time | Op::Sinusoid { .. } | Op::Positions { .. } => {}
                Op::Conv3x3 { x, weight, bias } => {
                    let x = self.value(x);
                    let scratch = self.scratch;
                    norm::column_sums(level, &dy, of(bias));
                    winograd::filter_gradient(level, &FilterGradient { x, dy, gradient: of(weight), scratch });
                    if let Some((dx, accumulate)) = target(0) {
                        let (filter, bias) = (self.shared.weights.backward(index), std::ptr::null());
                        winograd::convolve(level, &Convolve { x: dy, y: dx, filter, bias, accumulate, scratch });
                    }
                }
                Op::Linear { x, weight, bias } => {
                    norm::column_sums(level, &dy, of(bias));
                    self.matrix_gradient(&self.value(x), &dy, of(weight));
                    if let Some((dx, accumulate)) = target(0) {
                        self.multiply(&dy, self.shared.weights.backward(index), &dx, init(accumulate));
                    }
                }
                Op::UpConv2x2 { x, weight, bias } => {
                    let x = self.value(x);
                    norm::column_sums(level, &dy, of(bias));
                    let windows = self.windows(&x, dy.channels());
                    pointwise::pixels_to_windows(level, &dy, x.shape, windows.at);
                    self.matrix_gradient(&x, &windows, of(weight));
                    if let Some((dx, accumulate)) = target(0) {
                        self.multiply(&windows, self.shared.weights.backward(index), &dx, init(accumulate));
                    }
                }
                Op::GroupNorm { weight, bias, .. } | Op::FilmNorm { weight, bias, .. } => {
                    let nothing = View { at: std::ptr::null_mut(), ..dy };
                    let (dx, accumulate) = target(0).unwrap_or((nothing, false));
                    let (d_weight, d_bias) = (of(weight), of(bias));
                    let norm = self.norm(step, dy);
                    let d_film = norm.film.and_then(|_| target(1));
                    norm::backward(level, &NormBackward { norm, dx, accumulate, d_weight, d_bias, d_film });
                }
                Op::Silu { x } => {
                    if let Some((dx, accumulate)) = target(0) {
                        pointwise::silu_backward(level, &self.value(x), &dy, &dx, accumulate);
                    }
                }
                Op::MaxPool2x2 { x } => {
                    if let Some((dx, accumulate)) = target(0) {
                        pointwise::max_pool_backward(level, &self.value(x), &dy, &dx, accumulate);
                    }
                }
                Op::MeanPool { first, factor, .. } => {
                    if let Some((dx, accumulate)) = target(0) {
                        let part = dx.slice(first, dy.channels());
                        if !accumulate && part.channels() < dx.channels() {
                            pointwise::fill_zero(level, &dx);
                        }
                        mean_pool_backward(level, &dy, factor, &part, accumulate);
                    }
                }
                Op::Add { .. } => {
                    for i in [1, 0] {
                        if let Some((dx, accumulate)) = target(i).filter(|(dx, _)| dx.at != dy.at) {
                            pointwise::scale(level, &dy, 1.0, &dx, accumulate);
                        }
                    }
                }
                Op::Concat { a, b } => {
                    let (a, b) = (self.shared.graph.shape(a).channels, self.shared.graph.shape(b).channels);
                    for (i, part) in [dy.slice(0, a), dy.slice(a, b)].iter().enumerate() {
                        if let Some((dx, accumulate)) = target(i) {
                            pointwise::scale(level, part, 1.0, &dx, accumulate);
                        }
                    }
                }
                Op::AddVector { .. } => {
                    if let Some((dv, accumulate)) = target(1) {
                        for i in 0..self.images {
                            let sums = dv.image(i).at;
                            if !accumulate {
                                std::ptr::write_bytes(sums, 0, dv.channels());
                            }
                            norm::column_sums(level, &dy.image(i), sums);
                        }
                    }
                    if let Some((dx, accumulate)) = target(0).filter(|(dx, _)| dx.at != dy.at) {
                        pointwise::scale(level, &dy, 1.0, &dx, accumulate);
                    }
                }
                Op::Attention { q, k, v, heads } => {
                    for i in 0..self.images {
                        let targets = [0, 1, 2].map(|n| target(n).map(|(view, add)| (view.image(i), add)));
                        attention::backward(level, &self.attention([q, k, v], heads, i), &dy.image(i), targets);
                    }
                }
                Op::LinearAttention { q, k, v, heads } => {
                    for i in 0..self.images {
                        let targets = [0, 1, 2].map(|n| target(n).map(|(view, add)| (view.image(i), add)));
                        linear_attention::backward(level, &self.attention([q, k, v], heads, i), &dy.image(i), targets);
                    }
                }
                Op::Gate { branch, gamma, .. } => {
                    std::ptr::write_bytes(self.scratch, 0, dy.channels());
                    pointwise::channel_products(level, &self.value(branch), &dy, self.scratch);
                    let sum: f64 = (0..dy.channels()).map(|c| f64::from(*self.scratch.add(c))).sum();
                    *of(gamma) += sum as f32;
                    if let Some((dx, accumulate)) = target(0) {
                        pointwise::scale(level, &dy, *self.param(gamma), &dx, accumulate);
                    }
                    if let Some((dx, accumulate)) = target(1) {
                        pointwise::scale(level, &dy, 1.0, &dx, accumulate);
                    }
                }
            }
        }
    }

    fn norm(&self, step: &Step, y: View) -> Norm {
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
            moments: unsafe { self.arena.add(step.kept * self.images) },
            scratch: self.scratch,
        }
    }

    fn attention(&self, [q, k, v]: [NodeId; 3], heads: usize, image: usize) -> Attention {
        let part = |node| self.value(node).image(image);
        Attention { q: part(q), k: part(k), v: part(v), heads, scratch: self.scratch }
    }

    /// A transposed convolution's products before they are dealt out to pixels: the scratch, `(rows, 2 · 2 · O)`.
    fn windows(&self, x: &View, outputs: usize) -> View {
        let mut shape = x.shape;
        shape.channels = 4 * outputs;
        View { at: self.scratch, stride: shape.channels, images: x.images, shape }
    }

    /// y (+)= x · packed weights.
    unsafe fn multiply(&self, x: &View, weights: *const f32, y: &View, init: Init) {
        let g = Gemm {
            m: x.rows(),
            n: y.channels(),
            k: x.channels(),
            a: x.at,
            a_row: x.stride,
            a_column: 1,
            b: weights,
            b_row: PANEL,
            b_panel: PANEL * x.channels(),
            c: y.at,
            c_row: y.stride,
            c_panel: PANEL,
            init,
        };
        // SAFETY: the caller's, passed on.
        unsafe { gemm(self.shared.level, &g) }
    }

    /// gradient += xᵀ · dy.
    unsafe fn matrix_gradient(&self, x: &View, dy: &View, gradient: *mut f32) {
        let g = Gemm {
            m: x.channels(),
            n: dy.channels(),
            k: x.rows(),
            a: x.at,
            a_row: 1,
            a_column: x.stride,
            b: dy.at,
            b_row: dy.stride,
            b_panel: PANEL,
            c: gradient,
            c_row: dy.channels(),
            c_panel: PANEL,
            init: Init::Accumulate,
        };
        // SAFETY: the caller's, passed on.
        unsafe { gemm(self.shared.level, &g) }
    }
}

/// Values of all images, pixel by pixel.
fn copy_in(values: &[f32], to: &View) {
    assert_eq!(values.len(), to.rows() * to.channels());
    for (row, pixel) in values.chunks_exact(to.channels()).enumerate() {
        // SAFETY: as many pixels as the view has rows.
        unsafe { std::ptr::copy_nonoverlapping(pixel.as_ptr(), to.at.add(row * to.stride), pixel.len()) }
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
