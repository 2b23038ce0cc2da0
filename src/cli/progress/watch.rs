//! Shows the progress of another process's run by polling its record.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use crate::run::watch::Events;
use crate::run::{Cause, Failure, Progress, Status};
use crate::runs::{RunDir, StageRecord, StageRunState};
use crate::runs::{RunView, ViewState};
use crate::store::Store;

/// The interval between two reads of the record.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Follows a run until it ends; returns `None` if its record becomes unreadable.
pub fn watch(store: &Store, run: &RunDir, progress: &mut dyn Progress) -> Option<RunView> {
    let mut view = RunView::of(run)?;
    progress.started(&view.record);
    let mut reported = vec![StageRunState::Pending; view.record.stages.len()];
    // The events of running stages.
    let mut events: BTreeMap<usize, Events> = BTreeMap::new();
    loop {
        for (i, stage) in view.record.stages.iter().enumerate() {
            if let (Some(events), Some(key)) = (events.get_mut(&i), &stage.key) {
                events.read_new(store, key).iter().for_each(|event| progress.event(i, event));
            }
            if stage.state == reported[i] {
                continue;
            }
            // A stage that ended before it was seen running has events too.
            if let (StageRunState::Pending, StageRunState::Ran, Some(key)) = (reported[i], stage.state, &stage.key) {
                progress.stage(i, &Status::Running);
                progress.earlier(i, &Events::of(store, key).read_new(store, key));
            }
            progress.stage(i, &status(stage, store));
            reported[i] = stage.state;
            events.remove(&i);
            if let (StageRunState::Running, Some(key)) = (stage.state, &stage.key) {
                let events = events.entry(i).or_insert(Events::of(store, key));
                progress.earlier(i, &events.read_new(store, key));
            }
        }
        if view.state != ViewState::Running {
            progress.finished(&view.record);
            return Some(view);
        }
        sleep(POLL_INTERVAL);
        view = RunView::of(run)?;
    }
}

/// Returns the status of a stage as far as its record contains it.
fn status(stage: &StageRecord, store: &Store) -> Status {
    match stage.state {
        StageRunState::Pending => Status::Pending,
        StageRunState::Running => Status::Running,
        StageRunState::Cached => Status::Cached,
        StageRunState::Ran => Status::Ran { seconds: stage.seconds.unwrap_or(0.0) },
        StageRunState::Skipped => Status::Skipped { because: None },
        StageRunState::Interrupted => Status::Interrupted,
        StageRunState::Failed => Status::Failed(Failure {
            cause: Cause::Failed,
            error: stage.error.clone().unwrap_or_default(),
            log: stage.key.as_ref().map(|key| store.log_path(key)).unwrap_or_default(),
            tail: vec![],
        }),
    }
}
