//! The gradient of a gate's factor.

use crate::nn::fused::simd::{for_lanes, kernel};
use crate::nn::fused::view::View;

kernel! {
    /// Computes `sums[c] += Σ x · y` over all positions.
    ///
    /// # Safety
    ///
    /// The views have the same shape, and `sums` has one number per channel.
    pub(super) unsafe fn channel_products<S>(x: &View, y: &View, sums: *mut f32) {
        for_lanes!(S, x.channels(), |c, lanes| {
            let mut sum = lanes.load(sums.add(c));
            for row in 0..x.rows() {
                let v = lanes.load(x.at.add(row * x.stride + c));
                sum = S::fma(v, lanes.load(y.at.add(row * y.stride + c)), sum);
            }
            lanes.store(sums.add(c), sum);
        });
    }
}
