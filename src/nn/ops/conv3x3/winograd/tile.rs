//! Transforms tiles of images into products and back.

use super::transform::{output_from_products, products_from_input, products_from_output};
use super::{Convolve, PATCH, PRODUCTS, TILE, padded};
use crate::nn::fused::simd::{PANEL, Simd, for_lanes};
use crate::nn::fused::view::View;

/// Computes Bᵀ d B for the patch d around one tile of `x`, for all channels, and writes it to `v`, where products are
/// `v_stride` numbers apart.
#[inline(always)]
pub(super) unsafe fn input_tile<S: Simd>(
    x: &View,
    tile: (usize, usize, usize),
    v: *mut f32,
    v_stride: usize,
    zeros: *const f32,
) {
    // SAFETY: upheld by the caller; pixels outside the image are read from `zeros`.
    unsafe {
        let (image, top, left) = tile;
        let (h, w) = (x.shape.height, x.shape.width);
        let base = x.at.add(image * h * w * x.stride);
        let mut pixels = [zeros; PRODUCTS];
        for row in 0..PATCH {
            for column in 0..PATCH {
                // The patch starts one pixel before the tile. −1 wraps around, so that it is outside the image as well.
                let (r, c) = ((top + row).wrapping_sub(1), (left + column).wrapping_sub(1));
                if r < h && c < w {
                    pixels[row * PATCH + column] = base.add((r * w + c) * x.stride);
                }
            }
        }
        for_lanes!(S, x.channels(), |c, lanes| {
            let mut half = [[S::splat(0.0); PATCH]; PATCH];
            for column in 0..PATCH {
                let mut d = [S::splat(0.0); PATCH];
                for row in 0..PATCH {
                    d[row] = lanes.load(pixels[row * PATCH + column].add(c));
                }
                let d = products_from_input::<S>(d);
                for row in 0..PATCH {
                    half[row][column] = d[row];
                }
            }
            for row in 0..PATCH {
                let d = products_from_input::<S>(half[row]);
                for column in 0..PATCH {
                    S::store(v.add((row * PATCH + column) * v_stride + c), d[column]);
                }
            }
        });
    }
}

/// Computes Aᵀ m A for the products `m` of one tile, for all channels, adds the bias, and writes the result to `y`.
#[inline(always)]
pub(super) unsafe fn output_tile<S: Simd>(
    conv: &Convolve,
    tile: (usize, usize, usize),
    m: *const f32,
    m_stride: usize,
    m_panel: usize,
) {
    // SAFETY: upheld by the caller; pixels outside the image are not written.
    unsafe {
        let (image, top, left) = tile;
        let y = &conv.y;
        let (h, w) = (y.shape.height, y.shape.width);
        let base = y.at.add((image * h * w + top * w + left) * y.stride);
        let (rows, columns) = (TILE.min(h - top), TILE.min(w - left));
        for_lanes!(S, y.channels(), |o, lanes| {
            let m = m.add(o / PANEL * m_panel + o % PANEL);
            let mut half = [[S::splat(0.0); PATCH]; TILE];
            for column in 0..PATCH {
                let mut d = [S::splat(0.0); PATCH];
                for row in 0..PATCH {
                    d[row] = S::load(m.add((row * PATCH + column) * m_stride));
                }
                let d = output_from_products::<S>(d);
                for row in 0..TILE {
                    half[row][column] = d[row];
                }
            }
            let bias = if conv.bias.is_null() { S::splat(0.0) } else { lanes.load(conv.bias.add(o)) };
            for row in 0..rows {
                let sums = output_from_products::<S>(half[row]);
                let line = base.add(row * w * y.stride + o);
                for column in 0..TILE {
                    if column < columns {
                        let at = line.add(column * y.stride);
                        let mut sum = S::add(sums[column], bias);
                        if conv.accumulate {
                            sum = S::add(lanes.load(at), sum);
                        }
                        lanes.store(at, sum);
                    }
                }
            }
        });
    }
}

/// Computes A y Aᵀ for one tile y of the output's gradient, for all channels, and writes it to `m` in panels.
#[inline(always)]
pub(super) unsafe fn gradient_tile<S: Simd>(
    dy: &View,
    tile: (usize, usize, usize),
    m: *mut f32,
    m_stride: usize,
    m_panel: usize,
    zeros: *const f32,
) {
    // SAFETY: upheld by the caller; pixels outside the image are read from `zeros`.
    unsafe {
        let (image, top, left) = tile;
        let (h, w) = (dy.shape.height, dy.shape.width);
        let base = dy.at.add((image * h * w + top * w + left) * dy.stride);
        let mut pixels = [zeros; TILE * TILE];
        for row in 0..TILE.min(h - top) {
            for column in 0..TILE.min(w - left) {
                pixels[row * TILE + column] = base.add((row * w + column) * dy.stride);
            }
        }
        let channels = dy.channels();
        for_lanes!(S, channels, |o, lanes| {
            let mut half = [[S::splat(0.0); TILE]; PATCH];
            for column in 0..TILE {
                let mut d = [S::splat(0.0); TILE];
                for row in 0..TILE {
                    d[row] = lanes.load(pixels[row * TILE + column].add(o));
                }
                let d = products_from_output::<S>(d);
                for row in 0..PATCH {
                    half[row][column] = d[row];
                }
            }
            let at = m.add(o / PANEL * m_panel + o % PANEL);
            for row in 0..PATCH {
                let d = products_from_output::<S>(half[row]);
                for column in 0..PATCH {
                    S::store(at.add((row * PATCH + column) * m_stride), d[column]);
                }
            }
        });
        // Fill the rest of the last panel: its products are unused, but must be finite.
        for o in (channels.next_multiple_of(S::LANES)..padded(channels)).step_by(S::LANES) {
            let at = m.add(o / PANEL * m_panel + o % PANEL);
            for i in 0..PRODUCTS {
                S::store(at.add(i * m_stride), S::splat(0.0));
            }
        }
    }
}
