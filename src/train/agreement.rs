//! Measures how closely another backend agrees with the CPU kernels.

use anyhow::Result;
use serde::Serialize;

use super::{Pairs, Recipe, Task, initial_state};
use crate::config::*;
use crate::data::resample::degrade;
use crate::data::synthetic::{Split, generate};
use crate::model::unet;
use crate::nn::{CpuBackend, Graph, Network, TrainState, create_cpu_network};

/// The maximum difference between outputs.
pub const OUTPUTS: f64 = 1e-4;
/// The maximum relative difference between two gradients of a parameter: norm of the difference over norm.
pub const GRADIENTS: f64 = 1e-3;
/// The maximum relative difference between two training runs after a few steps: the changes of the weights and their
/// moving average, Adam's first moment, and the gradient norms; norm of the difference over norm.
pub const STATES: f64 = 2e-3;
/// The maximum relative difference between the losses of two training runs: mean difference over mean. Rounding errors
/// grow during training.
pub const LOSSES: f64 = 2e-2;

const IMAGES: usize = 64;
const BATCH: usize = 8;
const SCALE: usize = 4;
/// The step at which the states are compared, before rounding errors have grown.
const EARLY: u64 = 10;

/// The differences between two backends, for one network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    pub network: String,
    pub outputs: f64,
    pub gradients: f64,
    /// Early in training; `None` if no training was requested.
    pub states: Option<f64>,
    /// Over the whole training run.
    pub losses: Option<f64>,
    /// The mean loss over the last tenth of the training: of the CPU and of the other backend.
    pub last: Option<[f64; 2]>,
}

impl Agreement {
    pub fn holds(&self) -> bool {
        self.outputs < OUTPUTS
            && self.gradients < GRADIENTS
            && self.states.is_none_or(|states| states < STATES)
            && self.losses.is_none_or(|losses| losses < LOSSES)
    }
}

/// Returns networks with every kind of block, embedding and attention, each with an objective.
pub fn networks() -> Vec<(&'static str, ModelParams, PredictionType)> {
    let base = ModelParams { base_channels: 16, zero_output: false, ..Default::default() };
    let with = |kind, heads| ModelParams {
        attention: AttentionParams { kind, heads, resolutions: vec![16, 8], ..Default::default() },
        ..base.clone()
    };
    vec![
        ("the tutorial's", ModelParams::tutorial(16, AttentionKind::Sagan), PredictionType::Eps),
        ("residual blocks", base.clone(), PredictionType::V),
        ("mhsa", with(AttentionKind::Mhsa, 2), PredictionType::X0),
        ("linear", with(AttentionKind::Linear, 2), PredictionType::V),
        ("cross", with(AttentionKind::Cross, 4), PredictionType::Regression),
        ("uniform", with(AttentionKind::Uniform, 1), PredictionType::V),
        ("conv_control", with(AttentionKind::ConvControl, 1), PredictionType::V),
    ]
}

/// Opens a network on a backend.
type Open<'a> = dyn Fn(Graph, &TrainState) -> Result<Box<dyn Network>> + 'a;

/// Compares a network on the backend of `open` with the same one on the CPU kernels: an output, gradients, and `steps`
/// training steps, in two micro-batches each.
pub fn agreement(
    (name, model, objective): &(&str, ModelParams, PredictionType),
    steps: u64,
    open: &Open,
) -> Result<Agreement> {
    let pairs = |split| -> Result<Pairs> {
        let hr = generate(0, split, IMAGES);
        let lr = degrade(&hr, SCALE, DegradeMethod::Area)?;
        Pairs::new(hr, lr)
    };
    // Loss weights that differ between images.
    let loss_weighting = LossWeighting::MinSnr;
    let diffusion = DiffusionParams { objective: *objective, loss_weighting, ..Default::default() };
    let task = Task::new(pairs(Split::Train)?, pairs(Split::Validation)?, &diffusion, true, 1, 1);
    let graph = unet(model, generate(0, Split::Test, 1).height, SCALE);
    let state = initial_state(&graph, 1);
    let mut ours = create_cpu_network(CpuBackend::Fused, graph.clone(), &state)?;
    let mut other = open(graph, &state)?;

    let batch = task.batch(0, BATCH);
    let outputs = |network: &dyn Network| network.predict(Weights::Ema, batch.view().x, batch.view().t);
    let outputs = largest(differences(&outputs(&*ours)?, &outputs(&*other)?).map(f64::abs));
    let ((_, expected), (_, found)) = (ours.gradients(batch.view())?, other.gradients(batch.view())?);
    // Sums of many terms that cancel are as exact as their terms, not as the result.
    let steepest = expected.iter().map(|g| norm(g)).fold(0.0, f64::max);
    let gap = |(a, b): (&Vec<f32>, &Vec<f32>)| norm_of(differences(a, b)) / norm(a).max(1e-2 * steepest);
    let gradients = largest(expected.iter().zip(&found).map(gap));

    // Strong enough that the training would differ without them.
    let (weight_decay, clip) = (1.0, Some(0.1));
    let optim = OptimParams { steps: Some(steps), batch_size: BATCH, weight_decay, clip, ..Default::default() };
    let recipe = Recipe::new(&optim, IMAGES);
    let mut losses: Vec<[f64; 2]> = vec![];
    let (mut states, mut steepness) = (None, 0.0_f64);
    for step in 0..steps {
        let (batch, settings) = (task.batch(step, BATCH), recipe.settings(step));
        let reports = [&mut ours, &mut other].map(|network| network.train_step(batch.view(), 2, &settings));
        let [a, b] = reports;
        let (a, b) = (a?, b?);
        losses.push([f64::from(a.loss), f64::from(b.loss)]);
        if step < EARLY {
            steepness = largest([steepness, f64::from((a.gradient_norm / b.gradient_norm - 1.0).abs())]);
        }
        if step + 1 == steps.min(EARLY) {
            states = Some(largest([states_apart(&state, &ours.state(), &other.state()), steepness]));
        }
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
        states,
        losses: trained.then_some(apart),
        last: trained.then_some(last),
    })
}

