//! One file or folder per stage kind: reads typed parameters and input artifacts, writes output artifacts.
//!
//! Each stage runs in its own process. It reports through [`Context::report`] and never prints.

pub mod command;
pub mod compare;
pub mod degrade;
pub mod fetch;
mod metrics_file;
pub mod processes;
mod sample;
mod select;
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

/// An event emitted by a running stage; serialised as one line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StageEvent {
    /// Progress: `done` of `total` in `unit` (steps, images, bytes), with live values such as `loss` and
    /// `images_per_s`.
    Progress {
        done: u64,
        total: u64,
        unit: String,
        #[serde(with = "json_float")]
        values: BTreeMap<String, f64>,
    },
    /// A log message.
    Message { text: String },
}

/// The environment of a running stage.
pub struct Context<'a> {
    pub store: &'a Store,
    /// The input artifacts by role.
    pub inputs: BTreeMap<String, Artifact>,
    /// Digests of external content, as used in the stage's key.
    pub sources: BTreeMap<String, Digest>,
    /// The seed of the stage's random numbers.
    pub seed: u64,
    pub threads: usize,
    /// The graphics cards visible to the stage, in the format of `CUDA_VISIBLE_DEVICES`.
    pub gpus: String,
    pub device: crate::config::Device,
    /// The number by which to divide the number of images per network call, after running out of memory.
    pub batch_divisor: usize,
    /// The stage's work folder, which survives interruptions and is deleted when the stage is done.
    pub work: PathBuf,
    pub report: &'a (dyn Fn(StageEvent) + Sync),
    /// Becomes true when the stage should save its progress and return [`Interrupted`].
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// The srpipe binary, whose `launch` command supervises a stage's program; see [`processes`].
    pub launcher: Option<PathBuf>,
}

/// The result of a stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub outputs: Artifact,
    /// Metrics for `srpipe status`; unlike the outputs, they may differ between runs.
    pub metrics: BTreeMap<String, f64>,
}

/// The error of a stage that saved its progress and stopped on request.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted; progress is saved")
    }
}

impl std::error::Error for Interrupted {}

/// Runs a stage. Returns the error [`Interrupted`] if it stopped on request.
pub fn execute(params: &StageParams, ctx: &Context) -> anyhow::Result<Outcome> {
    let outcome = match params {
        StageParams::Fetch(p) => fetch::run(p, ctx),
        StageParams::Degrade(p) => degrade::run(p, ctx),
        StageParams::Train(p) => train::run(p, ctx),
        StageParams::Sample(p) => sample::run(p, ctx),
        StageParams::Select(p) => select::run(p, ctx),
        StageParams::Compare(p) => compare::run(p, ctx),
        // The metrics of a command may be infinite; that is up to the program.
        StageParams::Command(p) => return command::run(p, ctx),
    }?;
    ensure_finite(&outcome.metrics)?;
    Ok(outcome)
}

fn ensure_finite(metrics: &BTreeMap<String, f64>) -> anyhow::Result<()> {
    let wrong = metrics.iter().find(|(_, value)| !value.is_finite());
    wrong.map_or(Ok(()), |(name, value)| Err(anyhow::anyhow!("the metric {name} is {value}, not a finite number")))
}

/// Returns the digest of the blob `name` of the input `role`.
fn input<'a>(ctx: &'a Context, role: &str, name: &str) -> anyhow::Result<&'a Digest> {
    let artifact = ctx.inputs.get(role).with_context(|| format!("the stage has no input `{role}`"))?;
    artifact.get(name).with_context(|| format!("the input `{role}` has no blob {name}"))
}

/// Reads the images in the blob `name` of the input `role`.
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
    fn an_event_with_a_non_finite_value_round_trips() {
        let values = BTreeMap::from([("loss".to_string(), f64::INFINITY)]);
        let event = StageEvent::Progress { done: 1, total: 2, unit: "steps".to_string(), values };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<StageEvent>(&line).unwrap(), event);
    }
}
