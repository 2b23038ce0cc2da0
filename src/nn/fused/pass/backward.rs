//! The backward pass: the gradients of every step, in reverse order.

use super::super::attention::{self, GradientTarget};
use super::super::gemm::{Gemm, Panels, SumInit, gemm};
use super::super::mean_pool::mean_pool_backward;
use super::super::norm::{self, NormBackward};
use super::super::plan::PlanStep;
use super::super::view::View;
use super::super::winograd::{self, Convolve, FilterGradient};
use super::super::{linear_attention, pointwise};
use super::Pass;
use crate::nn::graph::{Op, ParamId};

impl Pass<'_> {
    /// Runs the backward pass from the output's gradient, and adds the gradients of all parameters to `gradients`,
    /// which has the parameters' layout. Overwrites stored values.
    pub fn backward(&mut self, gradients: &mut [f32]) {
        assert_eq!(gradients.len(), self.context.graph.parameter_count());
        for (index, step) in self.context.plan.steps.iter().enumerate().rev() {
            if self.context.plan.gradients[step.node.0].is_some() {
                // SAFETY: as in `forward`; the length was checked.
                unsafe { self.step_backward(index, step, gradients.as_mut_ptr()) }
            }
        }
    }

    unsafe fn step_backward(&self, index: usize, step: &PlanStep, gradients: *mut f32) {
        let isa = self.context.isa;
        let dy = self.gradient(step.node);
        // SAFETY: upheld by the caller.
        let of = |id: ParamId| unsafe { gradients.add(self.context.weights.starts()[id.0]) };
        let target =
            |input: usize| step.gradients[input].map(|gradient| (self.gradient(gradient.node), gradient.accumulate));
        let of_image =
            |i: usize| move |target: GradientTarget| target.map(|(view, accumulate)| (view.image(i), accumulate));
        // SAFETY: upheld by the caller.
        unsafe {
            match step.op {
                Op::Input | Op::Time | Op::Sinusoid { .. } | Op::PositionEncoding { .. } => {}
                Op::Conv3x3 { x, weight, bias } => {
                    let x = self.value(x);
                    let scratch = self.scratch;
                    norm::column_sums(isa, &dy, of(bias));
                    winograd::filter_gradient(isa, &FilterGradient { x, dy, gradient: of(weight), scratch });
                    if let Some((dx, accumulate)) = target(0) {
                        let (filter, bias) = (self.context.weights.backward(index), std::ptr::null());
                        winograd::convolve(isa, &Convolve { x: dy, y: dx, filter, bias, accumulate, scratch });
                    }
                }
                Op::Linear { x, weight, bias } => {
                    norm::column_sums(isa, &dy, of(bias));
                    self.matrix_gradient(&self.value(x), &dy, of(weight));
                    if let Some((dx, accumulate)) = target(0) {
                        self.multiply(
                            &dy,
                            self.context.weights.backward(index),
                            &dx,
                            SumInit::accumulating(accumulate),
                        );
                    }
                }
                Op::UpConv2x2 { x, weight, bias } => {
                    let x = self.value(x);
                    norm::column_sums(isa, &dy, of(bias));
                    let windows = self.windows(&x, dy.channels());
                    pointwise::pixels_to_windows(isa, &dy, x.shape, windows.at);
                    self.matrix_gradient(&x, &windows, of(weight));
                    if let Some((dx, accumulate)) = target(0) {
                        self.multiply(
                            &windows,
                            self.context.weights.backward(index),
                            &dx,
                            SumInit::accumulating(accumulate),
                        );
                    }
                }
                Op::GroupNorm { weight, bias, .. } | Op::FilmNorm { weight, bias, .. } => {
                    let no_view = View { at: std::ptr::null_mut(), ..dy };
                    let (dx, accumulate) = target(0).unwrap_or((no_view, false));
                    let (d_weight, d_bias) = (of(weight), of(bias));
                    let norm = self.norm(step, dy);
                    let d_film = norm.film.and_then(|_| target(1));
                    norm::backward(isa, &NormBackward { norm, dx, accumulate, d_weight, d_bias, d_film });
                }
                Op::Silu { x } => {
                    if let Some((dx, accumulate)) = target(0) {
                        pointwise::silu_backward(isa, &self.value(x), &dy, &dx, accumulate);
                    }
                }
                Op::MaxPool2x2 { x } => {
                    if let Some((dx, accumulate)) = target(0) {
                        pointwise::max_pool_backward(isa, &self.value(x), &dy, &dx, accumulate);
                    }
                }
                Op::MeanPool { first, factor, .. } => {
                    if let Some((dx, accumulate)) = target(0) {
                        let part = dx.slice(first, dy.channels());
                        if !accumulate && part.channels() < dx.channels() {
                            pointwise::fill_zero(isa, &dx);
                        }
                        mean_pool_backward(isa, &dy, factor, &part, accumulate);
                    }
                }
                Op::Add { .. } => {
                    for i in [1, 0] {
                        if let Some((dx, accumulate)) = target(i).filter(|(dx, _)| dx.at != dy.at) {
                            pointwise::scale(isa, &dy, 1.0, &dx, accumulate);
                        }
                    }
                }
                Op::Concat { a, b } => {
                    let (a, b) = (self.context.graph.shape(a).channels, self.context.graph.shape(b).channels);
                    for (i, part) in [dy.slice(0, a), dy.slice(a, b)].iter().enumerate() {
                        if let Some((dx, accumulate)) = target(i) {
                            pointwise::scale(isa, part, 1.0, &dx, accumulate);
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
                            norm::column_sums(isa, &dy.image(i), sums);
                        }
                    }
                    if let Some((dx, accumulate)) = target(0).filter(|(dx, _)| dx.at != dy.at) {
                        pointwise::scale(isa, &dy, 1.0, &dx, accumulate);
                    }
                }
                Op::Attention { q, k, v, heads } => {
                    let y = self.value(step.node);
                    for i in 0..self.images {
                        let targets = [0, 1, 2].map(target).map(of_image(i));
                        let attention = self.attention(step, [q, k, v], heads, i);
                        attention::backward(isa, &attention, &y.image(i), &dy.image(i), targets);
                    }
                }
                Op::LinearAttention { q, k, v, heads } => {
                    for i in 0..self.images {
                        let targets = [0, 1, 2].map(target).map(of_image(i));
                        let attention = self.attention(step, [q, k, v], heads, i);
                        linear_attention::backward(isa, &attention, &dy.image(i), targets);
                    }
                }
                Op::Gate { branch, gamma, .. } => {
                    std::ptr::write_bytes(self.scratch, 0, dy.channels());
                    pointwise::channel_products(isa, &self.value(branch), &dy, self.scratch);
                    let sum: f64 = (0..dy.channels()).map(|c| f64::from(*self.scratch.add(c))).sum();
                    *of(gamma) += sum as f32;
                    if let Some((dx, accumulate)) = target(0) {
                        pointwise::scale(isa, &dy, *self.param(gamma), &dx, accumulate);
                    }
                    if let Some((dx, accumulate)) = target(1) {
                        pointwise::scale(isa, &dy, 1.0, &dx, accumulate);
                    }
                }
            }
        }
    }

    /// Computes gradient += xᵀ · dy.
    unsafe fn matrix_gradient(&self, x: &View, dy: &View, gradient: *mut f32) {
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
        unsafe { gemm(self.context.isa, &g) }
    }
}
