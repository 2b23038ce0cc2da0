//! The progress of a run as one JSON object per line; the last is `run_finished`.

use std::collections::BTreeMap;

use serde_json::json;

use super::output::print_json_line;
use crate::format;
use crate::run::{Progress, Status, Stopping};
use crate::runs::{RunRecord, RunState};
use crate::stages::StageEvent;

/// Writes the progress of a run to stdout.
#[derive(Default)]
pub(super) struct JsonLines {
    names: Vec<String>,
}

impl Progress for JsonLines {
    fn started(&mut self, run: &RunRecord) {
        self.names = run.stages.iter().map(|stage| stage.name.clone()).collect();
        print_json_line(
            &json!({"event": "run_started", "schema": 1, "run": run.id, "pipeline": run.pipeline, "stages": self.names}),
        );
    }

    fn stage(&mut self, stage: usize, status: &Status) {
        let mut event = json!({"event": "stage", "stage": self.names[stage], "state": status.recorded()});
        match status {
            Status::Blocked { why } => event["waiting"] = json!(why),
            Status::Ran { seconds } => event["seconds"] = json!(seconds),
            Status::Failed(failure) => {
                event["error"] = json!(failure.error);
                event["cause"] = json!(failure.cause);
                event["log"] = json!(format::path(&failure.log));
            }
            Status::Skipped { because } => event["because"] = json!(because),
            _ => {}
        }
        print_json_line(&event);
    }

    fn event(&mut self, stage: usize, event: &StageEvent) {
        let mut event = serde_json::to_value(event).expect("events are plain data");
        event["stage"] = json!(self.names[stage]);
        print_json_line(&event);
    }

    fn stopping(&mut self, how: Stopping) {
        print_json_line(&json!({"event": "stopping", "jobs_go_on": matches!(how, Stopping::Leaving(_))}));
    }

    fn finished(&mut self, run: &RunRecord) {
        finished(run, run.state);
    }
}

/// Writes the last line, also for a run with nothing to do.
pub(super) fn finished(run: &RunRecord, state: RunState) {
    let stages: BTreeMap<&str, _> = run.stages.iter().map(|stage| (stage.name.as_str(), stage.state)).collect();
    print_json_line(&json!({"event": "run_finished", "schema": 1, "run": run.id, "state": state, "stages": stages}));
}
