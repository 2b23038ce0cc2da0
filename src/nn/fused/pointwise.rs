//! Elementwise operations, max pooling, and copies between layouts.

use super::simd::{for_lanes, kernel, sigmoid};
use super::view::View;
use crate::nn::graph::Shape;

kernel! {
    /// Computes y = silu(x).
    ///
    /// # Safety
    ///
    /// The views have the same shape, and are identical or don't overlap.
    pub unsafe fn silu<S>(x: &View, y: &View) {
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
    pub unsafe fn silu_backward<S>(x: &View, dy: &View, dx: &View, accumulate: bool) {
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
    pub unsafe fn fill_zero<S>(y: &View) {
        for row in 0..y.rows() {
            let to = y.at.add(row * y.stride);
            for_lanes!(S, y.channels(), |c, lanes| {
                lanes.store(to.add(c), S::splat(0.0));
            });
        }
    }
}

kernel! {
    /// Computes y = gamma · branch + skip.
    ///
    /// # Safety
    ///
    /// The views have the same shape, and are identical or don't overlap.
    pub unsafe fn gate<S>(branch: &View, skip: &View, gamma: f32, y: &View) {
        let gamma = S::splat(gamma);
        for row in 0..y.rows() {
            let (a, b) = (branch.at.add(row * branch.stride), skip.at.add(row * skip.stride));
            let to = y.at.add(row * y.stride);
            for_lanes!(S, y.channels(), |c, lanes| {
                let v = S::fma(lanes.load(a.add(c)), gamma, lanes.load(b.add(c)));
                lanes.store(to.add(c), v);
            });
        }
    }
}

kernel! {
    /// Computes `sums[c] += Σ x · y` over all positions.
    ///
    /// # Safety
    ///
    /// The views have the same shape, and `sums` has one number per channel.
    pub unsafe fn channel_products<S>(x: &View, y: &View, sums: *mut f32) {
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

kernel! {
    /// Computes y = x + v, with one pixel of `v` per image.
    ///
    /// # Safety
    ///
    /// `y` may be `x`; otherwise nothing overlaps.
    pub unsafe fn add_vector<S>(x: &View, v: &View, y: &View) {
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

kernel! {
    /// Computes the maximum of every 2×2 window.
    ///
    /// # Safety
    ///
    /// `y` has half the height and width of `x`; they don't overlap.
    pub unsafe fn max_pool<S>(x: &View, y: &View) {
        for row in 0..y.rows() {
            let window = window(x, y.shape, row);
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
    /// Passes the gradient of a window to its first maximum in row-major order; the others get zero.
    ///
    /// # Safety
    ///
    /// As for [`max_pool`]; `dx` has the shape of `x` and overlaps neither `x` nor `dy`.
    pub unsafe fn max_pool_backward<S>(x: &View, dy: &View, dx: &View, accumulate: bool) {
        for row in 0..dy.rows() {
            let (values, gradients) = (window(x, dy.shape, row), window(dx, dy.shape, row));
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

/// Returns the four pixels of the 2×2 window that belongs to pixel `row` of the smaller image of shape `small`.
#[inline(always)]
unsafe fn window(x: &View, small: Shape, row: usize) -> [*mut f32; 4] {
    let (image, rest) = (row / small.positions(), row % small.positions());
    let (r, c) = (2 * (rest / small.width), 2 * (rest % small.width));
    let first = (image * x.shape.height + r) * x.shape.width + c;
    // SAFETY: the window is within the view.
    unsafe {
        let at = x.at.add(first * x.stride);
        let below = at.add(x.shape.width * x.stride);
        [at, at.add(x.stride), below, below.add(x.stride)]
    }
}

kernel! {
    /// Copies rows of 2×2 windows, `(row, 2, 2, O)` at `windows`, plus the bias, to the pixels of `y`.
    ///
    /// # Safety
    ///
    /// `small` is the shape before upsampling; nothing overlaps.
    pub unsafe fn windows_to_pixels<S>(windows: *const f32, bias: *const f32, small: Shape, y: &View) {
        let channels = y.channels();
        for row in 0..y.images * small.positions() {
            let pixels = window(y, small, row);
            for (i, pixel) in pixels.into_iter().enumerate() {
                let from = windows.add((row * 4 + i) * channels);
                for_lanes!(S, channels, |c, lanes| {
                    let v = S::add(lanes.load(from.add(c)), lanes.load(bias.add(c)));
                    lanes.store(pixel.add(c), v);
                });
            }
        }
    }
}

kernel! {
    /// The inverse of [`windows_to_pixels`], without the bias.
    ///
    /// # Safety
    ///
    /// As for [`windows_to_pixels`].
    pub unsafe fn pixels_to_windows<S>(y: &View, small: Shape, windows: *mut f32) {
        let channels = y.channels();
        for row in 0..y.images * small.positions() {
            let pixels = window(y, small, row);
            for (i, pixel) in pixels.into_iter().enumerate() {
                let to = windows.add((row * 4 + i) * channels);
                for_lanes!(S, channels, |c, lanes| {
                    lanes.store(to.add(c), lanes.load(pixel.add(c)));
                });
            }
        }
    }
}

kernel! {
    /// Computes `dst += factor · src`.
    ///
    /// # Safety
    ///
    /// Both pointers are valid for `n` numbers.
    pub unsafe fn axpy<S>(factor: f32, src: *const f32, dst: *mut f32, n: usize) {
        let factor = S::splat(factor);
        for_lanes!(S, n, |i, lanes| {
            let sum = S::fma(lanes.load(src.add(i)), factor, lanes.load(dst.add(i)));
            lanes.store(dst.add(i), sum);
        });
    }
}