/// Returns the largest distance between two training runs with the same initial state.
fn states_apart(start: &TrainState, a: &TrainState, b: &TrainState) -> f64 {
    let apart = |start: &[Vec<f32>], a: &[Vec<f32>], b: &[Vec<f32>]| {
        let (start, a, b) = (start.concat(), a.concat(), b.concat());
        norm_of(differences(&a, &b)) / norm_of(differences(&a, &start))
    };
    let weights = apart(&start.weights, &a.weights, &b.weights);
    let ema = apart(&start.ema, &a.ema, &b.ema);
    largest([weights, ema, apart(&start.first_moment, &a.first_moment, &b.first_moment)])
}

/// Returns the largest distance, or NaN if one is NaN: `f64::max` ignores NaN, and a backend that returns only NaN
/// would agree with every other.
fn largest(distances: impl IntoIterator<Item = f64>) -> f64 {
    distances.into_iter().fold(0.0, |most, distance| if distance.is_nan() || distance > most { distance } else { most })
}

fn norm(values: &[f32]) -> f64 {
    norm_of(values.iter().map(|value| f64::from(*value)))
}

fn norm_of(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

fn differences(a: &[f32], b: &[f32]) -> impl Iterator<Item = f64> {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::graph::NodeId;
    use crate::nn::{Batch, StepReport, StepSettings};

    #[test]
    fn a_backend_agrees_with_itself_but_not_with_another_network() {
        let network = &networks()[0];
        let fused = |graph: Graph, state: &TrainState| create_cpu_network(CpuBackend::Fused, graph, state);
        let same = agreement(network, 2, &fused).unwrap();
        assert_eq!((same.outputs, same.gradients, same.states, same.losses), (0.0, 0.0, Some(0.0), Some(0.0)));
        assert!(same.holds());
        let wrong = |graph: Graph, state: &TrainState| {
            let mut state = state.clone();
            state.weights[0][0] += 0.1;
            fused(graph, &state)
        };
        let other = agreement(network, 2, &wrong).unwrap();
        assert!(!other.holds() && other.gradients > GRADIENTS, "{other:?}");
        let not_a_number = |graph: Graph, state: &TrainState| {
            let mut state = state.clone();
            state.weights[0].fill(f32::NAN);
            state.ema[0].fill(f32::NAN);
            fused(graph, &state)
        };
        let none = agreement(network, 0, &not_a_number).unwrap();
        assert!(!none.holds() && none.outputs.is_nan() && none.gradients.is_nan(), "{none:?}");
    }

    /// A network whose steps differ from the requested ones.
    struct Off {
        network: Box<dyn Network>,
        change: fn(&mut StepSettings),
    }

    impl Network for Off {
        fn graph(&self) -> &Graph {
            self.network.graph()
        }

        fn predict_into(&self, weights: Weights, x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
            self.network.predict_into(weights, x, t, y)
        }

        fn gradients(&self, batch: Batch) -> Result<(f32, Vec<Vec<f32>>)> {
            self.network.gradients(batch)
        }

        fn train_step(&mut self, batch: Batch, micro_batches: usize, settings: &StepSettings) -> Result<StepReport> {
            let mut settings = *settings;
            (self.change)(&mut settings);
            self.network.train_step(batch, micro_batches, &settings)
        }

        fn values(&self, weights: Weights, x: &[f32], t: &[f32], nodes: &[NodeId]) -> Result<Vec<Vec<f32>>> {
            self.network.values(weights, x, t, nodes)
        }

        fn state(&self) -> TrainState {
            self.network.state()
        }

        fn set_state(&mut self, state: &TrainState) -> Result<()> {
            self.network.set_state(state)
        }
    }

    #[test]
    fn wrong_optimiser_settings_are_detected() {
        let changes: [fn(&mut StepSettings); 5] = [
            |settings| settings.clip = None,
            |settings| settings.weight_decay = 0.0,
            |settings| settings.ema_decay = 0.0,
            |settings| settings.betas[0] = 0.8,
            |settings| settings.lr *= 1.1,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let off = |graph: Graph, state: &TrainState| -> Result<Box<dyn Network>> {
                Ok(Box::new(Off { network: create_cpu_network(CpuBackend::Fused, graph, state)?, change }))
            };
            let found = agreement(&networks()[0], EARLY, &off).unwrap();
            assert!(!found.holds() && found.states > Some(2.0 * STATES), "change {i}: {found:?}");
        }
    }
}
