//! Mean pooling over square blocks, and its gradient.

use crate::nn::fused::simd::{for_lanes, kernel};
use crate::nn::fused::view::View;

kernel! {
    /// Computes the mean of every `factor × factor` block of x.
    ///
    /// # Safety
    ///
    /// `y` has the channels of `x` and 1/`factor` of its height and width; they don't overlap.
    pub(super) unsafe fn mean_pool<S>(x: &View, factor: usize, y: &View) {
        let share = S::splat(1.0 / (factor * factor) as f32);
        for row in 0..y.rows() {
            let corner = x.at.add(corner(x, factor, y, row) * x.stride);
            let to = y.at.add(row * y.stride);
            for_lanes!(S, y.channels(), |c, lanes| {
                let mut sum = S::splat(0.0);
                for i in 0..factor {
                    let line = corner.add(i * x.shape.width * x.stride + c);
                    for j in 0..factor {
                        sum = S::add(sum, lanes.load(line.add(j * x.stride)));
                    }
                }
                lanes.store(to.add(c), S::mul(sum, share));
            });
        }
    }
}

kernel! {
    /// Distributes the gradient of each mean to its block: dx (+)= dy / factor².
    ///
    /// # Safety
    ///
    /// As for [`mean_pool`].
    pub(super) unsafe fn mean_pool_backward<S>(dy: &View, factor: usize, dx: &View, accumulate: bool) {
        let share = S::splat(1.0 / (factor * factor) as f32);
        for row in 0..dy.rows() {
            let corner = dx.at.add(corner(dx, factor, dy, row) * dx.stride);
            let from = dy.at.add(row * dy.stride);
            for_lanes!(S, dy.channels(), |c, lanes| {
                let part = S::mul(lanes.load(from.add(c)), share);
                for i in 0..factor {
                    let line = corner.add(i * dx.shape.width * dx.stride + c);
                    for j in 0..factor {
                        let to = line.add(j * dx.stride);
                        let d = if accumulate { S::add(lanes.load(to), part) } else { part };
                        lanes.store(to, d);
                    }
                }
            });
        }
    }
}

/// Returns the index in `large` of the top left pixel of the block whose mean is pixel `row` of `small`.
#[inline(always)]
fn corner(large: &View, factor: usize, small: &View, row: usize) -> usize {
    let (image, rest) = (row / small.shape.positions(), row % small.shape.positions());
    let (y, x) = (rest / small.shape.width * factor, rest % small.shape.width * factor);
    (image * large.shape.height + y) * large.shape.width + x
}
