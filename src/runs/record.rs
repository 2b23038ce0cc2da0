//! The record of a run (`run.json`): what was run, where, and the state of each stage.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::study_look::StudyLook;
use crate::config::{ExecutorKind, StageKind};
use crate::store::seal::{Damage, Seal, seal_pretty, unseal};
use crate::store::{Key, json_float};

/// The content of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Set by [`Store::create_run`](crate::store::Store::create_run).
    pub id: String,
    pub pipeline: String,
    /// The pipeline file as given by the user; None for a built-in pipeline.
    pub file: Option<PathBuf>,
    pub state: RunState,
    /// RFC 3339.
    pub started_at: String,
    pub finished_at: Option<String>,
    pub seconds: Option<f64>,
    pub pid: u32,
    pub srpipe_version: String,
    /// The machine on which it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<HostInfo>,
    /// The executor of its stages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub executor: ExecutorKind,
    /// The command line.
    pub command: Vec<String>,
    /// In the order of the plan.
    pub stages: Vec<StageRecord>,
    /// What comparisons of earlier runs showed, of any pipeline, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_looks: Vec<StudyLook>,
}

impl RunRecord {
    /// Returns the number of stages in each state: `5 ran, 1 failed`.
    pub fn state_counts(&self) -> String {
        use StageRunState::*;
        let count = |state| self.stages.iter().filter(|stage| stage.state == state).count();
        let counts = [Ran, Cached, Running, Failed, Skipped, Interrupted, Pending].map(|state| (count(state), state));
        let describe = |(n, state): (usize, StageRunState)| match state {
            Pending => format!("{n} to do"),
            state => format!("{n} {}", state.name()),
        };
        counts.into_iter().filter(|(n, _)| *n > 0).map(describe).collect::<Vec<_>>().join(", ")
    }

    /// Returns the sealed JSON for `run.json`.
    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        seal_pretty(self).context("writing the record of a run as JSON")
    }

    /// Whether jobs of the run may continue although no process watches them. Assumes that no process holds the run's
    /// lock.
    pub fn may_have_unwatched_jobs(&self) -> bool {
        self.state == RunState::Running && self.executor.outlives_run()
    }

    /// Parses the JSON of a `run.json`, from a store or an archive.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, Damage> {
        let (record, seal): (Self, Seal) = unseal(bytes)?;
        if seal == Seal::None && !crate::store::predates_seals(&record.srpipe_version) {
            return Err(Damage::new("the checksum is missing"));
        }
        Ok(record)
    }
}

fn is_default(executor: &ExecutorKind) -> bool {
    *executor == ExecutorKind::default()
}

/// A description of the machine of a run, to interpret running times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    pub host: String,
    /// Operating system and architecture.
    pub system: String,
    /// Empty if unknown.
    pub processor: String,
    pub cores: usize,
    /// Bytes.
    pub memory: Option<u64>,
}

impl fmt::Display for HostInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {} cores", self.host, self.system, self.cores)?;
        if !self.processor.is_empty() {
            write!(f, " of {}", self.processor)?;
        }
        match self.memory {
            Some(bytes) => write!(f, ", {:.1} GB", bytes as f64 / 1e9),
            None => Ok(()),
        }
    }
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Running, or its process was killed.
    Running,
    Ok,
    Failed,
    Interrupted,
}

/// The record of a stage in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    pub name: String,
    pub kind: StageKind,
    /// None until the inputs are cached.
    pub key: Option<Key>,
    pub state: StageRunState,
    /// The running time; for a cached stage, the time of its original run.
    pub seconds: Option<f64>,
    #[serde(with = "json_float")]
    pub metrics: BTreeMap<String, f64>,
    pub error: Option<String>,
    /// Its job, if it runs on a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRecord>,
}

/// A stage's job on a cluster, with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    pub id: String,
    /// The reason why it is queued, as reported by the cluster; None if it is not queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Set if the job was not found in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

/// When a job was first missing from the queue, and its last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub since: String,
    pub beat: Option<String>,
}

impl JobRecord {
    pub fn queued(id: &str, reason: &str) -> Self {
        Self { queued: Some(reason.to_string()), ..Self::absent(id) }
    }

    pub fn running(id: &str, node: &str) -> Self {
        Self { node: Some(node.to_string()), ..Self::absent(id) }
    }

    /// Creates the record of a job that is not in the queue.
    pub fn absent(id: &str) -> Self {
        Self { id: id.to_string(), queued: None, node: None, gone: None }
    }
}

impl fmt::Display for JobRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.queued, &self.node) {
            (Some(reason), _) => write!(f, "job {} is queued ({reason})", self.id),
            (_, Some(node)) => write!(f, "job {} is on {node}", self.id),
            _ => write!(f, "job {} is not in the queue", self.id),
        }
    }
}

/// The state of a stage in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageRunState {
    Pending,
    Running,
    /// It ran successfully.
    Ran,
    /// Its result was cached.
    Cached,
    Failed,
    /// A stage that it depends on failed.
    Skipped,
    /// It was stopped after saving its progress.
    Interrupted,
}

impl StageRunState {
    /// Returns the name of the state, as it is serialised and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Ran => "ran",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StageRunState::*;

    #[test]
    fn stage_states_are_serialised_as_their_names() {
        for state in [Pending, Running, Ran, Cached, Failed, Skipped, Interrupted] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
