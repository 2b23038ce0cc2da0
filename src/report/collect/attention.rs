//! Computes the arms' attention maps from their checkpoints, on a few test images.

use anyhow::Result;

use super::arms::RunData;
use crate::config::Device;
use crate::config::{CompareParams, DegradeMethod, Weights};
use crate::config::{StageParams, blobs};
use crate::data::Images;
use crate::data::resample::{Resampler, degrade};
use crate::infer::{AttentionMaps, Denoiser};
use crate::model::{Checkpoint, normalize};
use crate::report::html::Attention;

/// The number of test images.
const IMAGES: usize = 4;

/// The maximum number of arms.
const ARMS: usize = 6;

/// The maximum side of an image in pixels.
const MOST_SIDE: usize = 96;

/// The maximum number of positions of a map, whose weights grow with its square; larger maps are averaged over blocks.
const MOST: usize = 256;

/// Returns the deepest layer of each of the first arms with attention. Skips anything that cannot be read.
pub(super) fn of_arms(data: &RunData, params: &CompareParams) -> Vec<Attention> {
    let of_arm = |(name, stage): (&String, &str)| of_arm(data, name, stage).ok().flatten();
    params.arms.iter().map(|(name, arm)| (name, arm.runs[0].stage.as_str())).filter_map(of_arm).take(ARMS).collect()
}

fn of_arm(data: &RunData, arm: &str, sample: &str) -> Result<Option<Attention>> {
    let Some(StageParams::Sample(params)) = data.params(sample) else { return Ok(None) };
    let blob = if params.weights == Weights::Ema { blobs::EMA } else { blobs::WEIGHTS };
    let Some(bytes) = data.read(&params.model, blob) else { return Ok(None) };
    let checkpoint = Checkpoint::from_bytes(&bytes)?;
    if checkpoint.graph().probes.iter().all(|probe| probe.attention.is_none()) {
        return Ok(None);
    }
    let Some((hr, lr, scale)) = data.compared_images(sample, IMAGES) else { return Ok(None) };
    let denoiser = Denoiser::open(checkpoint, Device::Cpu)?;
    if (denoiser.config.scale, denoiser.config.image_size) != (scale, hr.height) || hr.height != hr.width {
        return Ok(None);
    }
    let enlarge = Resampler::enlarge(lr.height, lr.width, scale);
    let up: Vec<f64> = (0..lr.count).flat_map(|i| enlarge.apply_u8(lr.image(i))).map(normalize).collect();
    let images: Vec<f64> = hr.pixels.iter().copied().map(normalize).collect();
    let layers = denoiser.attention(&images, &up, 0)?;
    // The smallest map is the deepest.
    let Some(layer) = layers.into_iter().min_by_key(|layer| layer.queries) else { return Ok(None) };
    let side = layer.queries.isqrt();
    let hr = shown(hr)?;
    Ok(coarser(layer).map(|layer| Attention {
        arm: arm.to_string(),
        layer: layer.layer,
        side,
        hr,
        weights: layer.images,
        queries: layer.queries,
        keys: layer.keys,
    }))
}

/// Returns the images, reduced by a whole factor to at most `MOST_SIDE` if possible.
fn shown(hr: Images) -> Result<Images> {
    let factor = (1..=hr.height).find(|factor| hr.height.is_multiple_of(*factor) && hr.height / factor <= MOST_SIDE);
    degrade(&hr, factor.unwrap_or(1), DegradeMethod::Area)
}

/// Reduces maps to at most `MOST` positions by square blocks: averages over queries and sums over keys. Returns `None`
/// if no block size divides a map.
fn coarser(maps: AttentionMaps) -> Option<AttentionMaps> {
    let [queries, keys] = [maps.queries, maps.keys].map(Blocks::of);
    let (queries, keys) = (queries?, keys?);
    let weights = |fine: &Vec<f64>| {
        let mut coarse = vec![0.0; queries.count() * keys.count()];
        for (query, row) in fine.chunks_exact(maps.keys).enumerate() {
            let row_of = &mut coarse[queries.block(query) * keys.count()..][..keys.count()];
            for (key, weight) in row.iter().enumerate() {
                row_of[keys.block(key)] += weight / (queries.size * queries.size) as f64;
            }
        }
        coarse
    };
    let images = maps.images.iter().map(weights).collect();
    Some(AttentionMaps { layer: maps.layer, queries: queries.count(), keys: keys.count(), images })
}

/// A square map divided into blocks of `size`×`size` positions.
struct Blocks {
    side: usize,
    size: usize,
}

impl Blocks {
    fn of(positions: usize) -> Option<Self> {
        let side = positions.isqrt();
        let size = (1..=side).find(|size| side.is_multiple_of(*size) && (side / size).pow(2) <= MOST)?;
        (side * side == positions).then_some(Self { side, size })
    }

    fn count(&self) -> usize {
        (self.side / self.size).pow(2)
    }

    fn block(&self, position: usize) -> usize {
        let (y, x) = (position / self.side, position % self.side);
        y / self.size * (self.side / self.size) + x / self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_maps_become_coarser_and_rows_still_sum_to_one() {
        let n: usize = 32 * 32;
        // Each position attends only to itself.
        let weights: Vec<f64> = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
        let fine = AttentionMaps { layer: "a".into(), queries: n, keys: n, images: vec![weights] };
        let coarse = coarser(fine).unwrap();
        assert_eq!((coarse.queries, coarse.keys), (256, 256));
        for (query, row) in coarse.images[0].chunks_exact(256).enumerate() {
            assert!((row[query] - 1.0).abs() < 1e-12 && (row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        let small = AttentionMaps { layer: "b".into(), queries: 4, keys: 1, images: vec![vec![1.0; 4]] };
        assert_eq!(coarser(small).unwrap().images, [[1.0; 4]]);
        let odd = AttentionMaps { layer: "c".into(), queries: 6, keys: 6, images: vec![] };
        assert!(coarser(odd).is_none());
    }
}
