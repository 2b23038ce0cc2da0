//! Operations that look at one position at a time, and pooling: SiLU, sums, copies between layouts.

use super::simd::{kernel, sigmoid};
use super::view::View;
use crate::nn::graph::Shape;

/// Runs `$body` for every vector of channels, full ones without a mask: `$load` and `$store` touch what is there.
macro_rules! for_channels {
    ($s:ident, $channels:expr, |$c:ident, $mask:ident| $body:block) => {
        let mut $c = 0;
        while $c < $channels {
            let $mask = $s::mask($channels - $c);
            $body
            $c += $s::LANES;
        }
    };
}

kernel! {
    /// y = silu(x).
    ///
    /// # Safety
    ///
    /// Views of one shape, the same or not overlapping.
    pub unsafe fn silu<S>(x: &View, y: &View) {
        for row in 0..x.rows() {
            let (from, to) = (x.at.add(row * x.stride), y.at.add(row * y.stride));
            for_channels!(S, x.channels(), |c, mask| {
                let v = S::load_masked(from.add(c), mask);
                S::store_masked(to.add(c), mask, S::mul(v, sigmoid::<S>(v)));
            });
        }
    }
}

kernel! {
    /// dx (+)= dy · silu′(x).
    ///
    /// # Safety
    ///
    /// Views of one shape; `dx` may be `dy`, else they don't overlap.
    pub unsafe fn silu_backward<S>(x: &View, dy: &View, dx: &View, accumulate: bool) {
        for row in 0..x.rows() {
            let (from, to) = (x.at.add(row * x.stride), dx.at.add(row * dx.stride));
            let gradient = dy.at.add(row * dy.stride);
            for_channels!(S, x.channels(), |c, mask| {
                let v = S::load_masked(from.add(c), mask);
                let s = sigmoid::<S>(v);
                let slope = S::fma(S::mul(v, s), S::sub(S::splat(1.0), s), s);
                let mut d = S::mul(S::load_masked(gradient.add(c), mask), slope);
                if accumulate {
                    d = S::add(S::load_masked(to.add(c), mask), d);
                }
                S::store_masked(to.add(c), mask, d);
            });
        }
    }
}

kernel! {
    /// y (+)= factor · x.
    ///
    /// # Safety
    ///
    /// Views of one shape, the same or not overlapping.
    pub unsafe fn scale<S>(x: &View, factor: f32, y: &View, accumulate: bool) {
        let factor = S::splat(factor);
        for row in 0..x.rows() {
            let (from, to) = (x.at.add(row * x.stride), y.at.add(row * y.stride));
            for_channels!(S, x.channels(), |c, mask| {
                let v = S::load_masked(from.add(c), mask);
                let v = match accumulate {
                    true => S::fma(v, factor, S::load_masked(to.add(c), mask)),
                    false => S::mul(v, factor),
                };
                S::store_masked(to.add(c), mask, v);
            });
        }
    }
}

kernel! {
    /// y = gamma · branch + skip.
    ///
    /// # Safety
    ///
    /// Views of one shape, the same or not overlapping.
    pub unsafe fn gate<S>(branch: &View, skip: &View, gamma: f32, y: &View) {
        let gamma = S::splat(gamma);
        for row in 0..y.rows() {
            let (a, b) = (branch.at.add(row * branch.stride), skip.at.add(row * skip.stride));
            let to = y.at.add(row * y.stride);
            for_channels!(S, y.channels(), |c, mask| {
                let v = S::fma(S::load_masked(a.add(c), mask), gamma, S::load_masked(b.add(c), mask));
                S::store_masked(to.add(c), mask, v);
            });
        }
    }
}

kernel! {
    /// `sums[c] +=` the sum over positions of x · y, channel by channel.
    ///
    /// # Safety
    ///
    /// Views of one shape; as many sums as channels.
    pub unsafe fn channel_products<S>(x: &View, y: &View, sums: *mut f32) {
        for_channels!(S, x.channels(), |c, mask| {
            let mut sum = S::load_masked(sums.add(c), mask);
            for row in 0..x.rows() {
                let v = S::load_masked(x.at.add(row * x.stride + c), mask);
                sum = S::fma(v, S::load_masked(y.at.add(row * y.stride + c), mask), sum);
            }
            S::store_masked(sums.add(c), mask, sum);
        });
    }
}

kernel! {
    /// y = x + v, `v` one pixel an image.
    ///
    /// # Safety
    ///
    /// `y` may be `x`; else nothing overlaps.
    pub unsafe fn add_vector<S>(x: &View, v: &View, y: &View) {
        let positions = x.shape.positions();
        for row in 0..x.rows() {
            let (from, to) = (x.at.add(row * x.stride), y.at.add(row * y.stride));
            let vector = v.at.add(row / positions * v.stride);
            for_channels!(S, x.channels(), |c, mask| {
                let sum = S::add(S::load_masked(from.add(c), mask), S::load_masked(vector.add(c), mask));
                S::store_masked(to.add(c), mask, sum);
            });
        }
    }
}

