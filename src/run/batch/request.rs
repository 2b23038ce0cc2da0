//! The messages that the monitor receives, from the scheduler and from the thread that polls the batch system.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::system::{JobState, Jobs};
use crate::store::Key;

/// A request to the monitor, or an answer for it.
pub enum Request {
    /// Submit stages that became ready together.
    Submit(Vec<ReadyStage>),
    /// Cancel the job of a stage, because the run is to end.
    Cancel(usize),
    HandleQueue {
        asked_at: Instant,
        answer: Result<Jobs>,
    },
    HandleAccounting(Result<Option<BTreeMap<String, JobState>>>),
    /// Stop watching; jobs continue.
    Stop,
}

/// A stage to submit.
pub struct ReadyStage {
    pub stage: usize,
    pub key: Key,
    pub forced: bool,
    /// The number by which the stage divides its batch size.
    pub batch_divisor: usize,
}
