//! Copies between the products of a transposed convolution and its output.

use crate::nn::fused::simd::{for_lanes, kernel};
use crate::nn::fused::view::View;
use crate::nn::graph::Shape;

kernel! {
    /// Copies rows of 2×2 windows, `(row, 2, 2, O)`, to the pixels of `y`, and adds the bias.
    ///
    /// # Safety
    ///
    /// `small` is the shape before upsampling; nothing overlaps.
    pub(super) unsafe fn windows_to_pixels<S>(windows: *const f32, bias: *const f32, small: Shape, y: &View) {
        let channels = y.channels();
        for row in 0..y.images * small.positions() {
            let pixels = y.window(small, row);
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
    /// Copies the pixels of `y` to rows of 2×2 windows: the inverse of [`windows_to_pixels`], without the bias.
    ///
    /// # Safety
    ///
    /// As for [`windows_to_pixels`].
    pub(super) unsafe fn pixels_to_windows<S>(y: &View, small: Shape, windows: *mut f32) {
        let channels = y.channels();
        for row in 0..y.images * small.positions() {
            let pixels = y.window(small, row);
            for (i, pixel) in pixels.into_iter().enumerate() {
                let to = windows.add((row * 4 + i) * channels);
                for_lanes!(S, channels, |c, lanes| {
                    lanes.store(to.add(c), lanes.load(pixel.add(c)));
                });
            }
        }
    }
}
