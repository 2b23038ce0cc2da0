//! Upscales an image of any size with a trained model; the counterpart of `sample` for user images.
//!
//! The network was trained on images of one size, and its normalisation and attention cover a whole image. Therefore it
//! processes overlapping tiles of that size. Tiles sampled independently would each generate different detail, and two
//! different images cannot be joined well: a cut leaves a visible seam, and blending leaves ghosts. Instead, the image
//! is sampled as a whole. There is one canvas of noise; at every step, the clean values of the tiles are blended into
//! one clean canvas, from which the sampler takes its step (MultiDiffusion, Bar-Tal et al. 2023, eq. 5, with a window
//! that decreases towards the tile's edge). Neighbouring tiles influence each other from the first step on. Averaging
//! noisy tiles would reduce the noise; blending clean values keeps the noise level on schedule.
//!
//! The noise at a position is a function of (seed, sample, row, column), wherever tiles begin.

use anyhow::Result;
use rayon::prelude::*;

use super::Denoiser;
use crate::config::SamplerParams;
use crate::data::Images;
use crate::data::resample::Resampler;
use crate::data::tiles::Tiling;
use crate::diffusion::{self, Step, sample};
use crate::model::normalize;
use crate::nn::OutOfMemory;
use crate::random::{Purpose, stream};

/// The number of tiles per network call, if they fit into memory.
const MAX_BATCH: usize = 64;
/// The maximum number of pixels in a batch of tiles, unless a single tile has more: 64 tiles of 64×64.
const MAX_BATCH_PIXELS: usize = 64 * 64 * 64;

/// Upper bounds of the memory for upscaling, in bytes: a constant part, a part per pixel of the canvas for its values,
/// and a part per pixel of a batch of tiles for the network's input and output.
const BASE_BYTES: u64 = 64 << 20;
const BYTES_PER_PIXEL: u64 = 90;
const BYTES_PER_TILE_PIXEL: u64 = 120;

/// A sampler for one image of any size.
pub struct TiledSampler<'a> {
    denoiser: &'a Denoiser,
    /// Empty for a regression model.
    steps: Vec<Step>,
    sampler: SamplerParams,
    seed: u64,
    /// Height and width of the result; the canvas may be larger.
    size: (usize, usize),
    /// Height and width of the canvas.
    canvas: (usize, usize),
    tiling: Tiling,
    /// The enlarged image on the canvas, in [-1, 1].
    up: Vec<f64>,
}

impl<'a> TiledSampler<'a> {
    /// Creates a sampler for the one image in `image`. `sampler.steps` must not exceed the model's timesteps.
    pub fn new(denoiser: &'a Denoiser, sampler: &SamplerParams, seed: u64, image: &Images) -> Self {
        let small = denoiser.config.image_size / denoiser.config.scale;
        Self::with_overlap(denoiser, sampler, seed, image, overlap(small))
    }

    /// Like [`new`](Self::new), with the given overlap of tiles, in low-resolution pixels.
    fn with_overlap(
        denoiser: &'a Denoiser,
        sampler: &SamplerParams,
        seed: u64,
        image: &Images,
        overlap: usize,
    ) -> Self {
        let (size, scale) = (denoiser.config.image_size, denoiser.config.scale);
        let small = size / scale;
        let low = pad_by_mirroring(image, small);
        let up = Resampler::enlarge(low.height, low.width, scale).apply_u8(&low.pixels);
        let canvas = (scale * low.height, scale * low.width);
        Self {
            denoiser,
            steps: if denoiser.is_regression() { vec![] } else { denoiser.steps(sampler) },
            sampler: sampler.clone(),
            seed,
            size: (scale * image.height, scale * image.width),
            canvas,
            tiling: Tiling::new(canvas.0, canvas.1, size, scale * overlap, scale),
            up: up.iter().copied().map(normalize).collect(),
        }
    }

    /// Returns an upper bound of the memory, in bytes, for an image of `height`×`width` pixels.
    pub fn memory(denoiser: &Denoiser, height: usize, width: usize) -> u64 {
        let (size, scale) = (denoiser.config.image_size, denoiser.config.scale);
        let side = |length: usize| (scale * length).max(size) as u64;
        let canvas = side(height).saturating_mul(side(width));
        // Overlapping by half makes four times as many tiles.
        let tiles = (canvas / (size * size) as u64).saturating_mul(4).clamp(1, max_batch(size) as u64);
        BASE_BYTES
            .saturating_add(canvas.saturating_mul(BYTES_PER_PIXEL))
            .saturating_add(tiles * (size * size) as u64 * BYTES_PER_TILE_PIXEL)
            .saturating_add(denoiser.memory(tiles as usize))
    }

