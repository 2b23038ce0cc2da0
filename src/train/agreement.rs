//! Measures how closely a backend agrees with the CPU kernels.

use anyhow::Result;
use serde::Serialize;

use super::{Pairs, Recipe, Task, initial_state};
use crate::config::{
    AttentionKind, AttentionParams, DegradeMethod, DiffusionParams, LossWeighting, ModelParams, OptimParams,
    PredictionType, Weights,
};
use crate::data::Split;
use crate::data::resample::degrade;
use crate::data::synthetic::generate;
use crate::model::unet;
use crate::nn::{CpuBackend, Graph, Network, TrainState, create_cpu_network};

/// The maximum difference between two outputs.
pub const MAX_OUTPUT_DIFFERENCE: f64 = 1e-4;
/// The maximum relative difference between two gradients of a parameter: the norm of the difference, divided by the
/// norm.
pub const MAX_GRADIENT_DIFFERENCE: f64 = 1e-3;
/// The maximum relative difference between two training runs after a few steps, in the changes of the weights, of their
/// moving average and of Adam's first moment, and in the gradient norms.
pub const MAX_STATE_DIFFERENCE: f64 = 2e-3;
/// The maximum relative difference between the losses of two training runs: the mean difference, divided by the mean
/// loss. Rounding errors grow during training.
pub const MAX_LOSS_DIFFERENCE: f64 = 2e-2;

const IMAGES: usize = 64;
const BATCH: usize = 8;
const SCALE: usize = 4;
/// The number of steps after which the states are compared: few, so that rounding errors have not grown yet.
const EARLY_STEPS: u64 = 10;

/// The differences between a backend and the CPU kernels, for one network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    pub network: String,
    /// See [`MAX_OUTPUT_DIFFERENCE`].
    pub outputs: f64,
    /// See [`MAX_GRADIENT_DIFFERENCE`].
    pub gradients: f64,
    /// See [`MAX_STATE_DIFFERENCE`]. This and the following fields are `None` if no training was requested.
    pub states: Option<f64>,
    /// See [`MAX_LOSS_DIFFERENCE`].
    pub losses: Option<f64>,
    /// The mean loss over the last tenth of the steps, on the CPU kernels and on the other backend.
    pub last: Option<[f64; 2]>,
}

impl Agreement {
    /// Returns whether all differences are below their maxima.
    pub fn is_within_bounds(&self) -> bool {
        self.outputs < MAX_OUTPUT_DIFFERENCE
            && self.gradients < MAX_GRADIENT_DIFFERENCE
            && self.states.is_none_or(|states| states < MAX_STATE_DIFFERENCE)
            && self.losses.is_none_or(|losses| losses < MAX_LOSS_DIFFERENCE)
    }
}

/// Returns networks with every kind of block, time embedding and attention, each with a name and a prediction type.
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

/// A function that creates a network on the backend to compare.
type CreateNetwork<'a> = dyn Fn(Graph, &TrainState) -> Result<Box<dyn Network>> + 'a;

