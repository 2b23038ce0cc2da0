//! 2×2 max pooling and its gradient.

use crate::nn::fused::simd::{for_lanes, kernel};
use crate::nn::fused::view::View;

kernel! {
    /// Computes the maximum of every 2×2 window.
    ///
    /// # Safety
    ///
    /// `y` has half the height and width of `x`; they don't overlap.
    pub(super) unsafe fn max_pool<S>(x: &View, y: &View) {
        for row in 0..y.rows() {
            let window = x.window(y.shape, row);
            let to = y.at.add(row * y.stride);
            for_lanes!(S, x.channels(), |c, lanes| {
                let first = S::max(lanes.load(window[0].add(c)), lanes.load(window[1].add(c)));
                let second = S::max(lanes.load(window[2].add(c)), lanes.load(window[3].add(c)));
                lanes.store(to.add(c), S::max(first, second));
            });
        }
    }
}

kernel! {
    /// Passes the gradient of each window to its first maximum in row-major order; its other pixels get zero.
    ///
    /// # Safety
    ///
    /// As for [`max_pool`]; `dx` has the shape of `x` and overlaps neither `x` nor `dy`.
    pub(super) unsafe fn max_pool_backward<S>(x: &View, dy: &View, dx: &View, accumulate: bool) {
        for row in 0..dy.rows() {
            let (values, gradients) = (x.window(dy.shape, row), dx.window(dy.shape, row));
            let from = dy.at.add(row * dy.stride);
            for_lanes!(S, x.channels(), |c, lanes| {
                let zero = S::splat(0.0);
                let mut v = [zero; 4];
                for i in 0..4 {
                    v[i] = lanes.load(values[i].add(c));
                }
                let highest = S::max(S::max(v[0], v[1]), S::max(v[2], v[3]));
                let mut left = lanes.load(from.add(c));
                for i in 0..4 {
                    let mut d = S::if_equal(v[i], highest, left, zero);
                    left = S::if_equal(v[i], highest, zero, left);
                    let at = gradients[i].add(c);
                    if accumulate {
                        d = S::add(lanes.load(at), d);
                    }
                    lanes.store(at, d);
                }
            });
        }
    }
}
