//! The state of a run as an observer determines it from the record and the lock.

use anyhow::Result;

use super::{RunDir, RunRecord, RunState};
use crate::store::Store;

/// The record and the state of a run.
#[derive(Debug, Clone)]
pub struct RunView {
    pub record: RunRecord,
    pub state: ViewState,
}

/// The state of a run as an observer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewState {
    Running,
    Ok,
    Failed,
    Interrupted,
    /// Its process has exited, but its jobs on a cluster may continue.
    Unwatched,
    /// Its process was killed.
    Died,
}

impl ViewState {
    /// Returns the name of the state in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Unwatched => "left",
            Self::Died => "died",
        }
    }

    /// Returns the name of the state in text.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unwatched => "running on the cluster",
            state => state.name(),
        }
    }
}

impl RunView {
    /// Returns `None` if the record cannot be read.
    pub fn of(run: &RunDir) -> Option<Self> {
        Self::read(run).ok()
    }

    /// Reads the record and determines the state.
    pub fn read(run: &RunDir) -> Result<Self> {
        let before = run.record()?;
        let live = run.is_live();
        // It may have ended between the two reads; the record is written before the lock is released.
        let record = if live { before } else { run.record()? };
        let state = match record.state {
            RunState::Running if live => ViewState::Running,
            RunState::Running if record.may_have_unwatched_jobs() => ViewState::Unwatched,
            RunState::Running => ViewState::Died,
            RunState::Ok => ViewState::Ok,
            RunState::Failed => ViewState::Failed,
            RunState::Interrupted => ViewState::Interrupted,
        };
        Ok(Self { record, state })
    }

    /// Returns the newest run of a pipeline.
    pub fn latest(store: &Store, pipeline: &str) -> Option<Self> {
        Self::of(&store.latest_run(pipeline)?)
    }
}