/// Compares a network created by `create` with the same network on the CPU kernels: one output, the gradients of one
/// batch, and `steps` training steps with two micro-batches each.
pub fn agreement(
    (name, model, prediction_type): &(&str, ModelParams, PredictionType),
    steps: u64,
    create: &CreateNetwork,
) -> Result<Agreement> {
    let pairs = |split| -> Result<Pairs> {
        let hr = generate(0, split, IMAGES);
        let lr = degrade(&hr, SCALE, DegradeMethod::Area)?;
        Pairs::new(hr, lr)
    };
    // With `MinSnr`, loss weights differ between images.
    let diffusion =
        DiffusionParams { objective: *prediction_type, loss_weighting: LossWeighting::MinSnr, ..Default::default() };
    let task = Task::new(pairs(Split::Train)?, pairs(Split::Validation)?, &diffusion, true, 1, 1);
    let graph = unet(model, generate(0, Split::Test, 1).height, SCALE);
    let state = initial_state(&graph, 1);
    let mut ours = create_cpu_network(CpuBackend::Fused, graph.clone(), &state)?;
    let mut other = create(graph, &state)?;

    let batch = task.batch(0, BATCH);
    let outputs = |network: &dyn Network| network.predict(Weights::Ema, batch.view().x, batch.view().t);
    let outputs = largest(differences(&outputs(&*ours)?, &outputs(&*other)?).map(f64::abs));
    let ((_, expected), (_, found)) = (ours.gradients(batch.view())?, other.gradients(batch.view())?);
    // A sum of many terms that cancel is only as accurate as its terms, so small gradients are compared with the
    // largest.
    let max_norm = expected.iter().map(|g| norm(g)).fold(0.0, f64::max);
    let difference = |(a, b): (&Vec<f32>, &Vec<f32>)| norm_of(differences(a, b)) / norm(a).max(1e-2 * max_norm);
    let gradients = largest(expected.iter().zip(&found).map(difference));

    // Strong enough that a backend that ignores one of them is detected.
    let (weight_decay, clip) = (1.0, Some(0.1));
    let optim = OptimParams { steps: Some(steps), batch_size: BATCH, weight_decay, clip, ..Default::default() };
    let recipe = Recipe::new(&optim, IMAGES);
    let mut losses: Vec<[f64; 2]> = vec![];
    let (mut states, mut norm_difference) = (None, 0.0_f64);
    for step in 0..steps {
        let (batch, settings) = (task.batch(step, BATCH), recipe.settings(step));
        let reports = [&mut ours, &mut other].map(|network| network.train_step(batch.view(), 2, &settings));
        let [a, b] = reports;
        let (a, b) = (a?, b?);
        losses.push([f64::from(a.loss), f64::from(b.loss)]);
        if step < EARLY_STEPS {
            norm_difference = largest([norm_difference, f64::from((a.gradient_norm / b.gradient_norm - 1.0).abs())]);
        }
        if step + 1 == steps.min(EARLY_STEPS) {
            let difference = state_difference(&state, &ours.state(), &other.state());
            states = Some(largest([difference, norm_difference]));
        }
    }
    let mean = |values: &mut dyn ExactSizeIterator<Item = f64>| {
        let n = values.len() as f64;
        values.sum::<f64>() / n
    };
    let loss_difference =
        mean(&mut losses.iter().map(|[a, b]| (a - b).abs())) / mean(&mut losses.iter().map(|[a, _]| *a));
    let end = &losses[losses.len() - losses.len().div_ceil(10)..];
    let last = [0, 1].map(|i| mean(&mut end.iter().map(|pair| pair[i])));
    let has_trained = steps > 0;
    Ok(Agreement {
        network: name.to_string(),
        outputs,
        gradients,
        states,
        losses: has_trained.then_some(loss_difference),
        last: has_trained.then_some(last),
    })
}

/// Returns the largest relative difference between two training runs that began with the state `start`.
fn state_difference(start: &TrainState, a: &TrainState, b: &TrainState) -> f64 {
    let difference = |start: &[Vec<f32>], a: &[Vec<f32>], b: &[Vec<f32>]| {
        let (start, a, b) = (start.concat(), a.concat(), b.concat());
        norm_of(differences(&a, &b)) / norm_of(differences(&a, &start))
    };
    let weights = difference(&start.weights, &a.weights, &b.weights);
    let ema = difference(&start.ema, &a.ema, &b.ema);
    largest([weights, ema, difference(&start.first_moment, &a.first_moment, &b.first_moment)])
}

/// Returns the largest difference, or NaN if one is NaN. With `f64::max`, which ignores NaN, a backend that returns
/// only NaN would agree with every other.
fn largest(differences: impl IntoIterator<Item = f64>) -> f64 {
    differences.into_iter().fold(0.0, |max, value| if value.is_nan() || value > max { value } else { max })
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
        assert!(same.is_within_bounds());
        let wrong = |graph: Graph, state: &TrainState| {
            let mut state = state.clone();
            state.weights[0][0] += 0.1;
            fused(graph, &state)
        };
        let other = agreement(network, 2, &wrong).unwrap();
        assert!(!other.is_within_bounds() && other.gradients > MAX_GRADIENT_DIFFERENCE, "{other:?}");
        let not_a_number = |graph: Graph, state: &TrainState| {
            let mut state = state.clone();
            state.weights[0].fill(f32::NAN);
            state.ema[0].fill(f32::NAN);
            fused(graph, &state)
        };
        let nan = agreement(network, 0, &not_a_number).unwrap();
        assert!(!nan.is_within_bounds() && nan.outputs.is_nan() && nan.gradients.is_nan(), "{nan:?}");
    }

    /// A network that changes the settings of every step.
    struct WithOtherSettings {
        network: Box<dyn Network>,
        change: fn(&mut StepSettings),
    }

    impl Network for WithOtherSettings {
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
            let create = |graph: Graph, state: &TrainState| -> Result<Box<dyn Network>> {
                Ok(Box::new(WithOtherSettings {
                    network: create_cpu_network(CpuBackend::Fused, graph, state)?,
                    change,
                }))
            };
            let found = agreement(&networks()[0], EARLY_STEPS, &create).unwrap();
            assert!(
                !found.is_within_bounds() && found.states > Some(2.0 * MAX_STATE_DIFFERENCE),
                "change {i}: {found:?}"
            );
        }
    }
}
