//! Records for tests.

use super::{HostInfo, JobRecord, RunRecord, RunState, StageRecord, StageRunState};
use crate::config::{ExecutorKind, StageKind};
use crate::store::Key;

/// Returns the record of a run in progress with one finished stage.
pub(super) fn record() -> RunRecord {
    RunRecord {
        id: String::new(),
        pipeline: String::new(),
        file: Some("pipelines/a.yaml".into()),
        state: RunState::Running,
        started_at: "2026-11-23T08:32:27Z".to_string(),
        finished_at: None,
        seconds: None,
        pid: 1,
        srpipe_version: "0".to_string(),
        machine: Some(HostInfo { cores: 2, ..HostInfo::default() }),
        executor: ExecutorKind::Local,
        command: vec!["srpipe".to_string(), "run".to_string()],
        stages: vec![StageRecord {
            name: "train".to_string(),
            kind: StageKind::Train,
            key: Some(Key::of(b"")),
            state: StageRunState::Ran,
            seconds: Some(0.1),
            metrics: [("psnr".to_string(), f64::INFINITY)].into(),
            error: None,
            job: Some(JobRecord::queued("7_1", "Priority")),
        }],
        earlier_looks: vec![],
    }
}
