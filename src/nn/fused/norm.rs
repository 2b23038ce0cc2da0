//! Group normalisation with SiLU after it or without, and the column sums that it and every bias need.
//!
//! The normalised value and its activation are recomputed in the backward pass: all that is kept of the forward pass is
//! the input, the means and the reciprocal deviations. Sums run along rows in four phases, then over phases, then over
//! the channels of a group, so their order is free of the vector width.

use super::simd::{Simd, kernel, sigmoid};
use super::view::View;

const EPSILON: f64 = 1e-5;
/// Rows are summed in this many interleaved chains, so that an addition need not wait for the one before it.
const PHASES: usize = 4;

/// y = norm(x) · weight + bias, through SiLU if `silu`.
#[derive(Clone, Copy)]
pub struct Norm {
    pub x: View,
    pub y: View,
    pub groups: usize,
    pub silu: bool,
    pub weight: *const f32,
    pub bias: *const f32,
    /// `(images, 2, groups)`: means, then reciprocal deviations; written forward, read backward.
    pub moments: *mut f32,
    /// [`scratch_len`] numbers.
    pub scratch: *mut f32,
}

/// Gradients of a [`Norm`] whose `y` is the gradient of its output; it is overwritten.
#[derive(Clone, Copy)]
pub struct NormBackward {
    pub norm: Norm,
    /// May be the same view as `norm.y`. Null if it isn't wanted.
    pub dx: View,
    pub accumulate: bool,
    pub d_weight: *mut f32,
    pub d_bias: *mut f32,
}

pub fn scratch_len(channels: usize) -> usize {
    8 * channels
}

kernel! {
    /// # Safety
    ///
    /// Views and pointers are of fitting sizes; `y` may be the same view as `x`, else nothing overlaps.
    pub unsafe fn forward<S>(n: &Norm) {
        let channels = n.x.channels();
        let (scale, shift) = (n.scratch, n.scratch.add(channels));
        for i in 0..n.x.images {
            let (x, y) = (n.x.image(i), n.y.image(i));
            moments::<S>(n, i);
            scale_and_shift(n, i, scale, shift);
            let mut c = 0;
            while c < channels {
                let mask = S::mask(channels - c);
                let full = channels - c >= S::LANES;
                let (a, b) = (S::load_masked(scale.add(c), mask), S::load_masked(shift.add(c), mask));
                for row in 0..x.rows() {
                    let at = x.at.add(row * x.stride + c);
                    let to = y.at.add(row * y.stride + c);
                    let mut h = S::fma(if full { S::load(at) } else { S::load_masked(at, mask) }, a, b);
                    if n.silu {
                        h = S::mul(h, sigmoid::<S>(h));
                    }
                    if full { S::store(to, h) } else { S::store_masked(to, mask, h) }
                }
                c += S::LANES;
            }
        }
    }
}

kernel! {
    /// # Safety
    ///
    /// As [`forward`]; `dx` may be the same view as `norm.y`, and overlaps nothing else.
    pub unsafe fn backward<S>(b: &NormBackward) {
        let n = &b.norm;
        let channels = n.x.channels();
        let per_group = channels / n.groups;
        let count = (per_group * n.x.shape.positions()) as f64;
        let part = |i: usize| n.scratch.add(i * channels);
        let (scale, shift, deviations, centres, sums, products) = (part(0), part(1), part(2), part(3), part(4), part(5));
        let (slopes, offsets) = (part(6), part(7));
        for i in 0..n.x.images {
            let (x, dy) = (n.x.image(i), n.y.image(i));
            scale_and_shift(n, i, scale, shift);
            let moments = n.moments.add(i * 2 * n.groups);
            for c in 0..channels {
                let (mean, deviation) = (*moments.add(c / per_group), *moments.add(n.groups + c / per_group));
                *deviations.add(c) = deviation;
                *centres.add(c) = -mean * deviation;
            }
            // The gradient at the normalised, scaled and shifted value; and its sums, plain and times the normalised x.
            let mut c = 0;
            while c < channels {
                let mask = S::mask(channels - c);
                let (a, d) = (S::load_masked(scale.add(c), mask), S::load_masked(shift.add(c), mask));
                let (r, m) = (S::load_masked(deviations.add(c), mask), S::load_masked(centres.add(c), mask));
                let mut sum = [S::splat(0.0); PHASES];
                let mut product = [S::splat(0.0); PHASES];
                for row in 0..x.rows() {
                    let at = dy.at.add(row * dy.stride + c);
                    let value = S::load_masked(x.at.add(row * x.stride + c), mask);
                    let mut gradient = S::load_masked(at, mask);
                    if n.silu {
                        let h = S::fma(value, a, d);
                        let s = sigmoid::<S>(h);
                        let slope = S::fma(S::mul(h, s), S::sub(S::splat(1.0), s), s);
                        gradient = S::mul(gradient, slope);
                        S::store_masked(at, mask, gradient);
                    }
                    sum[row % PHASES] = S::add(sum[row % PHASES], gradient);
                    product[row % PHASES] = S::fma(gradient, S::fma(value, r, m), product[row % PHASES]);
                }
                S::store_masked(sums.add(c), mask, phases::<S>(sum));
                S::store_masked(products.add(c), mask, phases::<S>(product));
                c += S::LANES;
            }
            for c in 0..channels {
                *b.d_bias.add(c) += *sums.add(c);
                *b.d_weight.add(c) += *products.add(c);
            }
            if b.dx.at.is_null() {
                continue;
            }
            // dx = deviation · (w g − mean(w g) − x̂ mean(w g x̂)) = scale · g + slope · x + offset.
            for group in 0..n.groups {
                let (mut sum, mut product) = (0.0f64, 0.0f64);
                for c in group * per_group..(group + 1) * per_group {
                    sum += f64::from(*n.weight.add(c)) * f64::from(*sums.add(c));
                    product += f64::from(*n.weight.add(c)) * f64::from(*products.add(c));
                }
                let mean = f64::from(*moments.add(group));
                let deviation = f64::from(*moments.add(n.groups + group));
                let slope = -deviation * deviation * product / count;
                for c in group * per_group..(group + 1) * per_group {
                    *slopes.add(c) = slope as f32;
                    *offsets.add(c) = (-deviation * sum / count - slope * mean) as f32;
                }
            }
            let dx = b.dx.image(i);
            let mut c = 0;
            while c < channels {
                let mask = S::mask(channels - c);
                let a = S::load_masked(scale.add(c), mask);
                let (slope, offset) = (S::load_masked(slopes.add(c), mask), S::load_masked(offsets.add(c), mask));
                for row in 0..x.rows() {
                    let value = S::load_masked(x.at.add(row * x.stride + c), mask);
                    let gradient = S::load_masked(dy.at.add(row * dy.stride + c), mask);
                    let at = dx.at.add(row * dx.stride + c);
                    let mut result = S::fma(gradient, a, S::fma(value, slope, offset));
                    if b.accumulate {
                        result = S::add(S::load_masked(at, mask), result);
                    }
                    S::store_masked(at, mask, result);
                }
                c += S::LANES;
            }
        }
    }
}