    /// Returns the number of network evaluations on tiles per sample.
    pub fn evaluations(&self) -> usize {
        self.tiling.count() * diffusion::evaluations(self.sampler.method, self.steps.len()).max(1)
    }

    /// Draws sample `k`. Calls `progress` with the number of evaluations since the last call; an error stops sampling.
    pub fn sample(&self, k: u64, progress: &mut dyn FnMut(usize) -> Result<()>) -> Result<Images> {
        let x = if self.denoiser.is_regression() {
            self.blend(progress, |_, up| self.denoiser.predict_regression(up), &self.up)?
        } else {
            let mut x = self.noise(Purpose::SampleStart, k);
            let denoise = |x: &[f64], step| self.blend(progress, |x, up| self.denoiser.predict_clean(x, up, step), x);
            // A chain has fewer than 2³² times.
            let chain = |step: Step| self.noise(Purpose::SampleNoise, (k << 32) | step.t as u64);
            sample(&self.sampler, &self.steps, &mut x, denoise, chain)?;
            x
        };
        let (height, width) = self.size;
        let rows = x.chunks_exact(3 * self.canvas.1).zip(self.up.chunks_exact(3 * self.canvas.1)).take(height);
        let pixels = rows.flat_map(|(x, up)| x.iter().zip(up).take(3 * width));
        let pixels = self.denoiser.pixels(pixels.map(|(&x, &up)| (x, up)))?;
        Ok(Images::new(1, height, width, pixels))
    }

    /// Applies `predict(x, up)` to each tile of the canvas `x` and blends the results into one canvas.
    fn blend(
        &self,
        progress: &mut dyn FnMut(usize) -> Result<()>,
        predict: impl Fn(&[f64], &[f64]) -> Result<Vec<f64>>,
        x: &[f64],
    ) -> Result<Vec<f64>> {
        let mut canvas = vec![0.0; x.len()];
        let count = self.tiling.count();
        let (mut first, mut batch) = (0, max_batch(self.denoiser.config.image_size));
        while first < count {
            let tiles = first..count.min(first + batch);
            let values = match predict(&self.tiling.cut(x, tiles.clone()), &self.tiling.cut(&self.up, tiles.clone())) {
                // A GPU without memory for this many tiles may have enough for fewer.
                Err(error) if error.is::<OutOfMemory>() && batch > 1 => {
                    batch /= 2;
                    continue;
                }
                values => values?,
            };
            self.tiling.blend(&mut canvas, tiles.clone(), &values);
            progress(tiles.len())?;
            first += tiles.len();
        }
        Ok(canvas)
    }

    /// Returns a canvas of standard normal noise.
    fn noise(&self, purpose: Purpose, step: u64) -> Vec<f64> {
        let mut values = vec![0.0; self.up.len()];
        let seed = self.seed;
        values.par_chunks_exact_mut(3 * self.canvas.1).enumerate().for_each(|(y, row)| {
            let mut rng = stream(seed, purpose, step, y as u64);
            row.iter_mut().for_each(|value| *value = rng.normal());
        });
        values
    }
}

/// Returns the maximum number of tiles of `size`×`size` pixels in a batch.
fn max_batch(size: usize) -> usize {
    (MAX_BATCH_PIXELS / (size * size)).clamp(1, MAX_BATCH)
}

/// Returns the default overlap of tiles of `small` low-resolution pixels.
fn overlap(small: usize) -> usize {
    (small / 2).min(small - 1)
}

/// Pads an image to sides of at least `side` pixels by mirroring it at the right and bottom edges, repeatedly if
/// needed.
fn pad_by_mirroring(image: &Images, side: usize) -> Images {
    let (height, width) = (image.height.max(side), image.width.max(side));
    let mirror = |at: usize, length: usize| {
        let at = at % (2 * length);
        if at < length { at } else { 2 * length - 1 - at }
    };
    let positions = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    let pixels = positions.flat_map(|(y, x)| {
        let at = 3 * (mirror(y, image.height) * image.width + mirror(x, image.width));
        image.pixels[at..at + 3].iter().copied()
    });
    Images::new(1, height, width, pixels.collect())
}

#[cfg(test)]
#[path = "tiled_tests.rs"]
mod tests;
