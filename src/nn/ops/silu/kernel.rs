//! SiLU and its gradient.

use crate::nn::fused::simd::{for_lanes, kernel, sigmoid};
use crate::nn::fused::view::View;

kernel! {
    /// Computes y = silu(x).
    ///
    /// # Safety
    ///
    /// The views have the same shape, and are identical or don't overlap.
    pub(super) unsafe fn silu<S>(x: &View, y: &View) {
        for row in 0..x.rows() {
            let (from, to) = (x.at.add(row * x.stride), y.at.add(row * y.stride));
            for_lanes!(S, x.channels(), |c, lanes| {
                let v = lanes.load(from.add(c));
                lanes.store(to.add(c), S::mul(v, sigmoid::<S>(v)));
            });
        }
    }
}

kernel! {
    /// Computes dx (+)= dy · silu′(x).
    ///
    /// # Safety
    ///
    /// The views have the same shape; `dx` may be `dy`, otherwise they don't overlap.
    pub(super) unsafe fn silu_backward<S>(x: &View, dy: &View, dx: &View, accumulate: bool) {
        for row in 0..x.rows() {
            let (from, to) = (x.at.add(row * x.stride), dx.at.add(row * dx.stride));
            let gradient = dy.at.add(row * dy.stride);
            for_lanes!(S, x.channels(), |c, lanes| {
                let v = lanes.load(from.add(c));
                let s = sigmoid::<S>(v);
                let slope = S::fma(S::mul(v, s), S::sub(S::splat(1.0), s), s);
                let mut d = S::mul(lanes.load(gradient.add(c)), slope);
                if accumulate {
                    d = S::add(lanes.load(to.add(c)), d);
                }
                lanes.store(to.add(c), d);
            });
        }
    }
}
