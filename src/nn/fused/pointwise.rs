//! Elementwise kernels that several operations use.

use super::simd::{for_lanes, kernel};
use super::view::View;

kernel! {
    /// Computes y (+)= factor · x.
    ///
    /// # Safety
    ///
    /// The views have the same shape, and are identical or don't overlap.
    pub unsafe fn scale<S>(x: &View, factor: f32, y: &View, accumulate: bool) {
        let factor = S::splat(factor);
        for row in 0..x.rows() {
            let (from, to) = (x.at.add(row * x.stride), y.at.add(row * y.stride));
            for_lanes!(S, x.channels(), |c, lanes| {
                let v = lanes.load(from.add(c));
                let v = match accumulate {
                    true => S::fma(v, factor, lanes.load(to.add(c))),
                    false => S::mul(v, factor),
                };
                lanes.store(to.add(c), v);
            });
        }
    }
}

kernel! {
    /// Sets y to 0.
    ///
    /// # Safety
    ///
    /// The view is valid for writes.
    pub(in crate::nn) unsafe fn fill_zero<S>(y: &View) {
        for row in 0..y.rows() {
            let to = y.at.add(row * y.stride);
            for_lanes!(S, y.channels(), |c, lanes| {
                lanes.store(to.add(c), S::splat(0.0));
            });
        }
    }
}

kernel! {
    /// Computes y = factor · a + b.
    ///
    /// # Safety
    ///
    /// The views have the same shape, and are identical or don't overlap.
    pub(in crate::nn) unsafe fn add_scaled<S>(a: &View, b: &View, factor: f32, y: &View) {
        let factor = S::splat(factor);
        for row in 0..y.rows() {
            let (a_row, b_row) = (a.at.add(row * a.stride), b.at.add(row * b.stride));
            let to = y.at.add(row * y.stride);
            for_lanes!(S, y.channels(), |c, lanes| {
                let v = S::fma(lanes.load(a_row.add(c)), factor, lanes.load(b_row.add(c)));
                lanes.store(to.add(c), v);
            });
        }
    }
}

kernel! {
    /// Computes `dst += factor · src`.
    ///
    /// # Safety
    ///
    /// Both pointers are valid for `n` numbers.
    pub(super) unsafe fn axpy<S>(factor: f32, src: *const f32, dst: *mut f32, n: usize) {
        let factor = S::splat(factor);
        for_lanes!(S, n, |i, lanes| {
            let sum = S::fma(lanes.load(src.add(i)), factor, lanes.load(dst.add(i)));
            lanes.store(dst.add(i), sum);
        });
    }
}
