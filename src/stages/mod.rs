//! One file a stage kind: reads typed parameters and input artifacts, writes output artifacts.
//!
//! A stage runs in a process of its own. It reports through [`Context::report`] and never prints.

pub mod compare;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::store::{Artifact, Store};

/// What a stage tells while it runs; one line of `events.jsonl` each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StageEvent {
    /// `done` of `total` in `unit` (steps, images, bytes), with what is worth watching: `loss`, `images_per_s`.
    Progress { done: u64, total: u64, unit: String, values: BTreeMap<String, f64> },
    /// A sentence for the log.
    Message { text: String },
}

/// What a stage gets from whoever runs it.
pub struct Context<'a> {
    pub store: &'a Store,
    /// The artifact of each input, by role.
    pub inputs: BTreeMap<String, Artifact>,
    /// For stages that draw random numbers.
    pub seed: u64,
    pub device: crate::pipeline::Device,
    /// A folder of the stage's own that survives an interruption; gone when the stage is done.
    pub work: PathBuf,
    pub report: &'a (dyn Fn(StageEvent) + Sync),
    /// Becomes true when the stage should save what it has and return [`Interrupted`].
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
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
