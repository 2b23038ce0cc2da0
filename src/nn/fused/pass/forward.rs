//! The forward pass: the value of every step, in order.

use super::super::gemm::SumInit;
use super::super::mean_pool::mean_pool;
use super::super::plan::PlanStep;
use super::super::view::View;
use super::super::winograd::{self, Convolve};
use super::super::{attention, linear_attention, norm, pointwise};
use super::{Inputs, Pass};
use crate::nn::graph::Op;

impl Pass<'_> {
    /// Runs the forward pass.
    pub fn forward(&mut self, inputs: Inputs) {
        for (index, step) in self.context.plan.steps.iter().enumerate() {
            // SAFETY: the plan separates what a step reads from what it writes (or uses the same view for both where
            // the kernel allows it), in buffers of the shapes that the graph was checked for.
            unsafe { self.step(index, step, inputs) }
        }
    }

    unsafe fn step(&self, index: usize, step: &PlanStep, inputs: Inputs) {
        let isa = self.context.isa;
        let y = self.value(step.node);
        // SAFETY: upheld by the caller.
        unsafe {
            match step.op {
                Op::Input => copy_in(inputs.x, &y),
                Op::Time => copy_in(inputs.t, &y),
                Op::Conv3x3 { x, bias, .. } => {
                    let (filter, bias) = (self.context.weights.forward(index), self.param(bias));
                    let conv = Convolve { x: self.value(x), y, filter, bias, accumulate: false, scratch: self.scratch };
                    winograd::convolve(isa, &conv);
                }
                Op::Linear { x, bias, .. } => {
                    self.multiply(
                        &self.value(x),
                        self.context.weights.forward(index),
                        &y,
                        SumInit::Bias(self.param(bias)),
                    );
                }
                Op::UpConv2x2 { x, bias, .. } => {
                    let x = self.value(x);
                    let windows = self.windows(&x, y.channels());
                    self.multiply(&x, self.context.weights.forward(index), &windows, SumInit::Zero);
                    pointwise::windows_to_pixels(isa, windows.at, self.param(bias), x.shape, &y);
                }
                Op::GroupNorm { .. } | Op::FilmNorm { .. } => norm::forward(isa, &self.norm(step, y)),
                Op::Sinusoid { t } => {
                    let (t, waves) = (self.value(t), &step.constants);
                    for i in 0..self.images {
                        let (t, to) = (*t.image(i).at, y.image(i).at);
                        for (j, wave) in waves.iter().enumerate() {
                            *to.add(j) = (t * wave).sin();
                            *to.add(waves.len() + j) = (t * wave).cos();
                        }
                    }
                }
                Op::PositionEncoding { .. } => (0..self.images).for_each(|i| copy_in(&step.constants, &y.image(i))),
                Op::Silu { x } => pointwise::silu(isa, &self.value(x), &y),
                Op::MaxPool2x2 { x } => pointwise::max_pool(isa, &self.value(x), &y),
                Op::MeanPool { x, first, factor } => {
                    mean_pool(isa, &self.value(x).slice(first, y.channels()), factor, &y);
                }
                Op::Add { a, b } => pointwise::gate(isa, &self.value(a), &self.value(b), 1.0, &y),
                Op::Concat { a, b } => {
                    let (a, b) = (self.value(a), self.value(b));
                    let parts = [y.slice(0, a.channels()), y.slice(a.channels(), b.channels())];
                    for ((from, to), copy) in [a, b].iter().zip(parts).zip(step.copies) {
                        if copy {
                            pointwise::scale(isa, from, 1.0, &to, false);
                        }
                    }
                }
                Op::AddVector { x, v } => pointwise::add_vector(isa, &self.value(x), &self.value(v), &y),
                Op::Attention { q, k, v, heads } => {
                    for i in 0..self.images {
                        attention::forward(isa, &self.attention(step, [q, k, v], heads, i), &y.image(i));
                    }
                }
                Op::LinearAttention { q, k, v, heads } => {
                    for i in 0..self.images {
                        linear_attention::forward(isa, &self.attention(step, [q, k, v], heads, i), &y.image(i));
                    }
                }
                Op::Gate { branch, skip, gamma } => {
                    pointwise::gate(isa, &self.value(branch), &self.value(skip), *self.param(gamma), &y);
                }
            }
        }
    }
}

/// Copies the values of all images into a view.
fn copy_in(values: &[f32], to: &View) {
    assert_eq!(values.len(), to.rows() * to.channels());
    for (row, pixel) in values.chunks_exact(to.channels()).enumerate() {
        // SAFETY: there are as many pixels as the view has rows.
        unsafe { std::ptr::copy_nonoverlapping(pixel.as_ptr(), to.at.add(row * to.stride), pixel.len()) }
    }
}
