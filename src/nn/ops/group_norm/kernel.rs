//! Group normalisation with optional FiLM and SiLU, and its gradients.
//!
//! The backward pass recomputes the normalised value and its activation; only the input, the means and the reciprocal
//! standard deviations are saved. Sums run along rows in four phases, then over the phases, then over the channels of a
//! group, so their order does not depend on the vector width.

use crate::nn::fused::reduce::{PHASES, for_phases, total};
use crate::nn::fused::simd::{Simd, for_lanes, kernel, sigmoid};
use crate::nn::fused::view::View;

const EPSILON: f64 = 1e-5;

/// A normalisation: y = norm(x) · weight + bias; with `film`, then y · (1 + its first half) + its second half; with
/// `silu`, then SiLU.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub(super) x: View,
    pub(super) y: View,
    pub(super) groups: usize,
    pub(super) silu: bool,
    pub(super) weight: *const f32,
    pub(super) bias: *const f32,
    /// One pixel per image with two numbers per channel.
    pub(super) film: Option<View>,
    /// `(images, 2, groups)`: means, then reciprocal standard deviations; written by the forward pass, read by the
    /// backward pass.
    pub(super) moments: *mut f32,
    /// [`scratch_len`] numbers.
    pub(super) scratch: *mut f32,
}

/// The backward pass of a [`Norm`]. `norm.y` is the gradient of the output and is overwritten.
#[derive(Clone, Copy)]
pub(super) struct NormBackward {
    pub(super) norm: Norm,
    /// The gradient of `norm.x`. May be the same view as `norm.y`; null if it is not needed.
    pub(super) dx: View,
    pub(super) accumulate: bool,
    pub(super) d_weight: *mut f32,
    pub(super) d_bias: *mut f32,
    /// The gradient of `norm.film`, and whether to add to it.
    pub(super) d_film: Option<(View, bool)>,
}

impl Norm {
    /// Returns the factor and summand that are applied to the normalised channel `c` in image `i`, including FiLM.
    unsafe fn affine(&self, i: usize, c: usize) -> (f32, f32) {
        // SAFETY: upheld by the caller.
        unsafe {
            let (weight, bias) = (*self.weight.add(c), *self.bias.add(c));
            let Some(film) = &self.film else { return (weight, bias) };
            let gain = self.gain(i, c);
            (weight * gain, bias.mul_add(gain, *film.image(i).at.add(self.x.channels() + c)))
        }
    }

    /// Returns the FiLM factor of channel `c` in image `i`.
    unsafe fn gain(&self, i: usize, c: usize) -> f32 {
        // SAFETY: upheld by the caller.
        self.film.map_or(1.0, |film| 1.0 + unsafe { *film.image(i).at.add(c) })
    }
}

/// Returns the length of the scratch memory.
pub(super) fn scratch_len(channels: usize) -> usize {
    8 * channels
}

kernel! {
    /// Computes the normalisation.
    ///
    /// # Safety
    ///
    /// Views and pointers have matching sizes; `y` may be the same view as `x`, otherwise nothing overlaps.
    pub(super) unsafe fn forward<S>(n: &Norm) {
        let channels = n.x.channels();
        let (scale, shift) = (n.scratch, n.scratch.add(channels));
        for i in 0..n.x.images {
            let (x, y) = (n.x.image(i), n.y.image(i));
            moments::<S>(n, i);
            scale_and_shift(n, i, scale, shift);
            for_lanes!(S, channels, |c, lanes| {
                let (a, b) = (lanes.load(scale.add(c)), lanes.load(shift.add(c)));
                let (from, to) = (x.at.add(c), y.at.add(c));
                if n.silu {
                    for row in 0..x.rows() {
                        let h = S::fma(lanes.load(from.add(row * x.stride)), a, b);
                        lanes.store(to.add(row * y.stride), S::mul(h, sigmoid::<S>(h)));
                    }
                } else {
                    for row in 0..x.rows() {
                        let h = S::fma(lanes.load(from.add(row * x.stride)), a, b);
                        lanes.store(to.add(row * y.stride), h);
                    }
                }
            });
        }
    }
}

