//! What the arms' layers of attention look at: their checkpoints are asked once more, with a few test images.

use anyhow::Result;

use super::arms::Known;
use crate::data::resample::Resampler;
use crate::model::{Checkpoint, from_u8};
use crate::pipeline::Device;
use crate::pipeline::params::{CompareParams, Weights};
use crate::pipeline::{StageParams, blobs};
use crate::report::html::Attention;
use crate::stages::denoiser::Denoiser;

/// Test images that are looked at.
const IMAGES: usize = 4;

/// Arms that are shown.
const ARMS: usize = 6;

/// Positions of a map: its weights are as many squared.
const MOST: usize = 256;

/// The deepest layer of each arm with attention, of the first arms that have any. What cannot be read is left out.
pub fn of_arms(known: &Known, params: &CompareParams) -> Vec<Attention> {
    let of_arm = |(name, stage): (&String, &str)| of_arm(known, name, stage).ok().flatten();
    params.arms.iter().map(|(name, arm)| (name, arm.runs[0].stage.as_str())).filter_map(of_arm).take(ARMS).collect()
}

fn of_arm(known: &Known, arm: &str, sample: &str) -> Result<Option<Attention>> {
    let Some(StageParams::Sample(params)) = known.params(sample) else { return Ok(None) };
    let blob = if params.weights == Weights::Ema { blobs::EMA } else { blobs::WEIGHTS };
    let Some(bytes) = known.read(&params.model, blob) else { return Ok(None) };
    let checkpoint = Checkpoint::from_bytes(&bytes)?;
    if checkpoint.graph().watched.iter().all(|watched| watched.attention.is_none()) {
        return Ok(None);
    }
    let Some((hr, lr, scale)) = known.test_images(sample, IMAGES) else { return Ok(None) };
    let denoiser = Denoiser::open(checkpoint, Device::Cpu)?;
    if (denoiser.config.scale, denoiser.config.image_size) != (scale, hr.height) || hr.height != hr.width {
        return Ok(None);
    }
    let enlarge = Resampler::enlarge(lr.height, lr.width, scale);
    let up: Vec<f64> =
        (0..lr.count).flat_map(|i| enlarge.apply_u8(lr.image(i))).map(|value| value / 127.5 - 1.0).collect();
    let images: Vec<f64> = hr.pixels.iter().map(|&value| from_u8(value)).collect();
    let layers = denoiser.attention(&images, &up, 0)?;
    // The smallest map is the deepest.
    let layer = layers.into_iter().filter(|layer| layer.queries.max(layer.keys) <= MOST).min_by_key(|l| l.queries);
    Ok(layer.map(|layer| Attention {
        arm: arm.to_string(),
        layer: layer.layer,
        hr,
        weights: layer.images,
        queries: layer.queries,
        keys: layer.keys,
    }))
}
