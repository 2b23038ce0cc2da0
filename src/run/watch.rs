//! Where runs stand, for those who did not start them. Reads only, and waits for nothing.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::tail::Tail;
use crate::config::ExecutorKind;
use crate::runs::{RunDir, RunRecord, RunState};
use crate::stages::StageEvent;
use crate::store::{Key, Store, open_file};

/// A run as its record and its lock tell.
#[derive(Debug, Clone)]
pub struct RunView {
    pub record: RunRecord,
    pub state: ViewState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewState {
    Running,
    Ok,
    Failed,
    Interrupted,
    /// Its process is gone, and jobs on a cluster go on without it.
    Left,
    /// Its process is gone without a word.
    Died,
}

impl RunView {
    /// None where the record cannot be read.
    pub fn of(run: &RunDir) -> Option<Self> {
        let before = run.record().ok()?;
        let live = run.is_live();
        // It may have ended between the two looks; the record is written before the lock goes.
        let record = if live { before } else { run.record().ok()? };
        let state = match record.state {
            RunState::Running if live => ViewState::Running,
            RunState::Running if record.executor == ExecutorKind::Slurm => ViewState::Left,
            RunState::Running => ViewState::Died,
            RunState::Ok => ViewState::Ok,
            RunState::Failed => ViewState::Failed,
            RunState::Interrupted => ViewState::Interrupted,
        };
        Some(Self { record, state })
    }

    /// The newest run of a pipeline.
    pub fn latest(store: &Store, pipeline: &str) -> Option<Self> {
        Self::of(&store.latest_run(pipeline)?)
    }
}

/// What the work on a key tells, from its beginning.
pub struct Events {
    tail: Tail,
}

impl Events {
    pub fn of(store: &Store, key: &Key) -> Self {
        Self { tail: Tail::new(store.events_path(key)) }
    }

    /// What is new since the last time.
    pub fn news(&mut self, store: &Store, key: &Key) -> Vec<StageEvent> {
        // It moves when the work is done.
        self.tail.moved_to(store.events_path(key));
        self.tail.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The last progress that the work on `key` told.
pub fn last_progress(store: &Store, key: &Key) -> Option<StageEvent> {
    let text = read_tail(&store.events_path(key), 16 << 10)?;
    let events = text.lines().rev().filter_map(|line| serde_json::from_str::<StageEvent>(line).ok());
    events.into_iter().find(|event| matches!(event, StageEvent::Progress { .. }))
}

/// Reads up to `bytes` bytes from the end of a file.
pub fn read_tail(path: &Path, bytes: u64) -> Option<String> {
    let (mut file, length) = open_file(path).ok()?;
    file.seek(SeekFrom::Start(length.saturating_sub(bytes))).ok()?;
    let mut end = vec![];
    // The file may grow in the meantime.
    file.take(bytes).read_to_end(&mut end).ok()?;
    Some(String::from_utf8_lossy(&end).into_owned())
}
