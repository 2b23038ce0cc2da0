//! `sample`: super-resolves the test or validation images with a trained model. `partial_samples` stores finished
//! batches.

mod partial_samples;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use self::partial_samples::{Kept, Part};
use super::{Context, Interrupted, Outcome, StageEvent, input, read_images};
use crate::config::blobs;
use crate::config::{SampleParams, Weights};
use crate::data::Samples;
use crate::data::samples::samples_metadata;
use crate::infer::{BatchSampler, Denoiser};
use crate::model::Checkpoint;
use crate::nn::OutOfMemory;

/// In the work folder.
const PART: &str = "samples.part";
const REPORT_EVERY: Duration = Duration::from_millis(250);

pub(super) fn run(params: &SampleParams, ctx: &Context) -> Result<Outcome> {
    let weights = match params.weights {
        Weights::Ema => blobs::EMA,
        Weights::Raw => blobs::WEIGHTS,
    };
    let checkpoint = Checkpoint::from_bytes(&ctx.store.read(input(ctx, "model", weights)?)?)?;
    let denoiser = Denoiser::open(checkpoint, ctx.device)?;
    let [hr_blob, lr_blob] = params.split.blobs();
    let lr = read_images(ctx, "data", lr_blob)?;
    let config = &denoiser.config;
    ensure!(
        lr.height * config.scale == config.image_size && lr.width == lr.height,
        "the model enlarges ×{} to {1}×{1}, but the {4} images are {2}×{3}",
        config.scale,
        config.image_size,
        lr.height,
        lr.width,
        params.split
    );
    let images = params.limit.map_or(lr.count, |limit| limit.min(lr.count));
    let samples = if denoiser.is_regression() { 1 } else { params.samples };
    let batch_size = (params.batch_size / ctx.batch_divisor).max(1);
    let sampler = BatchSampler::new(&denoiser, &params.sampler, ctx.seed, &lr, images);

    let begun = Instant::now();
    let drawn = draw_remaining(&sampler, denoiser.image_len(), batch_size, images * samples, samples, ctx);
    let (pixels, drawn) = drawn.map_err(|error| {
        let remedy = "a batch is too large for the GPU (reduce `batch_size`, or set `retry: { out_of_memory: 2 }` to \
                      retry with half the batch)";
        if error.is::<OutOfMemory>() { error.context(remedy) } else { error }
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let size = config.image_size;
    let bytes = Samples::new(images, samples, size, size, pixels).to_safetensors(&samples_metadata(&config.diffusion));

    let mut outputs = BTreeMap::from([(blobs::SAMPLES.to_string(), ctx.store.put(&bytes)?)]);
    for (role, blob) in [("data", hr_blob), ("data", lr_blob), ("model", blobs::LOSS)] {
        outputs.insert(blob.to_string(), input(ctx, role, blob)?.clone());
    }
    let mut metrics = BTreeMap::from([("images".to_string(), images as f64), ("samples".to_string(), samples as f64)]);
    if ctx.batch_divisor > 1 {
        metrics.insert("batch_size".to_string(), batch_size as f64);
    }
    if drawn > 0 {
        metrics.insert("samples_per_s".to_string(), drawn as f64 / seconds);
    }
    Ok(Outcome { outputs, metrics })
}

/// Draws `chains` samples in batches, `samples` per image; returns all pixels and how many samples were drawn by this
/// call. Chain `j` is sample `j mod samples` of image `j div samples`. Finished batches are stored in the work folder,
/// so that an interrupted stage resumes after them. `len`: values per image.
fn draw_remaining(
    sampler: &BatchSampler,
    len: usize,
    batch_size: usize,
    chains: usize,
    samples: usize,
    ctx: &Context,
) -> Result<(Vec<u8>, usize)> {
    std::fs::create_dir_all(&ctx.work).with_context(|| format!("creating the folder {}", ctx.work.display()))?;
    let (mut part, Kept { mut pixels, lost }) = Part::open(&ctx.work.join(PART), len, chains * len)?;
    let mut done = pixels.len() / len;
    if lost > 0 || done > 0 {
        let damage = if lost > 0 { "; the rest is damaged and sampled again" } else { "" };
        let text = format!("resuming after {done} of {chains} samples{damage}");
        (ctx.report)(StageEvent::Message { text });
    }

    let (begun, start, mut reported) = (Instant::now(), done, Instant::now());
    while done < chains {
        let batch: Vec<(usize, usize)> =
            (done..chains.min(done + batch_size)).map(|j| (j / samples, j % samples)).collect();
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
        let finished = sampler.draw(&batch, progress)?;
        part.append(&finished)?;
        pixels.extend(finished);
        done += batch.len();
    }
    Ok((pixels, done - start))
}
