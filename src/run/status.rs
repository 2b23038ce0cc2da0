//! The status of a stage in a run, and why stages fail.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Retry;
use crate::runs::StageRunState as Recorded;

/// The status of a stage in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// The stage waits for inputs or for resources.
    Pending,
    /// Its process is running.
    Running,
    /// Its process waits for a lock, or its job waits in a queue.
    Blocked {
        why: String,
    },
    /// Its result was in the store, or another run computed it in the meantime.
    Cached,
    Ran {
        seconds: f64,
    },
    Failed(Failure),
    /// It depends on `because`, which failed or was skipped; None if the run was interrupted before the stage started.
    Skipped {
        because: Option<String>,
    },
    /// It was stopped on request, and its progress is saved.
    Interrupted,
}

/// Why a stage failed. The stage's `retry` gives the number of retries for each cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its process was killed from outside srpipe, or vanished.
    Lost,
    /// It needed more memory than it requested or than was available.
    OutOfMemory,
    /// It reported an error or crashed.
    Failed,
    /// It exceeded its time limit.
    Time,
    /// The node that it ran on failed.
    NodeFailure,
    /// Another job preempted it.
    Preempted,
    /// It was cancelled, so it is not retried.
    Cancelled,
}

impl Cause {
    pub(super) fn retries(self, retry: &Retry) -> usize {
        match self {
            Self::Lost | Self::NodeFailure | Self::Preempted => retry.lost,
            Self::Cancelled => 0,
            Self::OutOfMemory => retry.out_of_memory,
            Self::Failed => retry.failed,
            Self::Time => retry.time,
        }
    }
}

/// Why a stage failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub cause: Cause,
    pub error: String,
    pub log: PathBuf,
    /// The log's last lines, without the error itself.
    pub tail: Vec<String>,
}

impl Status {
    /// Whether a stage may change from this status to `next`.
    pub(super) fn may_become(&self, next: &Status) -> bool {
        use Status::*;
        match (self, next) {
            (Pending, Cached | Running | Blocked { .. } | Failed(_) | Skipped { .. }) => true,
            (Running | Blocked { .. }, Blocked { .. }) | (Blocked { .. }, Running) => true,
            (Running | Blocked { .. }, Cached | Ran { .. } | Failed(_) | Interrupted) => true,
            // A retry; or a damaged blob was found, so its producers run again and the stages that read it wait.
            (Running | Blocked { .. } | Cached | Ran { .. }, Pending) => true,
            _ => false,
        }
    }

    /// Whether a process or job of the stage exists.
    pub(super) fn is_active(&self) -> bool {
        matches!(self, Self::Running | Self::Blocked { .. })
    }

    /// Whether stages that depend on it can never run.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Skipped { .. } | Self::Interrupted)
    }

    /// Returns the state for the record of the run.
    pub fn recorded(&self) -> Recorded {
        match self {
            Self::Pending => Recorded::Pending,
            Self::Running | Self::Blocked { .. } => Recorded::Running,
            Self::Cached => Recorded::Cached,
            Self::Ran { .. } => Recorded::Ran,
            Self::Failed(_) => Recorded::Failed,
            Self::Skipped { .. } => Recorded::Skipped,
            Self::Interrupted => Recorded::Interrupted,
        }
    }
}
