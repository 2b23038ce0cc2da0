//! Enlarging and shrinking by whole factors, in f64, with half-pixel centres.
//!
//! Every method here is separable and linear: an output row is a weighted sum of a few input rows, and an output
//! column of a few input columns. The weights ([`Resampler`]) are worked out once for a size.

use anyhow::ensure;
use rayon::prelude::*;

use super::Images;
use super::images::to_u8;
use crate::config::DegradeMethod;

/// Resizes RGB images of one size to another.
pub struct Resampler {
    rows: Axis,
    columns: Axis,
}

/// The weights along one axis.
struct Axis {
    input: usize,
    taps: Vec<Taps>,
}

/// What one output position takes: `weights` of the inputs from `start` on. They sum to 1.
struct Taps {
    start: usize,
    weights: Vec<f64>,
}

impl Resampler {
    /// Shrinks `height`×`width` by `scale`. Fails unless both sides are multiples of it, and for an odd scale under
    /// `bilinear`, where no central pair of pixels exists.
    pub fn degrade(height: usize, width: usize, scale: usize, method: DegradeMethod) -> anyhow::Result<Self> {
        ensure!(scale > 0, "scale is 0; it says how many times smaller the images get, at least 1");
        ensure!(
            height.is_multiple_of(scale) && width.is_multiple_of(scale),
            "images of {width}x{height} cannot be made {scale} times smaller: choose a scale that divides both sides"
        );
        ensure!(
            method != DegradeMethod::Bilinear || scale.is_multiple_of(2),
            "bilinear shrinking by {scale} is not defined here: choose an even scale, or `area`"
        );
        let axis = |input: usize| match method {
            DegradeMethod::Area => Axis::blocks(input, scale, 0, scale),
            DegradeMethod::Bilinear => Axis::blocks(input, scale, scale / 2 - 1, 2),
            DegradeMethod::Bicubic => Axis::bicubic(input, input / scale),
        };
        Ok(Self { rows: axis(height), columns: axis(width) })
    }

    /// Enlarges `height`×`width` by `factor` with Keys' kernel.
    pub fn enlarge(height: usize, width: usize, factor: usize) -> Self {
        Self { rows: Axis::bicubic(height, height * factor), columns: Axis::bicubic(width, width * factor) }
    }

    /// Height and width of what comes out.
    pub fn output_size(&self) -> (usize, usize) {
        (self.rows.taps.len(), self.columns.taps.len())
    }

    /// One image `(height, width, 3)`, in any units, to the output's size; nothing is rounded or clamped.
    pub fn apply(&self, image: &[f64]) -> Vec<f64> {
        let (height, width) = (self.rows.input, self.columns.input);
        assert_eq!(image.len(), 3 * height * width, "an image of the resampler's size");
        let out_width = self.columns.taps.len();
        let mut narrow = vec![0.0; 3 * height * out_width];
        for (from, to) in image.chunks_exact(3 * width).zip(narrow.chunks_exact_mut(3 * out_width)) {
            for (taps, pixel) in self.columns.taps.iter().zip(to.chunks_exact_mut(3)) {
                for (weight, value) in taps.weights.iter().zip(from[3 * taps.start..].chunks_exact(3)) {
                    for c in 0..3 {
                        pixel[c] += weight * value[c];
                    }
                }
            }
        }
        let row = 3 * out_width;
        let mut output = vec![0.0; self.rows.taps.len() * row];
        for (taps, to) in self.rows.taps.iter().zip(output.chunks_exact_mut(row)) {
            for (weight, from) in taps.weights.iter().zip(narrow[taps.start * row..].chunks_exact(row)) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += weight * from);
            }
        }
        output
    }

    /// As [`apply`](Self::apply), from 8 bits.
    pub fn apply_u8(&self, image: &[u8]) -> Vec<f64> {
        self.apply(&image.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
    }

    /// All of `images`, rounded by [`to_u8`].
    fn images(&self, images: &Images) -> Images {
        let (height, width) = self.output_size();
        let len = 3 * height * width;
        let mut pixels = vec![0; images.count * len];
        if len > 0 {
            pixels.par_chunks_exact_mut(len).enumerate().for_each(|(i, out)| {
                let values = self.apply_u8(images.image(i));
                out.iter_mut().zip(values).for_each(|(out, v)| *out = to_u8(v));
            });
        }
        Images::new(images.count, height, width, pixels)
    }
}

impl Axis {
    /// The mean of `len` inputs from `offset` on in every block of `scale`.
    fn blocks(input: usize, scale: usize, offset: usize, len: usize) -> Self {
        let weights = vec![1.0 / len as f64; len];
        let taps = (0..input / scale).map(|i| Taps { start: i * scale + offset, weights: weights.clone() }).collect();
        Self { input, taps }
    }

    /// Keys' kernel about half-pixel centres, widened by the scale where it shrinks; beyond the edges nothing is
    /// taken and the rest weighs more.
    fn bicubic(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let widening = scale.max(1.0);
        let support = 2.0 * widening;
        let taps = |i: usize| {
            let center = (i as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let mut weights: Vec<f64> = (start..end).map(|x| keys((x as f64 + 0.5 - center) / widening)).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
            Taps { start, weights }
        };
        Self { input, taps: (0..output).map(taps).collect() }
    }
}

/// The cubic convolution kernel with a = -0.5 (Keys 1981, eq. 15).
fn keys(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

/// Images `scale` times smaller, rounded to 8 bits. Fails as [`Resampler::degrade`] does.
pub fn degrade(images: &Images, scale: usize, method: DegradeMethod) -> anyhow::Result<Images> {
    Ok(Resampler::degrade(images.height, images.width, scale, method)?.images(images))
}

/// Images `factor` times larger by bicubic interpolation, rounded to 8 bits.
pub fn enlarge(images: &Images, factor: usize) -> Images {
    Resampler::enlarge(images.height, images.width, factor).images(images)
}

/// Images `factor` times larger by bicubic interpolation, `(count, factor · height, factor · width, 3)`, in grey levels
/// of 0 to 255 that are neither rounded nor clamped (the kernel overshoots at edges).
pub fn upsample_f32(images: &Images, factor: usize) -> Vec<f32> {
    let resampler = Resampler::enlarge(images.height, images.width, factor);
    let (height, width) = resampler.output_size();
    let len = 3 * height * width;
    let mut values = vec![0.0; images.count * len];
    if len > 0 {
        values.par_chunks_exact_mut(len).enumerate().for_each(|(i, out)| {
            let image = resampler.apply_u8(images.image(i));
            out.iter_mut().zip(image).for_each(|(out, v)| *out = v as f32);
        });
    }
    values
}

#[cfg(test)]
#[path = "resample_tests.rs"]
mod tests;
