//! The training loop: optimiser steps, regular measurements, and the detection of divergence.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{LossLog, Recipe, Task};
use crate::nn::Network;

/// Training has diverged if the validation loss exceeds both the first one and that of a network that always outputs 0
/// by this factor.
const DIVERGENCE_FACTOR: f64 = 10.0;
/// A smaller validation loss does not count as divergence, however small the first one was: targets are in about the
/// range [-1, 1]. Adam's steps do not shrink with the gradients, so a loss near 0, as for constant images, rises at
/// first.
const MIN_DIVERGED_LOSS: f64 = 1.0;
const REMEDY: &str = "try a lower optim.lr, a longer optim.warmup or a smaller optim.clip";

/// The progress of a training run after a step.
pub struct Progress<'a> {
    /// The number of completed steps.
    pub step: u64,
    /// The total number of steps.
    pub steps: u64,
    /// The training loss of the step.
    pub loss: f64,
    /// How long the loop waited for the next batch after the network had finished the step.
    pub waited: Duration,
    pub network: &'a dyn Network,
    pub log: &'a LossLog,
}

/// Trains from step `start` to the recipe's last step. Measures the validation loss before the first step, every
/// `val_interval` steps, and after the last step. Calls `after_step` after every step; its error ends the training.
pub fn train(
    network: &mut dyn Network,
    task: &Task,
    recipe: &Recipe,
    val_interval: u64,
    (start, log): (u64, &mut LossLog),
    mut after_step: impl FnMut(Progress) -> Result<()>,
) -> Result<()> {
    let power = task.target_power(recipe.batch_size());
    if log.is_empty() {
        validate(network, task, power, 0, log)?;
    }
    let steps = recipe.steps();
    let batch_of = |step: u64| (step < steps).then(|| task.batch(step, recipe.batch_size()));
    let mut batch = batch_of(start);
    for step in start..steps {
        let settings = recipe.settings(step);
        let current = batch.take().expect("every step has a batch");
        // Prepare the next batch on threads that would otherwise wait for the network.
        let (report, finished) = rayon::in_place_scope(|scope| {
            scope.spawn(|_| batch = batch_of(step + 1));
            let report = network.train_step(current.view(), recipe.micro_batches(), &settings);
            (report, Instant::now())
        });
        let (report, waited) = (report?, finished.elapsed());
        ensure!(
            report.loss.is_finite() && report.gradient_norm.is_finite(),
            "the training diverged at step {}: the loss is {} and the norm of the gradients is {}; {REMEDY}",
            step + 1,
            report.loss,
            report.gradient_norm
        );
        log.record(report, settings.lr);
        let done = step + 1;
        if done % val_interval == 0 || done == steps {
            validate(network, task, power, done, log)?;
        }
        after_step(Progress { step: done, steps, loss: report.loss as f64, waited, network, log })?;
    }
    Ok(())
}

