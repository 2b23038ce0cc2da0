//! The addition of a vector to every position.

use crate::nn::fused::simd::{for_lanes, kernel};
use crate::nn::fused::view::View;

kernel! {
    /// Computes y = x + v, with one pixel of `v` per image.
    ///
    /// # Safety
    ///
    /// `y` may be `x`; otherwise nothing overlaps.
    pub(super) unsafe fn add_vector<S>(x: &View, v: &View, y: &View) {
        let positions = x.shape.positions();
        for row in 0..x.rows() {
            let (from, to) = (x.at.add(row * x.stride), y.at.add(row * y.stride));
            let vector = v.at.add(row / positions * v.stride);
            for_lanes!(S, x.channels(), |c, lanes| {
                let sum = S::add(lanes.load(from.add(c)), lanes.load(vector.add(c)));
                lanes.store(to.add(c), sum);
            });
        }
    }
}
