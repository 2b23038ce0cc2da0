//! `sample`: a trained model's high-resolution images of the test images. `part` keeps those that are finished.

mod part;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rayon::prelude::*;

use self::part::{Kept, Part};
use super::denoiser::Denoiser;
use super::{Context, Interrupted, Outcome, StageEvent, input, read_images};
use crate::config::blobs;
use crate::config::{SampleParams, Weights};
use crate::data::Samples;
use crate::data::resample::Resampler;
use crate::data::samples::samples_metadata;
use crate::diffusion::{Step, sample};
use crate::model::{Checkpoint, from_u8, match_means};
use crate::nn::OutOfMemory;
use crate::random::{Purpose, stream};

/// In the work folder.
const PART: &str = "samples.part";
const REPORT_EVERY: Duration = Duration::from_millis(250);

pub fn run(params: &SampleParams, ctx: &Context) -> Result<Outcome> {
    let weights = match params.weights {
        Weights::Ema => blobs::EMA,
        Weights::Raw => blobs::WEIGHTS,
    };
    let checkpoint = Checkpoint::from_bytes(&ctx.store.read(input(ctx, "model", weights)?)?)?;
    let denoiser = Denoiser::open(checkpoint, ctx.device)?;
    let lr = read_images(ctx, "data", blobs::TEST_LR)?;
    let config = &denoiser.config;
    ensure!(
        lr.height * config.scale == config.image_size && lr.width == lr.height,
        "the model enlarges ×{} to {2}×{2}, and the test images are {}×{3}",
        config.scale,
        lr.height,
        config.image_size,
        lr.width
    );
    let images = params.limit.map_or(lr.count, |limit| limit.min(lr.count));
    let samples = if denoiser.is_regression() { 1 } else { params.samples };
    let enlarge = Resampler::enlarge(lr.height, lr.width, config.scale);
    let up: Vec<Vec<f64>> = (0..images)
        .into_par_iter()
        .map(|i| enlarge.apply_u8(lr.image(i)).iter().map(|v| v / 127.5 - 1.0).collect())
        .collect();

    let low = (0..images).map(|i| lr.image(i).iter().map(|&v| from_u8(v)).collect()).collect();
    let batch_size = (params.batch_size / ctx.split).max(1);
    let sampler = Sampler { params, batch_size, denoiser: &denoiser, seed: ctx.seed, up: &up, low };

    let begun = Instant::now();
    let (pixels, drawn) = sampler.resume(images * samples, samples, ctx).map_err(|error| {
        let remedy = "a batch is too large for the GPU (`batch_size` may be smaller; `retry: { out_of_memory: 2 }` tries \
                      halves)";
        if error.is::<OutOfMemory>() { error.context(remedy) } else { error }
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let size = config.image_size;
    let bytes = Samples::new(images, samples, size, size, pixels).to_safetensors(&samples_metadata(&config.diffusion));

    let mut outputs = BTreeMap::from([(blobs::SAMPLES.to_string(), ctx.store.put(&bytes)?)]);
    for (role, blob) in [("data", blobs::TEST_HR), ("data", blobs::TEST_LR), ("model", blobs::LOSS)] {
        outputs.insert(blob.to_string(), input(ctx, role, blob)?.clone());
    }
    let mut metrics = BTreeMap::from([("images".to_string(), images as f64), ("samples".to_string(), samples as f64)]);
    if ctx.split > 1 {
        metrics.insert("batch_size".to_string(), batch_size as f64);
    }
    if drawn > 0 {
        metrics.insert("samples_per_s".to_string(), drawn as f64 / seconds);
    }
    Ok(Outcome { outputs, metrics })
}

/// Chain `j` is sample `j mod K` of image `j div K`; its noise depends on nothing else, so neither the batches nor an
/// interruption nor the arm changes it.
struct Sampler<'a> {
    params: &'a SampleParams,
    /// Chains at a time.
    batch_size: usize,
    denoiser: &'a Denoiser,
    seed: u64,
    /// The enlarged low-resolution images, in [-1, 1].
    up: &'a [Vec<f64>],
    /// The low-resolution images, in [-1, 1].
    low: Vec<Vec<f64>>,
}

impl Sampler<'_> {
    /// All `chains`, in batches, and how many of them were drawn now. Finished batches are kept in the work folder, so
    /// that an interrupted stage goes on where it was.
    fn resume(&self, chains: usize, samples: usize, ctx: &Context) -> Result<(Vec<u8>, usize)> {
        let len = self.denoiser.image_len();
        std::fs::create_dir_all(&ctx.work).with_context(|| format!("making the folder {}", ctx.work.display()))?;
        let (mut part, Kept { mut pixels, lost }) = Part::open(&ctx.work.join(PART), len, chains * len)?;
        let mut done = pixels.len() / len;
        if lost > 0 || done > 0 {
            let damage = if lost > 0 { "; what follows them is damaged and sampled again" } else { "" };
            let text = format!("going on after {done} of {chains} samples{damage}");
            (ctx.report)(StageEvent::Message { text });
        }

        let (begun, start, mut reported) = (Instant::now(), done, Instant::now());
        while done < chains {
            let batch: Vec<(usize, usize)> =
                (done..chains.min(done + self.batch_size)).map(|j| (j / samples, j % samples)).collect();
            let progress = |fraction: f64| {
                if (ctx.interrupted)() {
                    return Err(anyhow::Error::from(Interrupted));
                }
                if reported.elapsed() >= REPORT_EVERY {
                    reported = Instant::now();
                    let now = (done - start) as f64 + fraction * batch.len() as f64;
                    let values = BTreeMap::from([("samples_per_s".into(), now / begun.elapsed().as_secs_f64())]);
                    let (done, total) = (start as u64 + now as u64, chains as u64);
                    (ctx.report)(StageEvent::Progress { done, total, unit: "samples".into(), values });
                }
                Ok(())
            };
            let finished = self.chains(&batch, progress)?;
            part.append(&finished)?;
            pixels.extend(finished);
            done += batch.len();
        }
        Ok((pixels, done - start))
    }

    /// The images of a batch of (image, sample), 8 bits. `progress` hears the fraction done.
    fn chains(&self, batch: &[(usize, usize)], mut progress: impl FnMut(f64) -> Result<()>) -> Result<Vec<u8>> {
        progress(0.0)?;
        let denoiser = self.denoiser;
        let up: Vec<f64> = batch.iter().flat_map(|&(i, _)| &self.up[i]).copied().collect();
        let mut x: Vec<f64>;
        if denoiser.is_regression() {
            x = denoiser.answer(&up)?;
            self.project(batch, &up, &mut x);
        } else {
            let steps = denoiser.steps(&self.params.sampler);
            let mut evaluated = 0;
            x = self.noise(batch, Purpose::Start, |k| k);
            let denoise = |x: &[f64], step: Step| {
                progress(evaluated as f64 / steps.len() as f64)?;
                evaluated += 1;
                let mut clean = denoiser.clean(x, &up, step)?;
                self.project(batch, &up, &mut clean);
                Ok::<_, anyhow::Error>(clean)
            };
            // A sample's times are fewer than 2³².
            let chain = |step: Step| self.noise(batch, Purpose::Chain, |k| (k << 32) | step.t as u64);
            sample(&self.params.sampler, &steps, &mut x, denoise, chain)?;
        }
        denoiser.pixels(x.iter().zip(&up).map(|(&x, &up)| (x, up)))
    }

    /// Makes clean values stand for images that agree with their low-resolution images, where that was asked for. After
    /// the clamp, so that the means are exact; what leaves [-1, 1] by it is cut off in the finished image alone.
    fn project(&self, batch: &[(usize, usize)], up: &[f64], clean: &mut [f64]) {
        if !self.params.sampler.project_lr {
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

    /// Standard normal noise for every chain; `step` makes the stream's step of the sample's number.
    fn noise(&self, batch: &[(usize, usize)], purpose: Purpose, step: impl Fn(u64) -> u64 + Sync) -> Vec<f64> {
        let (len, seed) = (self.denoiser.image_len(), self.seed);
        let chains = batch.par_iter().map(|&(image, k)| {
            let mut rng = stream(seed, purpose, step(k as u64), image as u64);
            (0..len).map(|_| rng.normal()).collect::<Vec<f64>>()
        });
        chains.collect::<Vec<_>>().concat()
    }
}
