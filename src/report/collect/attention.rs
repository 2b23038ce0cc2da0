//! What the arms' layers of attention look at: their checkpoints are asked once more, with a few test images.

use anyhow::Result;

use super::arms::Known;
use crate::config::Device;
use crate::config::{CompareParams, DegradeMethod, Weights};
use crate::config::{StageParams, blobs};
use crate::data::Images;
use crate::data::resample::{Resampler, degrade};
use crate::infer::{AttentionMaps, Denoiser};
use crate::model::{Checkpoint, normalize};
use crate::report::html::Attention;

/// Test images that are looked at.
const IMAGES: usize = 4;

/// Arms that are shown.
const ARMS: usize = 6;

/// Pixels of a side of an image that is shown.
const MOST_SIDE: usize = 96;

/// Positions of a map that is shown: its weights are as many squared. Finer ones are shown coarser.
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
    if checkpoint.graph().probes.iter().all(|probe| probe.attention.is_none()) {
        return Ok(None);
    }
    let Some((hr, lr, scale)) = known.test_images(sample, IMAGES) else { return Ok(None) };
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

/// Images as they are shown, no larger than `MOST_SIDE` where a whole factor makes them so.
fn shown(hr: Images) -> Result<Images> {
    let factor = (1..=hr.height).find(|factor| hr.height.is_multiple_of(*factor) && hr.height / factor <= MOST_SIDE);
    degrade(&hr, factor.unwrap_or(1), DegradeMethod::Area)
}

/// Maps of at most `MOST` positions, of square blocks of positions: their means as those that ask, their sums as those that
/// are looked at. None where squares of one size do not make up a map.
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

/// How a square map is made up of blocks of `size`×`size` positions.
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
        // Every position looks at itself alone.
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
