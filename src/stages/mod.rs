//! One file per stage kind: reads typed parameters and input artifacts, writes output artifacts.
//!
//! A stage runs in a process of its own. It reports through [`Context::report`] and never prints.
//!
pub mod command;
pub mod compare;
pub mod degrade;
pub mod fetch;
mod metrics_file;
pub mod processes;
mod sample;
#[cfg(test)]
mod testing;
mod train;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::config::StageParams;
use crate::data::Images;
use crate::store::{Artifact, Digest, Store, json_float};

/// What a stage tells while it runs; one line of `events.jsonl` each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StageEvent {
    /// `done` of `total` in `unit` (steps, images, bytes), with what is worth watching: `loss`, `images_per_s`.
    Progress {
        done: u64,
        total: u64,
        unit: String,
        #[serde(with = "json_float")]
        values: BTreeMap<String, f64>,
    },
    /// A sentence for the log.
    Message { text: String },
}

/// What a stage gets from whoever runs it.
pub struct Context<'a> {
    pub store: &'a Store,
    /// The artifact of each input, by role.
    pub inputs: BTreeMap<String, Artifact>,
    /// Digests of content from outside, as the stage's key has them.
    pub sources: BTreeMap<String, Digest>,
    /// For stages that draw random numbers.
    pub seed: u64,
    pub threads: usize,
    /// What the stage may see of the graphics cards, as `CUDA_VISIBLE_DEVICES` has it.
    pub gpus: String,
    pub device: crate::config::Device,
    /// How many times fewer images than the parameters say go through a network at a time, where memory was short.
    pub split: usize,
    /// A folder of the stage's own that survives an interruption; gone when the stage is done.
    pub work: PathBuf,
    pub report: &'a (dyn Fn(StageEvent) + Sync),
    /// Becomes true when the stage should save what it has and return [`Interrupted`].
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// The srpipe binary, whose `launch` command supervises a stage's program; see [`processes`].
    pub launcher: Option<PathBuf>,
}

/// What a stage made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub outputs: Artifact,
    /// Figures worth a column in `status`; unlike the outputs they may differ from run to run.
    pub metrics: BTreeMap<String, f64>,
}

/// The error of a stage that stopped because it was asked to, its progress saved.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted; progress is saved")
    }
}

impl std::error::Error for Interrupted {}

/// Runs a stage. Its error is [`Interrupted`] where it was asked to stop.
pub fn execute(params: &StageParams, ctx: &Context) -> anyhow::Result<Outcome> {
    let outcome = match params {
        StageParams::Fetch(p) => fetch::run(p, ctx),
        StageParams::Degrade(p) => degrade::run(p, ctx),
        StageParams::Train(p) => train::run(p, ctx),
        StageParams::Sample(p) => sample::run(p, ctx),
        StageParams::Compare(p) => compare::run(p, ctx),
        // The metrics of a command may be infinite; the program decides.
        StageParams::Command(p) => return command::run(p, ctx),
    }?;
    ensure_finite(&outcome.metrics)?;
    Ok(outcome)
}

fn ensure_finite(metrics: &BTreeMap<String, f64>) -> anyhow::Result<()> {
    let wrong = metrics.iter().find(|(_, value)| !value.is_finite());
    wrong.map_or(Ok(()), |(name, value)| Err(anyhow::anyhow!("the metric {name} is {value}, not a finite number")))
}

/// The digest of the blob `name` of the input `role`.
fn input<'a>(ctx: &'a Context, role: &str, name: &str) -> anyhow::Result<&'a Digest> {
    let artifact = ctx.inputs.get(role).with_context(|| format!("the stage has no input `{role}`"))?;
    artifact.get(name).with_context(|| format!("the input `{role}` has no blob {name}"))
}

/// The images in the blob `name` of the input `role`.
fn read_images(ctx: &Context, role: &str, name: &str) -> anyhow::Result<Images> {
    let bytes = ctx.store.read(input(ctx, role, name)?).with_context(|| format!("reading {name} of `{role}`"))?;
    Ok(Images::from_safetensors(&bytes).with_context(|| format!("reading {name} of `{role}`"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_non_finite_metric_is_an_error() {
        let metrics = |value| BTreeMap::from([("a".to_string(), 1.0), ("psnr".to_string(), value)]);
        assert!(ensure_finite(&metrics(-3.0)).is_ok());
        for wrong in [f64::NAN, f64::INFINITY] {
            let error = ensure_finite(&metrics(wrong)).unwrap_err().to_string();
            assert!(error.contains(&format!("psnr is {wrong}")), "{error}");
        }
    }

    #[test]
    fn an_event_tells_of_a_loss_that_is_no_number() {
        let values = BTreeMap::from([("loss".to_string(), f64::INFINITY)]);
        let event = StageEvent::Progress { done: 1, total: 2, unit: "steps".to_string(), values };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<StageEvent>(&line).unwrap(), event);
    }
}
