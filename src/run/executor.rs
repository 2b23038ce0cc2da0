//! Who a scheduler works with: somebody who runs stages, and somebody who is shown what happens.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::protocol::{Event, TaskSpec};
use super::status::{Cause, Status};
use crate::runs::RunRecord;
use crate::stages::StageEvent;

/// Runs stages somewhere. Reports come over a channel that the executor was made with: events of a stage while it
/// lives, and [`Report::Closed`] after the last of them.
pub trait Executor {
    /// Starts a stage whose messages are appended to the file `log`.
    fn start(&mut self, stage: usize, spec: &TaskSpec, log: &Path) -> Result<()>;
    /// Asks a stage to save what it has and end.
    fn stop(&mut self, stage: usize);
    /// Ends a stage at once, with all that it started.
    fn kill(&mut self, stage: usize);
    /// The memory that a stage's processes take now, in bytes.
    fn memory(&self, stage: usize) -> u64;
    /// Called once after a stage closed: how it ended, for one that did not say so itself.
    fn ended(&mut self, stage: usize) -> (Cause, String);
    /// All that can start by now has been started: what goes on its way together may go now.
    fn send(&mut self) {}
    /// When the run is asked to end: how long it waits for another word before it leaves its stages to go on without it.
    /// None where they end with the run.
    fn outlives(&self) -> Option<Duration> {
        None
    }
}

/// What the scheduler hears.
#[derive(Debug)]
pub enum Report {
    Event {
        stage: usize,
        event: Event,
    },
    /// The stage's process is gone, or as good as.
    Closed {
        stage: usize,
    },
    /// Of several stages, in spec.
    Many(Vec<Report>),
    /// Ctrl-C, or a request to end from whoever manages processes.
    Signal,
    /// Somebody elsewhere wants the run and its jobs to end.
    Cancel,
}

/// What a run does that was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// It waits for its stages to save. Asked again, it ends them.
    Saving,
    /// It leaves its jobs to go on, this long from now. Asked again, it cancels them.
    Leaving(Duration),
    /// It cancels its jobs.
    Cancelling,
}

/// Shows a run to somebody. Stages are counted as in the run's record.
pub trait Progress {
    fn started(&mut self, run: &RunRecord);
    fn stage(&mut self, stage: usize, status: &Status);
    fn event(&mut self, stage: usize, event: &StageEvent);
    /// What a stage at work told before anybody looked.
    fn earlier(&mut self, _stage: usize, _events: &[StageEvent]) {}
    /// The run was asked to stop.
    fn stopping(&mut self, how: Stopping);
    fn finished(&mut self, run: &RunRecord);
}
