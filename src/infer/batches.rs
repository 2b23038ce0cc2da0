//! Samples for batches of low-resolution images of the model's own size.

use anyhow::Result;
use rayon::prelude::*;

use super::Denoiser;
use crate::config::SamplerParams;
use crate::data::Images;
use crate::data::resample::Resampler;
use crate::diffusion::{self, Step, sample};
use crate::model::{match_means, normalize};
use crate::random::{Purpose, stream};

/// Samples images in batches. The noise of a sample depends only on the seed, the image's index and the sample's
/// number; batching, interruptions and the arm do not change it.
pub struct BatchSampler<'a> {
    denoiser: &'a Denoiser,
    sampler: &'a SamplerParams,
    seed: u64,
    /// The enlarged low-resolution images, in [-1, 1].
    up: Vec<Vec<f64>>,
    /// The low-resolution images, in [-1, 1].
    low: Vec<Vec<f64>>,
}

impl<'a> BatchSampler<'a> {
    /// Creates a sampler for the first `images` images of `lr`, whose size is the model's divided by its scale.
    pub fn new(denoiser: &'a Denoiser, sampler: &'a SamplerParams, seed: u64, lr: &Images, images: usize) -> Self {
        let enlarge = Resampler::enlarge(lr.height, lr.width, denoiser.config.scale);
        let enlarged = |i| enlarge.apply_u8(lr.image(i)).iter().copied().map(normalize).collect();
        Self {
            denoiser,
            sampler,
            seed,
            up: (0..images).into_par_iter().map(enlarged).collect(),
            low: (0..images).map(|i| lr.image(i).iter().copied().map(normalize).collect()).collect(),
        }
    }

    /// Draws a batch of samples, each given by the index of its image and its number, and returns their pixels as 8-bit
    /// values. Calls `progress` with the finished fraction; an error stops sampling.
    pub fn draw(&self, batch: &[(usize, usize)], mut progress: impl FnMut(f64) -> Result<()>) -> Result<Vec<u8>> {
        progress(0.0)?;
        let denoiser = self.denoiser;
        let up: Vec<f64> = batch.iter().flat_map(|&(i, _)| &self.up[i]).copied().collect();
        let mut x: Vec<f64>;
        if denoiser.is_regression() {
            x = denoiser.predict_regression(&up)?;
            self.project(batch, &up, &mut x);
        } else {
            let steps = denoiser.steps(self.sampler);
            let evaluations = diffusion::evaluations(self.sampler.method, steps.len());
            let mut evaluated = 0;
            x = self.noise(batch, Purpose::SampleStart, |k| k);
            let denoise = |x: &[f64], step: Step| {
                progress(evaluated as f64 / evaluations as f64)?;
                evaluated += 1;
                let mut clean = denoiser.predict_clean(x, &up, step)?;
                self.project(batch, &up, &mut clean);
                Ok::<_, anyhow::Error>(clean)
            };
            // A chain has fewer than 2³² times.
            let chain = |step: Step| self.noise(batch, Purpose::SampleNoise, |k| (k << 32) | step.t as u64);
            sample(self.sampler, &steps, &mut x, denoise, chain)?;
        }
        denoiser.pixels(x.iter().zip(&up).map(|(&x, &up)| (x, up)))
    }

    /// Projects clean values onto the images whose block means equal the low-resolution image, if `project_lr` is set.
    /// This follows the clamp, so that the means are exact; values outside [-1, 1] are cut off only in the finished
    /// image.
    fn project(&self, batch: &[(usize, usize)], up: &[f64], clean: &mut [f64]) {
        if !self.sampler.project_lr {
            return;
        }
        let (len, low) = (self.denoiser.image_len(), &self.low);
        let (space, scale) = (self.denoiser.space, self.denoiser.config.scale);
        clean.par_chunks_mut(len).zip(up.par_chunks(len)).zip(batch).for_each(|((clean, up), &(image, _))| {
            let mut pixels: Vec<f64> = clean.iter().zip(up).map(|(&v, &up)| space.decode(v, up)).collect();
            match_means(&mut pixels, &low[image], scale);
            clean.iter_mut().zip(&pixels).zip(up).for_each(|((v, &pixel), &up)| *v = space.encode(pixel, up));
        });
    }

    /// Returns standard normal noise for every chain; `step` maps the sample's number to the stream's step.
    fn noise(&self, batch: &[(usize, usize)], purpose: Purpose, step: impl Fn(u64) -> u64 + Sync) -> Vec<f64> {
        let (len, seed) = (self.denoiser.image_len(), self.seed);
        let chains = batch.par_iter().map(|&(image, k)| {
            let mut rng = stream(seed, purpose, step(k as u64), image as u64);
            (0..len).map(|_| rng.normal()).collect::<Vec<f64>>()
        });
        chains.collect::<Vec<_>>().concat()
    }
}