kernel! {
    /// Computes the gradients.
    ///
    /// # Safety
    ///
    /// As for [`forward`]; `dx` may be the same view as `norm.y`, and overlaps nothing else.
    pub(super) unsafe fn backward<S>(b: &NormBackward) {
        let n = &b.norm;
        let channels = n.x.channels();
        let part = |i: usize| n.scratch.add(i * channels);
        let (scale, shift, inv_stds, norm_offsets) = (part(0), part(1), part(2), part(3));
        let (sums, products, slopes, offsets) = (part(4), part(5), part(6), part(7));
        for i in 0..n.x.images {
            let (x, dy) = (n.x.image(i), n.y.image(i));
            scale_and_shift(n, i, scale, shift);
            norm_coefficients(n, i, inv_stds, norm_offsets);
            // The gradient of the value before SiLU, its sum, and the sum of its product with the normalised x.
            for_lanes!(S, channels, |c, lanes| {
                let (a, d) = (lanes.load(scale.add(c)), lanes.load(shift.add(c)));
                let (r, m) = (lanes.load(inv_stds.add(c)), lanes.load(norm_offsets.add(c)));
                let (values, gradients) = (x.at.add(c), dy.at.add(c));
                let mut sum = [S::splat(0.0); PHASES];
                let mut product = [S::splat(0.0); PHASES];
                if n.silu {
                    for_phases!(x.rows(), |row, phase| {
                        let at = gradients.add(row * dy.stride);
                        let value = lanes.load(values.add(row * x.stride));
                        let h = S::fma(value, a, d);
                        let s = sigmoid::<S>(h);
                        let slope = S::fma(S::mul(h, s), S::sub(S::splat(1.0), s), s);
                        let gradient = S::mul(lanes.load(at), slope);
                        lanes.store(at, gradient);
                        sum[phase] = S::add(sum[phase], gradient);
                        product[phase] = S::fma(gradient, S::fma(value, r, m), product[phase]);
                    });
                } else {
                    for_phases!(x.rows(), |row, phase| {
                        let value = lanes.load(values.add(row * x.stride));
                        let gradient = lanes.load(gradients.add(row * dy.stride));
                        sum[phase] = S::add(sum[phase], gradient);
                        product[phase] = S::fma(gradient, S::fma(value, r, m), product[phase]);
                    });
                }
                lanes.store(sums.add(c), total::<S>(sum));
                lanes.store(products.add(c), total::<S>(product));
            });
            for c in 0..channels {
                let gain = n.gain(i, c);
                *b.d_bias.add(c) += *sums.add(c) * gain;
                *b.d_weight.add(c) += *products.add(c) * gain;
            }
            if let Some((d_film, accumulate)) = b.d_film {
                let to = d_film.image(i).at;
                for c in 0..channels {
                    let (sum, product) = (*sums.add(c), *products.add(c));
                    let gain = product.mul_add(*n.weight.add(c), sum * *n.bias.add(c));
                    for (at, d) in [(to.add(c), gain), (to.add(channels + c), sum)] {
                        *at = if accumulate { *at + d } else { d };
                    }
                }
            }
            if b.dx.at.is_null() {
                continue;
            }
            slopes_and_offsets(n, i, [sums, products], slopes, offsets);
            let dx = b.dx.image(i);
            for row in 0..x.rows() {
                let (values, gradients) = (x.at.add(row * x.stride), dy.at.add(row * dy.stride));
                let to = dx.at.add(row * dx.stride);
                for_lanes!(S, channels, |c, lanes| {
                    let (slope, offset) = (lanes.load(slopes.add(c)), lanes.load(offsets.add(c)));
                    let result = S::fma(lanes.load(values.add(c)), slope, offset);
                    let mut result = S::fma(lanes.load(gradients.add(c)), lanes.load(scale.add(c)), result);
                    if b.accumulate {
                        result = S::add(lanes.load(to.add(c)), result);
                    }
                    lanes.store(to.add(c), result);
                });
            }
        }
    }
}