kernel! {
    /// `sums[c] +=` the sum of channel c.
    ///
    /// # Safety
    ///
    /// The view may be read, and as many sums as it has channels be written.
    pub unsafe fn column_sums<S>(x: &View, sums: *mut f32) {
        let mut c = 0;
        while c < x.channels() {
            let mask = S::mask(x.channels() - c);
            let at = sums.add(c);
            S::store_masked(at, mask, S::add(S::load_masked(at, mask), column_sum::<S>(x, c, mask)));
            c += S::LANES;
        }
    }
}

/// The means and reciprocal deviations of image `i`.
#[inline(always)]
unsafe fn moments<S: Simd>(n: &Norm, i: usize) {
    // SAFETY: the caller's, passed on.
    unsafe {
        let x = n.x.image(i);
        let (channels, per_group) = (x.channels(), x.channels() / n.groups);
        let count = (per_group * x.rows()) as f64;
        let (sums, means) = (n.scratch, n.scratch.add(channels));
        let moments = n.moments.add(i * 2 * n.groups);
        let group_sum = |group: usize| -> f64 {
            (0..per_group).map(|c| f64::from(*sums.add(group * per_group + c))).sum::<f64>() / count
        };
        let mut c = 0;
        while c < channels {
            let mask = S::mask(channels - c);
            S::store_masked(sums.add(c), mask, column_sum::<S>(&x, c, mask));
            c += S::LANES;
        }
        for group in 0..n.groups {
            let mean = group_sum(group) as f32;
            *moments.add(group) = mean;
            for c in 0..per_group {
                *means.add(group * per_group + c) = mean;
            }
        }
        let mut c = 0;
        while c < channels {
            let mask = S::mask(channels - c);
            let mean = S::load_masked(means.add(c), mask);
            let mut squares = [S::splat(0.0); PHASES];
            for row in 0..x.rows() {
                let d = S::sub(S::load_masked(x.at.add(row * x.stride + c), mask), mean);
                squares[row % PHASES] = S::fma(d, d, squares[row % PHASES]);
            }
            S::store_masked(sums.add(c), mask, phases::<S>(squares));
            c += S::LANES;
        }
        for group in 0..n.groups {
            *moments.add(n.groups + group) = (1.0 / (group_sum(group) + EPSILON).sqrt()) as f32;
        }
    }
}

/// The normalisation of image `i` as x · scale + shift.
unsafe fn scale_and_shift(n: &Norm, i: usize, scale: *mut f32, shift: *mut f32) {
    let channels = n.x.channels();
    // SAFETY: the caller's, passed on.
    unsafe {
        let moments = n.moments.add(i * 2 * n.groups);
        for c in 0..channels {
            let group = c / (channels / n.groups);
            let (mean, deviation) = (*moments.add(group), *moments.add(n.groups + group));
            *scale.add(c) = deviation * *n.weight.add(c);
            *shift.add(c) = (-mean).mul_add(*scale.add(c), *n.bias.add(c));
        }
    }
}

/// The sum along the rows of `LANES` channels from `c`.
#[inline(always)]
unsafe fn column_sum<S: Simd>(x: &View, c: usize, mask: S::Mask) -> S::V {
    // SAFETY: the caller's, passed on.
    unsafe {
        let mut sums = [S::splat(0.0); PHASES];
        for row in 0..x.rows() {
            let value = S::load_masked(x.at.add(row * x.stride + c), mask);
            sums[row % PHASES] = S::add(sums[row % PHASES], value);
        }
        phases::<S>(sums)
    }
}

#[inline(always)]
unsafe fn phases<S: Simd>(sums: [S::V; PHASES]) -> S::V {
    // SAFETY: the caller's, passed on.
    unsafe { S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])) }
}
