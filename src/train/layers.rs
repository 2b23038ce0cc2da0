//! Statistics of the probed layers of a network on validation images.

use anyhow::Result;
use rayon::prelude::*;

use super::log::LayerRow;
use crate::config::Weights;
use crate::nn::Network;
use crate::nn::attention_weights::{AttentionWeights, queries_and_keys};
use crate::nn::graph::{Graph, NodeId, Probe};

/// The maximum number of queries to analyse per image and head; larger feature maps are subsampled.
const MAX_QUERIES: usize = 64;

/// Measures every probed layer for images `x` at times `t`, and returns one row per layer.
pub(super) fn probe(network: &dyn Network, step: u64, x: &[f32], t: &[f32]) -> Result<Vec<LayerRow>> {
    let graph = network.graph();
    if graph.probes.is_empty() {
        return Ok(vec![]);
    }
    let wanted: Vec<NodeId> = graph.probes.iter().flat_map(|probe| nodes(graph, probe)).collect();
    let values = network.values(Weights::Ema, x, t, &wanted)?;
    let mut at = 0;
    let ema = graph.probes.iter().any(|probe| probe.gamma.is_some()).then(|| network.state().ema);
    let rows = graph.probes.iter().map(|probe| {
        let count = nodes(graph, probe).len();
        let values = &values[at..at + count];
        at += count;
        let gamma = probe.gamma.zip(ema.as_ref()).map(|(p, ema)| f64::from(ema[p.0][0]));
        LayerRow {
            step,
            layer: probe.name.clone(),
            branch_norm: ratio(gamma.unwrap_or(1.0).abs() * rms(&values[0]), rms(&values[1])),
            gamma,
            entropy: probe.attention.and_then(|a| entropy(graph, a, &values[2], &values[3], t.len())),
        }
    });
    Ok(rows.collect())
}

/// Returns the nodes whose values a probe needs: the branch, the skip connection and, for attention, the queries and
/// keys.
fn nodes(graph: &Graph, probe: &Probe) -> Vec<NodeId> {
    let attention = probe.attention.and_then(|attention| queries_and_keys(graph, attention));
    [probe.branch, probe.skip].into_iter().chain(attention.into_iter().flatten()).collect()
}

fn rms(values: &[f32]) -> f64 {
    (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

/// Returns `part / whole`, or 0 if `whole` is 0, as it is for a feature map of zeros.
fn ratio(part: f64, whole: f64) -> f64 {
    // Feature maps are f32, so smaller values count as 0.
    if whole < f64::from(f32::MIN_POSITIVE) { 0.0 } else { part / whole }
}

/// Returns the mean over images, heads and queries of −Σ w ln w / ln N, where w are the weights of the N keys for one
/// query. `None` if there is only one key, whose weight is always 1.
fn entropy(graph: &Graph, attention: NodeId, q: &[f32], k: &[f32], images: usize) -> Option<f64> {
    let weights = AttentionWeights::new(graph, attention, q, k);
    if weights.keys < 2 {
        return None;
    }
    let stride = weights.queries.div_ceil(MAX_QUERIES);
    let of_image = |image: usize| {
        let (mut sum, mut count) = (0.0, 0);
        for head in 0..weights.heads {
            let head = weights.head(image, head);
            for position in (0..weights.queries).step_by(stride) {
                sum -= head.weights(position).iter().filter(|w| **w > 0.0).map(|w| w * w.ln()).sum::<f64>();
                count += 1;
            }
        }
        (sum, count)
    };
    let parts: Vec<(f64, usize)> = (0..images).into_par_iter().map(of_image).collect();
    let (sum, count) = parts.iter().fold((0.0, 0), |(s, n), (a, b)| (s + a, n + b));
    Some(sum / count as f64 / (weights.keys as f64).ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Device;
    use crate::config::{AttentionKind, AttentionParams, ModelParams};
    use crate::model::unet;
    use crate::nn;

    /// Returns the row of a layer whose queries and keys are multiplied by `factor`, and whose last weights (projection
    /// or gamma) are all `projection`.
    fn row(kind: AttentionKind, factor: f32, projection: f32) -> LayerRow {
        let attention = AttentionParams { kind, ..Default::default() };
        let graph = unet(&ModelParams { base_channels: 4, attention, ..Default::default() }, 32, 4);
        let mut state = crate::train::initial_state(&graph, 1);
        for (values, p) in state.ema.iter_mut().zip(&graph.params) {
            if p.name.contains("query") || p.name.contains("key") {
                values.iter_mut().for_each(|v| *v *= factor);
            }
            if p.name.contains("proj") || p.name.contains("gamma") {
                values.iter_mut().for_each(|v| *v = projection);
            }
        }
        let network = nn::create_network(Device::Cpu, graph, &state).unwrap();
        let x: Vec<f32> = (0..2 * 32 * 32 * 6).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        probe(network.as_ref(), 3, &x, &[0.2, 0.7]).unwrap().remove(0)
    }

    #[test]
    fn uniform_weights_have_maximum_entropy_and_sharp_weights_have_low_entropy() {
        for kind in [AttentionKind::Mhsa, AttentionKind::Sagan, AttentionKind::Cross, AttentionKind::Linear] {
            let [equal, some, sharp] = [0.0, 1.0, 1000.0].map(|factor| row(kind, factor, 0.1).entropy.unwrap());
            assert!((equal - 1.0).abs() < 1e-9, "{kind:?}: {equal}");
            assert!(some < 1.0 && sharp < 0.7 * some, "{kind:?}: {some} {sharp}");
        }
        assert_eq!(row(AttentionKind::Uniform, 1.0, 0.1).entropy, None);
    }

    /// Tests feature maps with a single position, and a network whose weights are all 0.
    #[test]
    fn metrics_of_degenerate_layers_are_finite_or_absent() {
        let attention = AttentionParams { kind: AttentionKind::Mhsa, resolutions: vec![1], ..Default::default() };
        let model = ModelParams { base_channels: 4, channel_mults: vec![1; 4], attention, ..Default::default() };
        let graph = unet(&model, 8, 4);
        let mut state = crate::train::initial_state(&graph, 1);
        for zero in [false, true] {
            if zero {
                state.ema.iter_mut().flatten().for_each(|v| *v = 0.0);
            }
            let network = nn::create_network(Device::Cpu, graph.clone(), &state).unwrap();
            let row = probe(network.as_ref(), 0, &[0.5; 8 * 8 * 6], &[0.5]).unwrap().remove(0);
            assert_eq!((row.branch_norm, row.entropy), (0.0, None));
        }
    }

    #[test]
    fn a_branch_initialised_with_zeros_has_norm_zero() {
        for kind in [AttentionKind::Mhsa, AttentionKind::Sagan, AttentionKind::Uniform, AttentionKind::Linear] {
            let zero = row(kind, 1.0, 0.0);
            assert_eq!(zero.branch_norm, 0.0, "{kind:?}");
            assert_eq!(zero.gamma, (kind == AttentionKind::Sagan).then_some(0.0));
            let (one, two) = (row(kind, 1.0, 0.1), row(kind, 1.0, 0.2));
            assert!(one.branch_norm > 0.0 && two.branch_norm > 1.9 * one.branch_norm, "{kind:?}");
        }
    }
}
