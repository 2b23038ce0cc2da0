//! The interface through which a run shows its progress.

use std::time::Duration;

use super::status::Status;
use crate::runs::RunRecord;
use crate::stages::StageEvent;

/// What a run does after it was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// It waits for its stages to save their progress. A second request kills them.
    Saving,
    /// It leaves its jobs running after this delay. A second request cancels them.
    Leaving(Duration),
    /// It cancels its jobs.
    Cancelling,
}

/// Shows a run. Stages are numbered as in the run's record.
pub trait Progress {
    fn started(&mut self, run: &RunRecord);
    fn stage(&mut self, stage: usize, status: &Status);
    fn event(&mut self, stage: usize, event: &StageEvent);
    /// Events of an active stage from before this process started to watch it.
    fn earlier(&mut self, _stage: usize, _events: &[StageEvent]) {}
    /// The run was asked to stop.
    fn stopping(&mut self, how: Stopping);
    fn finished(&mut self, run: &RunRecord);
}
