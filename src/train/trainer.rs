//! The loop. It knows neither what is trained nor on what.

use anyhow::{Result, ensure};

use super::{LossLog, Recipe, Task};
use crate::nn::Network;

/// What is told after every step.
pub struct Tick<'a> {
    /// Steps taken, of all.
    pub step: u64,
    pub steps: u64,
    pub loss: f64,
    pub network: &'a dyn Network,
    pub log: &'a LossLog,
}

/// Takes the steps from `step` to the recipe's last, measuring the held-out loss every `every` steps, at the start and
/// at the end. `after` hears of every step and ends the training by an error of its own.
pub fn train(
    network: &mut dyn Network,
    task: &Task,
    recipe: &Recipe,
    every: u64,
    (start, log): (u64, &mut LossLog),
    mut after: impl FnMut(Tick) -> Result<()>,
) -> Result<()> {
    if log.is_empty() {
        log.row(0, task.heldout_loss(network)?);
    }
    let steps = recipe.steps();
    for step in start..steps {
        let settings = recipe.settings(step);
        let batch = task.batch(step, recipe.batch_size());
        let report = network.train_step(batch.view(), &settings)?;
        ensure!(
            report.loss.is_finite() && report.gradient_norm.is_finite(),
            "the training diverged at step {}: the loss is {}, the gradients' norm {}; try a lower optim.lr, a longer \
             optim.warmup or a smaller optim.clip",
            step + 1,
            report.loss,
            report.gradient_norm
        );
        log.record(report, settings.lr);
        let done = step + 1;
        if done % every == 0 || done == steps {
            log.row(done, task.heldout_loss(network)?);
        }
        after(Tick { step: done, steps, loss: report.loss as f64, network, log })?;
    }
    Ok(())
}
