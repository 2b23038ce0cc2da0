//! The interface between the scheduler and the executors that run stages.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::machine::Machine;
use super::protocol::{Event, TaskSpec};
use super::status::Cause;

/// Runs stages. An executor sends reports through the channel that it was created with: the events of a stage while it
/// runs, and [`Report::Closed`] after the last one.
pub(super) trait Executor {
    /// Starts a stage. Its messages are appended to the file `log`.
    fn start(&mut self, stage: usize, spec: &TaskSpec, log: &Path) -> Result<()>;

    /// Called after all stages that can start now have been started, so that they can be submitted together.
    fn flush(&mut self) {}

    /// Asks a stage to save its progress and end.
    fn stop(&mut self, stage: usize);

    /// Kills a stage with all its processes.
    fn kill(&mut self, stage: usize);

    /// Returns how a closed stage ended, in case it did not report that itself. Called once per closed stage.
    fn exit_cause(&mut self, stage: usize) -> (Cause, String);

    /// Returns the memory that a stage's processes use now, in bytes. Executors that enforce limits themselves return
    /// 0.
    fn memory(&self, _stage: usize) -> u64 {
        0
    }

    /// Returns the machine whose resources the stages share; None if the executor has its own queue.
    fn machine(&self) -> Option<Machine> {
        None
    }

    /// Returns how long a run that is asked to stop waits for a second request before it leaves its stages running;
    /// None if stages cannot continue without the run.
    fn leave_delay(&self) -> Option<Duration> {
        None
    }
}

/// A message to the scheduler.
#[derive(Debug)]
pub enum Report {
    Event {
        stage: usize,
        event: Event,
    },
    /// The stage's process has ended.
    Closed {
        stage: usize,
    },
    /// Reports of several stages, in order.
    Many(Vec<Report>),
    /// A request to stop, from Ctrl-C or a process manager.
    Signal,
    /// `srpipe cancel` was called in another process.
    Cancel,
}