/// Computes the means and reciprocal standard deviations of image `i`.
#[inline(always)]
unsafe fn moments<S: Simd>(n: &Norm, i: usize) {
    // SAFETY: upheld by the caller.
    unsafe {
        let x = n.x.image(i);
        let (channels, per_group) = (x.channels(), x.channels() / n.groups);
        let count = (per_group * x.rows()) as f64;
        let (sums, means) = (n.scratch, n.scratch.add(channels));
        let moments = n.moments.add(i * 2 * n.groups);
        let group_mean = |group: usize| -> f64 {
            (0..per_group).map(|c| f64::from(*sums.add(group * per_group + c))).sum::<f64>() / count
        };
        for_lanes!(S, channels, |c, lanes| {
            let mut sum = [S::splat(0.0); PHASES];
            let from = x.at.add(c);
            for_phases!(x.rows(), |row, phase| {
                sum[phase] = S::add(sum[phase], lanes.load(from.add(row * x.stride)));
            });
            lanes.store(sums.add(c), total::<S>(sum));
        });
        for group in 0..n.groups {
            let mean = group_mean(group) as f32;
            *moments.add(group) = mean;
            for c in 0..per_group {
                *means.add(group * per_group + c) = mean;
            }
        }
        for_lanes!(S, channels, |c, lanes| {
            let mean = lanes.load(means.add(c));
            let mut squares = [S::splat(0.0); PHASES];
            let from = x.at.add(c);
            for_phases!(x.rows(), |row, phase| {
                let d = S::sub(lanes.load(from.add(row * x.stride)), mean);
                squares[phase] = S::fma(d, d, squares[phase]);
            });
            lanes.store(sums.add(c), total::<S>(squares));
        });
        for group in 0..n.groups {
            *moments.add(n.groups + group) = (1.0 / (group_mean(group) + EPSILON).sqrt()) as f32;
        }
    }
}

/// Computes scale and shift such that x · scale + shift is the value of image `i` before SiLU.
unsafe fn scale_and_shift(n: &Norm, i: usize, scale: *mut f32, shift: *mut f32) {
    let channels = n.x.channels();
    // SAFETY: upheld by the caller.
    unsafe {
        let moments = n.moments.add(i * 2 * n.groups);
        for c in 0..channels {
            let group = c / (channels / n.groups);
            let (mean, inv_std) = (*moments.add(group), *moments.add(n.groups + group));
            let (weight, bias) = n.affine(i, c);
            *scale.add(c) = inv_std * weight;
            *shift.add(c) = (-mean).mul_add(*scale.add(c), bias);
        }
    }
}

/// Computes coefficients such that the normalised image `i` is x · inv_std + norm_offset.
unsafe fn norm_coefficients(n: &Norm, i: usize, inv_stds: *mut f32, norm_offsets: *mut f32) {
    let per_group = n.x.channels() / n.groups;
    // SAFETY: upheld by the caller.
    unsafe {
        let moments = n.moments.add(i * 2 * n.groups);
        for c in 0..n.x.channels() {
            let (mean, inv_std) = (*moments.add(c / per_group), *moments.add(n.groups + c / per_group));
            *inv_stds.add(c) = inv_std;
            *norm_offsets.add(c) = -mean * inv_std;
        }
    }
}

/// Computes the coefficients of the gradient of x. With g the gradient of the value before SiLU, and w the weight
/// including FiLM, it is inv_std · (w g − mean(w g) − x̂ mean(w g x̂)) = scale · g + slope · x + offset.
unsafe fn slopes_and_offsets(n: &Norm, i: usize, [sums, products]: [*mut f32; 2], slopes: *mut f32, offsets: *mut f32) {
    let per_group = n.x.channels() / n.groups;
    let count = (per_group * n.x.shape.positions()) as f64;
    // SAFETY: upheld by the caller.
    unsafe {
        let moments = n.moments.add(i * 2 * n.groups);
        for group in 0..n.groups {
            let (mut sum, mut product) = (0.0f64, 0.0f64);
            for c in group * per_group..(group + 1) * per_group {
                let (weight, _) = n.affine(i, c);
                sum += f64::from(weight) * f64::from(*sums.add(c));
                product += f64::from(weight) * f64::from(*products.add(c));
            }
            let mean = f64::from(*moments.add(group));
            let inv_std = f64::from(*moments.add(n.groups + group));
            let slope = -inv_std * inv_std * product / count;
            for c in group * per_group..(group + 1) * per_group {
                *slopes.add(c) = slope as f32;
                *offsets.add(c) = (-inv_std * sum / count - slope * mean) as f32;
            }
        }
    }
}
