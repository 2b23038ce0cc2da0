//! Who a scheduler works with: somebody who runs stages, and somebody who is shown what happens.

use std::path::Path;

use anyhow::Result;

use super::status::{Cause, Status};
use super::wire::{Event, Order};
use crate::stages::StageEvent;
use crate::store::RunRecord;

/// Runs stages somewhere. Reports come over a channel that the executor was made with: events of a stage while it
/// lives, and [`Report::Closed`] after the last of them.
pub trait Executor {
    /// Starts a stage whose messages are appended to the file `log`.
    fn start(&mut self, stage: usize, order: &Order, log: &Path) -> Result<()>;
    /// Asks a stage to save what it has and end.
    fn stop(&mut self, stage: usize);
    /// Ends a stage at once, with all that it started.
    fn kill(&mut self, stage: usize);
    /// The memory that a stage's processes take now, in bytes.
    fn memory(&self, stage: usize) -> u64;
    /// Called once after a stage closed: how it ended, for one that did not say so itself.
    fn ended(&mut self, stage: usize) -> (Cause, String);
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
    /// Ctrl-C, or a request to end from whoever manages processes.
    Signal,
}

/// Shows a run to somebody. Stages are counted as in the run's record.
pub trait Progress {
    fn started(&mut self, run: &RunRecord);
    fn stage(&mut self, stage: usize, status: &Status);
    fn event(&mut self, stage: usize, event: &StageEvent);
    /// The run was asked to stop, and waits for its stages to save.
    fn stopping(&mut self);
    fn finished(&mut self, run: &RunRecord);
}
