//! The messages that the monitor receives, from the scheduler and from the thread that polls the batch system.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::system::{JobState, Jobs};
use crate::store::Key;

/// A request to the monitor, or an answer for it.
pub(super) enum Request {
    /// Submit stages that became ready together.
    Submit(Vec<ReadyStage>),
    /// Cancel the job of a stage, because the run was asked to stop.
    Cancel(usize),
    QueueAnswer {
        asked_at: Instant,
        answer: Result<Jobs>,
    },
    AccountingAnswer(Result<Option<BTreeMap<String, JobState>>>),
    /// Stop watching; jobs continue.
    Stop,
}

/// A stage to submit.
pub(super) struct ReadyStage {
    pub(super) stage: usize,
    pub(super) key: Key,
    pub(super) forced: bool,
    /// The number by which the stage divides its batch size.
    pub(super) batch_divisor: usize,
}
