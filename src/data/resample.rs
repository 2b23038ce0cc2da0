//! Enlarges and shrinks images by integer factors, in f64, with half-pixel centres.
//!
//! Every method is separable and linear: an output row is a weighted sum of a few input rows, and an output column of a
//! few input columns. The weights ([`Resampler`]) are computed once per size.

use std::f64::consts::PI;

use anyhow::ensure;
use rayon::prelude::*;

use super::Images;
use super::images::to_u8;
use crate::config::{Degradation, DegradeMethod};

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

/// The weights of one output position, for the inputs that begin at `start`. They sum to 1.
struct Taps {
    start: usize,
    weights: Vec<f64>,
}

impl Resampler {
    /// Creates a resampler that shrinks `height`×`width` by `scale`. Fails unless `scale` divides both sides.
    /// `bilinear` and `blur` also need an even scale, because they average a central pair of pixels.
    fn degrade(height: usize, width: usize, scale: usize, degradation: impl Into<Degradation>) -> anyhow::Result<Self> {
        let Degradation { method, sigma } = degradation.into();
        ensure!(scale > 0, "the scale must be at least 1, found 0");
        ensure!(
            height.is_multiple_of(scale) && width.is_multiple_of(scale),
            "images of {width}x{height} cannot be made {scale} times smaller: choose a scale that divides both sides"
        );
        ensure!(
            !matches!(method, DegradeMethod::Bilinear | DegradeMethod::Blur) || scale.is_multiple_of(2),
            "`bilinear` and `blur` need an even scale, found {scale}: choose an even scale, or use `area`"
        );
        let axis = |input: usize| match method {
            DegradeMethod::Area => Axis::blocks(input, scale, 0, scale),
            DegradeMethod::Bilinear => Axis::blocks(input, scale, scale / 2 - 1, 2),
            DegradeMethod::Bicubic => Axis::bicubic(input, input / scale),
            DegradeMethod::Lanczos => Axis::filtered(input, input / scale, 3.0, lanczos),
            DegradeMethod::Blur => Axis::blur(input, scale, sigma),
        };
        Ok(Self { rows: axis(height), columns: axis(width) })
    }

    /// Creates a resampler that enlarges `height`×`width` by `factor` with Keys' bicubic kernel.
    pub fn enlarge(height: usize, width: usize, factor: usize) -> Self {
        Self { rows: Axis::bicubic(height, height * factor), columns: Axis::bicubic(width, width * factor) }
    }

    /// Returns the height and width of the output.
    fn output_size(&self) -> (usize, usize) {
        (self.rows.taps.len(), self.columns.taps.len())
    }

    /// Resamples one image `(height, width, 3)` in any units. The result is neither rounded nor clamped.
    fn apply(&self, image: &[f64]) -> Vec<f64> {
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

    /// Like `apply`, for 8-bit images.
    pub fn apply_u8(&self, image: &[u8]) -> Vec<f64> {
        self.apply(&image.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
    }

    /// Resamples all images and rounds the results with [`to_u8`].
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
    /// Returns the weights of the mean of `len` inputs in every block of `scale`, starting at `offset` in the block.
    fn blocks(input: usize, scale: usize, offset: usize, len: usize) -> Self {
        let weights = vec![1.0 / len as f64; len];
        let taps = (0..input / scale).map(|i| Taps { start: i * scale + offset, weights: weights.clone() }).collect();
        Self { input, taps }
    }

    /// Returns the weights of a Gaussian blur, cut off at 4 sigma, followed by the mean of the two central values of
    /// every block of `scale`. At the edges, the weights within the image are normalised to sum to 1.
    fn blur(input: usize, scale: usize, sigma: f64) -> Self {
        let radius = (4.0 * sigma + 0.5) as usize;
        let gaussian = |center: usize, x: usize| match center.abs_diff(x) {
            distance if distance > radius => 0.0,
            distance => (-0.5 * (distance as f64 / sigma).powi(2)).exp(),
        };
        let taps = |i: usize| {
            let (left, right) = (i * scale + scale / 2 - 1, i * scale + scale / 2);
            let (start, end) = (left.saturating_sub(radius), (right + radius + 1).min(input));
            let sum = |center: usize| (start..end).map(|x| gaussian(center, x)).sum::<f64>();
            let (of_left, of_right) = (sum(left), sum(right));
            let weight = |x: usize| 0.5 * (gaussian(left, x) / of_left + gaussian(right, x) / of_right);
            Taps { start, weights: (start..end).map(weight).collect() }
        };
        Self { input, taps: (0..input / scale).map(taps).collect() }
    }

    fn bicubic(input: usize, output: usize) -> Self {
        Self::filtered(input, output, 2.0, keys)
    }

    /// Returns the weights of a kernel of radius `radius` around half-pixel centres, widened by the scale when shrinking.
    /// At the edges, the weights within the image are normalised to sum to 1.
    fn filtered(input: usize, output: usize, radius: f64, kernel: fn(f64) -> f64) -> Self {
        let scale = input as f64 / output as f64;
        let widening = scale.max(1.0);
        let support = radius * widening;
        let taps = |i: usize| {
            let center = (i as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let mut weights: Vec<f64> = (start..end).map(|x| kernel((x as f64 + 0.5 - center) / widening)).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
            Taps { start, weights }
        };
        Self { input, taps: (0..output).map(taps).collect() }
    }
}

/// Evaluates the cubic convolution kernel with a = -0.5 at `x` (Keys 1981, eq. 15).
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

/// Evaluates sinc(x) sinc(x / 3), Lanczos' kernel with three lobes (Duchon 1979).
fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

/// Returns images `scale` times smaller, rounded to 8 bits. Fails like `Resampler::degrade`.
pub fn degrade(images: &Images, scale: usize, degradation: impl Into<Degradation>) -> anyhow::Result<Images> {
    Ok(Resampler::degrade(images.height, images.width, scale, degradation)?.images(images))
}

/// Returns images `factor` times larger by bicubic interpolation, rounded to 8 bits.
pub fn enlarge(images: &Images, factor: usize) -> Images {
    Resampler::enlarge(images.height, images.width, factor).images(images)
}

#[cfg(test)]
#[path = "resample_tests.rs"]
mod tests;
