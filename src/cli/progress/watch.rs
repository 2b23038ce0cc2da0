//! Somebody else's run, shown as if it were one's own: what its record says is told when it changes.

use std::thread::sleep;
use std::time::Duration;

use crate::run::watch::{RunView, ViewState, last_progress};
use crate::run::{Cause, Failure, Progress, Status};
use crate::stages::StageEvent;
use crate::store::{RunDir, StageRecord, StageRunState, Store};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(300);

/// Follows a run until it ends; `None` where its record cannot be read any more.
pub fn watch(store: &Store, run: &RunDir, progress: &mut dyn Progress) -> Option<RunView> {
    let mut view = RunView::of(run)?;
    progress.started(&view.record);
    let mut shown = vec![StageRunState::Pending; view.record.stages.len()];
    let mut told: Vec<Option<StageEvent>> = vec![None; shown.len()];
    loop {
        for (i, stage) in view.record.stages.iter().enumerate() {
            if stage.state != shown[i] {
                progress.stage(i, &status(stage, store));
                (shown[i], told[i]) = (stage.state, None);
            }
            if stage.state == StageRunState::Running
                && let Some(event) = stage.key.as_ref().and_then(|key| last_progress(store, key))
                && told[i].as_ref() != Some(&event)
            {
                progress.event(i, &event);
                told[i] = Some(event);
            }
        }
        if view.state != ViewState::Running {
            progress.finished(&view.record);
            return Some(view);
        }
        sleep(INTERVAL);
        view = RunView::of(run)?;
    }
}

/// As far as a record tells it.
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