kernel! {
    /// The maximum of every 2×2 window.
    ///
    /// # Safety
    ///
    /// `y` has half the height and width of `x`; they don't overlap.
    pub unsafe fn max_pool<S>(x: &View, y: &View) {
        for row in 0..y.rows() {
            let window = window(x, y.shape, row);
            let to = y.at.add(row * y.stride);
            for_channels!(S, x.channels(), |c, mask| {
                let first = S::max(S::load_masked(window[0].add(c), mask), S::load_masked(window[1].add(c), mask));
                let second = S::max(S::load_masked(window[2].add(c), mask), S::load_masked(window[3].add(c), mask));
                S::store_masked(to.add(c), mask, S::max(first, second));
            });
        }
    }
}

kernel! {
    /// The gradient of a window goes to its first maximum in row-major order; the others get zero.
    ///
    /// # Safety
    ///
    /// As [`max_pool`]; `dx` has the shape of `x` and overlaps neither.
    pub unsafe fn max_pool_backward<S>(x: &View, dy: &View, dx: &View, accumulate: bool) {
        for row in 0..dy.rows() {
            let (values, gradients) = (window(x, dy.shape, row), window(dx, dy.shape, row));
            let from = dy.at.add(row * dy.stride);
            for_channels!(S, x.channels(), |c, mask| {
                let zero = S::splat(0.0);
                let mut v = [zero; 4];
                for i in 0..4 {
                    v[i] = S::load_masked(values[i].add(c), mask);
                }
                let highest = S::max(S::max(v[0], v[1]), S::max(v[2], v[3]));
                let mut left = S::load_masked(from.add(c), mask);
                for i in 0..4 {
                    let mut d = S::if_equal(v[i], highest, left, zero);
                    left = S::if_equal(v[i], highest, zero, left);
                    let at = gradients[i].add(c);
                    if accumulate {
                        d = S::add(S::load_masked(at, mask), d);
                    }
                    S::store_masked(at, mask, d);
                }
            });
        }
    }
}

/// The four pixels of a 2×2 window, by the pixel (of all images) of the smaller image of shape `small`.
#[inline(always)]
unsafe fn window(x: &View, small: Shape, row: usize) -> [*mut f32; 4] {
    let (image, rest) = (row / small.positions(), row % small.positions());
    let (r, c) = (2 * (rest / small.width), 2 * (rest % small.width));
    let first = (image * x.shape.height + r) * x.shape.width + c;
    // SAFETY: a window of the view.
    unsafe {
        let at = x.at.add(first * x.stride);
        let below = at.add(x.shape.width * x.stride);
        [at, at.add(x.stride), below, below.add(x.stride)]
    }
}

kernel! {
    /// Rows of 2×2 windows, `(row, 2, 2, O)` at `windows`, each plus the bias, to the pixels of `y`.
    ///
    /// # Safety
    ///
    /// `small` is the shape before doubling; nothing overlaps.
    pub unsafe fn windows_to_pixels<S>(windows: *const f32, bias: *const f32, small: Shape, y: &View) {
        let channels = y.channels();
        for row in 0..y.images * small.positions() {
            let pixels = window(y, small, row);
            for (i, pixel) in pixels.into_iter().enumerate() {
                let from = windows.add((row * 4 + i) * channels);
                for_channels!(S, channels, |c, mask| {
                    let v = S::add(S::load_masked(from.add(c), mask), S::load_masked(bias.add(c), mask));
                    S::store_masked(pixel.add(c), mask, v);
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
    /// As there.
    pub unsafe fn pixels_to_windows<S>(y: &View, small: Shape, windows: *mut f32) {
        let channels = y.channels();
        for row in 0..y.images * small.positions() {
            let pixels = window(y, small, row);
            for (i, pixel) in pixels.into_iter().enumerate() {
                let to = windows.add((row * 4 + i) * channels);
                for_channels!(S, channels, |c, mask| {
                    S::store_masked(to.add(c), mask, S::load_masked(pixel.add(c), mask));
                });
            }
        }
    }
}

kernel! {
    /// `dst += factor · src`.
    ///
    /// # Safety
    ///
    /// Both have `n` numbers.
    pub unsafe fn axpy<S>(factor: f32, src: *const f32, dst: *mut f32, n: usize) {
        let factor = S::splat(factor);
        for_channels!(S, n, |i, mask| {
            let sum = S::fma(S::load_masked(src.add(i), mask), factor, S::load_masked(dst.add(i), mask));
            S::store_masked(dst.add(i), mask, sum);
        });
    }
}