/// Logs the validation loss and the statistics of the probed layers after `step` steps. Fails if the loss shows that
/// training has diverged. `power`: see [`Task::target_power`].
fn validate(network: &dyn Network, task: &Task, power: f64, step: u64, log: &mut LossLog) -> Result<()> {
    let loss = task.val_loss(network)?;
    let first = log.first_val_loss().unwrap_or(loss);
    // The first loss alone is not a valid reference: it is 0 if all validation images are constant and the network
    // initially outputs 0.
    ensure!(
        loss.is_finite() && loss <= (DIVERGENCE_FACTOR * first.max(power)).max(MIN_DIVERGED_LOSS),
        "the training diverged: the validation loss was {first} before the first step and is {loss} after step {step}; \
         {REMEDY}"
    );
    log.push_row(step, loss);
    log.push_layers(task.probe_layers(network, step)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Pairs, Snapshot, initial_state};
    use super::*;
    use crate::config::Device;
    use crate::config::*;
    use crate::data::{Images, resample};
    use crate::model::unet;
    use crate::nn;

    fn pairs(count: usize) -> Pairs {
        let pixel = |i: usize| (i / 3072 * 50 + i / 96 % 32 * 5 + i / 3 % 32 * 11 % 160 + i % 3 * 20) as u8;
        let hr = Images::new(count, 32, 32, (0..count * 3072).map(pixel).collect());
        let lr = resample::degrade(&hr, 4, DegradeMethod::Area).unwrap();
        Pairs::new(hr, lr).unwrap()
    }

    fn task(objective: PredictionType) -> Task {
        Task::new(pairs(5), pairs(3), &DiffusionParams { objective, ..Default::default() }, true, 3, 7)
    }

    fn optim(steps: u64) -> OptimParams {
        OptimParams { steps: Some(steps), batch_size: 2, lr: 3e-3, ..Default::default() }
    }

    fn graph() -> nn::Graph {
        unet(&ModelParams::tutorial(4, AttentionKind::Sagan), 32, 4)
    }

    /// Trains from `snapshot` or from the start; with `stop`, an error after this step ends the training.
    fn run(task: &Task, steps: u64, snapshot: Option<Snapshot>, stop: Option<u64>) -> Snapshot {
        let graph = graph();
        let start = Snapshot { state: initial_state(&graph, 7), log: LossLog::default() };
        let Snapshot { state, mut log } = snapshot.unwrap_or(start);
        let mut network = nn::create_network(Device::Cpu, graph, &state).unwrap();
        let recipe = Recipe::new(&optim(steps), 5);
        let result = train(network.as_mut(), task, &recipe, 2, (state.step, &mut log), |progress| {
            ensure!(Some(progress.step) != stop, "stop");
            Ok(())
        });
        assert_eq!(result.is_err(), stop.is_some());
        Snapshot { state: network.state(), log }
    }

    #[test]
    fn resumed_training_gives_identical_weights() {
        let task = task(PredictionType::V);
        let whole = run(&task, 5, None, None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let graph = graph();
        assert_eq!(Snapshot::load(&graph, &path).unwrap(), None);
        let mut snapshot = None;
        for stop in [1, 3, 4] {
            run(&task, 5, snapshot, Some(stop)).save(&graph, &path).unwrap();
            snapshot = Snapshot::load(&graph, &path).unwrap();
            assert!(snapshot.is_some());
        }
        let resumed = run(&task, 5, snapshot, None);
        assert_eq!(resumed, whole);
        assert_eq!(whole.log.to_csv(1).unwrap(), resumed.log.to_csv(1).unwrap());
    }

    #[test]
    fn training_reduces_the_loss_of_every_prediction_type() {
        for prediction_type in [PredictionType::V, PredictionType::Eps, PredictionType::X0, PredictionType::Regression]
        {
            let task = task(prediction_type);
            let log = run(&task, 30, None, None).log;
            let csv = String::from_utf8(log.to_csv(1).unwrap()).unwrap();
            let validation = |line: &str| line.split(',').nth(2).unwrap().parse::<f64>().unwrap();
            let (first, last) = (validation(csv.lines().nth(1).unwrap()), validation(csv.lines().last().unwrap()));
            assert!(last < 0.95 * first, "{prediction_type:?}: {first} to {last}");
        }
    }

    #[test]
    fn an_exploding_loss_stops_training() {
        let task = task(PredictionType::V);
        let graph = graph();
        let mut network = nn::create_network(Device::Cpu, graph.clone(), &initial_state(&graph, 7)).unwrap();
        let recipe = Recipe::new(&OptimParams { lr: 10.0, clip: None, warmup: 0.0, ema: 0.0, ..optim(4) }, 5);
        let error = train(network.as_mut(), &task, &recipe, 2, (0, &mut LossLog::default()), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("diverged") && error.to_string().contains("optim.lr"), "{error}");
    }

    #[test]
    fn a_loss_that_is_not_finite_is_an_error_that_suggests_remedies() {
        let task = task(PredictionType::V);
        let graph = graph();
        let mut state = initial_state(&graph, 7);
        state.weights[0][0] = f32::NAN;
        let mut network = nn::create_network(Device::Cpu, graph, &state).unwrap();
        let recipe = Recipe::new(&optim(1), 5);
        let mut log = LossLog::default();
        let error = train(network.as_mut(), &task, &recipe, 2, (0, &mut log), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("diverged at step 1") && error.to_string().contains("optim.lr"), "{error}");
    }
}
