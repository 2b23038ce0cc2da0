//! Attention maps: which positions each position of a layer attends to.

use anyhow::Result;

use super::Denoiser;
use super::denoiser::ensure_finite;
use crate::config::Weights;
use crate::diffusion::Schedule;
use crate::model::interleave;
use crate::nn::attention_weights::{AttentionWeights, queries_and_keys};
use crate::nn::graph::NodeId;
use crate::random::{Purpose, stream};

/// The attention maps of one layer, averaged over its heads.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionMaps {
    pub layer: String,
    /// The number of query positions, row by row.
    pub queries: usize,
    /// The number of key positions, in the same feature map or in the low-resolution image.
    pub keys: usize,
    /// Per image: weights `(queries, keys)`, whose rows sum to 1.
    pub images: Vec<Vec<f64>>,
}

/// The maximum number of weights in the maps of a layer, per image and head.
const MAX_WEIGHTS: usize = 1 << 22;

fn mean_over_heads(weights: &AttentionWeights, image: usize) -> Vec<f64> {
    let mut mean = vec![0.0; weights.queries * weights.keys];
    for head in 0..weights.heads {
        let head = weights.head(image, head);
        for (position, row) in mean.chunks_exact_mut(weights.keys).enumerate() {
            row.iter_mut().zip(head.weights(position)).for_each(|(mean, w)| *mean += w / weights.heads as f64);
        }
    }
    mean
}

impl Denoiser {
    /// Returns the maps of all attention layers by name, for every image of `hr` in [-1, 1] with half of its variance
    /// replaced by noise. Empty if the network has no attention; layers with more than `MAX_WEIGHTS` weights are
    /// omitted.
    pub fn attention(&self, hr: &[f64], up: &[f64], seed: u64) -> Result<Vec<AttentionMaps>> {
        let graph = self.network.graph();
        let is_small = |node: &NodeId| {
            let queries_and_keys = queries_and_keys(graph, *node);
            queries_and_keys
                .is_some_and(|nodes| nodes.map(|n| graph.shape(n).positions()).iter().product::<usize>() <= MAX_WEIGHTS)
        };
        let named = graph.probes.iter().filter_map(|probe| Some((probe.name.as_str(), probe.attention?)));
        let layers: Vec<(&str, NodeId)> = named.filter(|(_, node)| is_small(node)).collect();
        let nodes: Vec<NodeId> =
            layers.iter().filter_map(|(_, node)| queries_and_keys(graph, *node)).flatten().collect();
        if nodes.is_empty() {
            return Ok(vec![]);
        }
        let (t, noisy) = self.half_noise(hr, up, seed);
        let images = up.len() / self.image_len();
        let up: Vec<f32> = up.iter().map(|&u| u as f32).collect();
        let x = interleave(noisy.into_iter(), &up);
        let values = self.network.values(Weights::Raw, &x, &vec![t; images], &nodes)?;
        values.iter().try_for_each(|values| ensure_finite("a value in an attention layer", values))?;
        let maps = layers.iter().zip(values.chunks_exact(2)).map(|((name, node), values)| {
            let weights = AttentionWeights::new(graph, *node, &values[0], &values[1]);
            AttentionMaps {
                layer: name.to_string(),
                queries: weights.queries,
                keys: weights.keys,
                images: (0..images).map(|image| mean_over_heads(&weights, image)).collect(),
            }
        });
        Ok(maps.collect())
    }

    /// Returns the network's time input where ᾱ is nearest to 1/2, and the images at that time. A regression model sees
    /// neither image nor time.
    fn half_noise(&self, hr: &[f64], up: &[f64], seed: u64) -> (f32, Vec<f32>) {
        if self.is_regression() {
            return (0.0, vec![0.0; hr.len()]);
        }
        let schedule = Schedule::new(&self.config.diffusion);
        let distance = |t: &usize| (schedule.alpha_bar(*t) - 0.5).abs();
        let t = (0..schedule.timesteps()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0);
        let (signal, noise) = (schedule.alpha_bar(t).sqrt(), (1.0 - schedule.alpha_bar(t)).sqrt());
        let noisy_image = |(i, (hr, up)): (usize, (&[f64], &[f64]))| -> Vec<f32> {
            let mut rng = stream(seed, Purpose::Validation, 0, i as u64);
            let one = |(&hr, &up): (&f64, &f64)| (signal * self.space.encode(hr, up) + noise * rng.normal()) as f32;
            hr.iter().zip(up).map(one).collect()
        };
        let len = self.image_len();
        let noisy = hr.chunks_exact(len).zip(up.chunks_exact(len)).enumerate().flat_map(noisy_image).collect();
        (t as f32 / self.config.diffusion.timesteps as f32, noisy)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::AttentionKind;
    use crate::infer::denoiser::tests::denoiser;

    #[test]
    fn attention_maps_cover_every_image_and_position() {
        let values: Vec<f64> = (0..2 * 16 * 16 * 3).map(|i| (i * 37 % 101) as f64 / 50.0 - 1.0).collect();
        let maps = denoiser(AttentionKind::Mhsa).attention(&values, &values, 0).unwrap();
        let layer = &maps[0];
        assert_eq!((layer.queries, layer.keys, layer.images.len()), (64, 64, 2));
        assert_ne!(layer.images[0], layer.images[1]);
        for row in layer.images.iter().flat_map(|image| image.chunks_exact(layer.keys)) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9 && row.iter().all(|w| *w > 0.0), "{row:?}");
        }
        let alone = denoiser(AttentionKind::Mhsa).attention(&values[..768], &values[..768], 0).unwrap();
        assert_eq!(alone[0].images[0], layer.images[0]);
        assert!(denoiser(AttentionKind::None).attention(&values, &values, 0).unwrap().is_empty());
        assert!(denoiser(AttentionKind::Uniform).attention(&values, &values, 0).unwrap().is_empty());
    }
}
