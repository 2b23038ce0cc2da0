//! Where a stage of a run stands.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Retry;
use crate::runs::StageRunState as Recorded;

/// Where a stage of a run stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// Waits for inputs or for a place.
    Pending,
    /// Its process works.
    Running,
    /// Its process waits, or it waits itself for a place on a cluster.
    Blocked {
        why: String,
    },
    /// Its result was there, or another run made it meanwhile.
    Cached,
    Ran {
        seconds: f64,
    },
    Failed(Failure),
    /// Needs the result of `because`, which failed or was itself skipped; or the run was interrupted before its turn.
    Skipped {
        because: Option<String>,
    },
    /// Stopped on request, its progress saved.
    Interrupted,
}

/// What ended a stage badly; each is tried again as often as the stage's `retry` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its process was killed from outside, or vanished.
    Lost,
    /// It took more memory than it asked for, or than there was.
    OutOfMemory,
    /// It said itself that it failed, or crashed.
    Failed,
    /// It took longer than it asked for.
    Time,
    /// The node that it ran on failed.
    NodeFailure,
    /// It had to make room for another job.
    Preempted,
    /// Somebody cancelled it: it is not tried again.
    Cancelled,
}

impl Cause {
    pub fn retries(self, retry: &Retry) -> usize {
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
    /// The transitions that there are.
    pub fn may_become(&self, next: &Status) -> bool {
        use Status::*;
        match (self, next) {
            (Pending, Cached | Running | Blocked { .. } | Failed(_) | Skipped { .. }) => true,
            (Running | Blocked { .. }, Blocked { .. }) | (Blocked { .. }, Running) => true,
            (Running | Blocked { .. }, Cached | Ran { .. } | Failed(_) | Interrupted) => true,
            // A damaged blob was found: what made it runs again, and what wanted it waits for that.
            // So it does where a stage is tried again.
            (Running | Blocked { .. } | Cached | Ran { .. }, Pending) => true,
            _ => false,
        }
    }

    /// Whether a process is at work for it.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Running | Self::Blocked { .. })
    }

    /// Whether stages that need it can never run.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Skipped { .. } | Self::Interrupted)
    }

    /// As run records spell it.
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
