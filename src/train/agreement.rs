//! How well another backend agrees with the CPU's kernels.

use anyhow::Result;
use serde::Serialize;

use super::{Pairs, Recipe, Task, initial_state};
use crate::data::resample::degrade;
use crate::data::synthetic::{Split, generate};
use crate::model::unet;
use crate::nn::{CpuBackend, Graph, Network, TrainState, open_on_cpu};
use crate::pipeline::params::*;

/// The largest difference of two outputs' numbers.
pub const OUTPUTS: f64 = 1e-4;
/// Of two gradients of one parameter: the norm of the difference over the norm.
pub const GRADIENTS: f64 = 1e-3;
/// Of two losses of one training: the mean difference over the mean. Rounding grows in a training.
pub const LOSSES: f64 = 2e-2;

const IMAGES: usize = 64;
const BATCH: usize = 8;
const SCALE: usize = 4;

/// How far two backends are apart, for one network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    pub network: String,
    pub outputs: f64,
    pub gradients: f64,
    /// Of a training; None where none was asked for.
    pub losses: Option<f64>,
    /// The mean loss of the last tenth of the training: the CPU's, and the other's.
    pub last: Option<[f64; 2]>,
}

impl Agreement {
    pub fn holds(&self) -> bool {
        self.outputs < OUTPUTS && self.gradients < GRADIENTS && self.losses.is_none_or(|losses| losses < LOSSES)
    }
}

/// A network of every kind of block, embedding and attention, and an objective for each.
pub fn networks() -> Vec<(&'static str, ModelParams, Objective)> {
    let base = ModelParams { base_channels: 16, zero_output: false, ..Default::default() };
    let with = |kind, heads| ModelParams {
        attention: AttentionParams { kind, heads, resolutions: vec![16, 8], ..Default::default() },
        ..base.clone()
    };
    vec![
        ("the tutorial's", ModelParams::tutorial(16, AttentionKind::Seed), Objective::Eps),
        ("residual blocks", base.clone(), Objective::V),
        ("mhsa", with(AttentionKind::Mhsa, 2), Objective::X0),
        ("linear", with(AttentionKind::Linear, 2), Objective::V),
        ("cross", with(AttentionKind::Cross, 4), Objective::Regression),
        ("uniform", with(AttentionKind::Uniform, 1), Objective::V),
        ("conv_control", with(AttentionKind::ConvControl, 1), Objective::V),
    ]
}

/// Opens a network on a backend.
pub type Open<'a> = dyn Fn(Graph, &TrainState) -> Result<Box<dyn Network>> + 'a;

/// Holds a network on the backend of `open` against the same one on the CPU's kernels: an output, gradients, and the
/// losses of `steps` steps of training, in two parts each.
pub fn agreement(
    (name, model, objective): &(&str, ModelParams, Objective),
    steps: u64,
    open: &Open,
) -> Result<Agreement> {
    let pairs = |split| -> Result<Pairs> {
        let hr = generate(0, split, IMAGES);
        let lr = degrade(&hr, SCALE, DegradeMethod::Area)?;
        Pairs::new(hr, lr)
    };
    let diffusion = DiffusionParams { objective: *objective, ..Default::default() };
    let task = Task::new(pairs(Split::Train)?, pairs(Split::Validation)?, &diffusion, true, 1, 1);
    let graph = unet(model, generate(0, Split::Test, 1).height, SCALE);
    let state = initial_state(&graph, 1);
    let mut ours = open_on_cpu(CpuBackend::Fused, graph.clone(), &state)?;
    let mut other = open(graph, &state)?;

    let batch = task.batch(0, BATCH);
    let outputs = |network: &dyn Network| network.predict(Weights::Ema, batch.view().x, batch.view().t);
    let outputs = differences(&outputs(&*ours)?, &outputs(&*other)?).fold(0.0, |most: f64, gap| most.max(gap.abs()));
    let ((_, expected), (_, found)) = (ours.gradients(batch.view())?, other.gradients(batch.view())?);
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let size = |g: &[f32]| norm(&mut g.iter().map(|v| f64::from(*v)));
    // Sums of many terms that cancel each other are as exact as their terms, not as what is left.
    let steepest = expected.iter().map(|g| size(g)).fold(0.0, f64::max);
    let gap = |(a, b): (&Vec<f32>, &Vec<f32>)| norm(&mut differences(a, b)) / size(a).max(1e-2 * steepest);
    let gradients = expected.iter().zip(&found).map(gap).fold(0.0, f64::max);

    let recipe = Recipe::new(&OptimParams { steps: Some(steps), batch_size: BATCH, ..Default::default() }, IMAGES);
    let mut losses: Vec<[f64; 2]> = vec![];
    for step in 0..steps {
        let (batch, settings) = (task.batch(step, BATCH), recipe.settings(step));
        let loss = |network: &mut dyn Network| network.train_step(batch.view(), 2, &settings);
        losses.push([f64::from(loss(&mut *ours)?.loss), f64::from(loss(&mut *other)?.loss)]);
    }
    let mean = |values: &mut dyn ExactSizeIterator<Item = f64>| {
        let n = values.len() as f64;
        values.sum::<f64>() / n
    };
    let apart = mean(&mut losses.iter().map(|[a, b]| (a - b).abs())) / mean(&mut losses.iter().map(|[a, _]| *a));
    let end = &losses[losses.len() - losses.len().div_ceil(10)..];
    let last = [0, 1].map(|i| mean(&mut end.iter().map(|pair| pair[i])));
    let trained = steps > 0;
    Ok(Agreement {
        network: name.to_string(),
        outputs,
        gradients,
        losses: trained.then_some(apart),
        last: trained.then_some(last),
    })
}

fn differences(a: &[f32], b: &[f32]) -> impl Iterator<Item = f64> {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_agrees_with_itself_and_another_network_does_not() {
        let network = &networks()[0];
        let fused = |graph: Graph, state: &TrainState| open_on_cpu(CpuBackend::Fused, graph, state);
        let same = agreement(network, 2, &fused).unwrap();
        assert_eq!((same.outputs, same.gradients, same.losses), (0.0, 0.0, Some(0.0)));
        assert!(same.holds());
        let wrong = |graph: Graph, state: &TrainState| {
            let mut state = state.clone();
            state.weights[0][0] += 0.1;
            fused(graph, &state)
        };
        let other = agreement(network, 2, &wrong).unwrap();
        assert!(!other.holds() && other.gradients > GRADIENTS, "{other:?}");
    }
}
