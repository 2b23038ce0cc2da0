//! The protocol between the scheduler's process and a stage's process: a [`TaskSpec`] on the child's stdin, then
//! [`STOP`] or the end of the stream; [`Event`]s on its stdout. Each line is one JSON value.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::any_path;
use super::status::Cause;
use crate::config::StageParams;
use crate::plan::Preimage;
use crate::stages::StageEvent;
use crate::store::{Digest, Key};

/// The line that asks a child to save its progress and end.
pub(super) const STOP: &str = "stop";

/// The exit code of a child that stopped on request.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Everything that a process needs to run one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub(super) key: Key,
    /// The preimage of the key, with the inputs and the seed. It becomes part of the action.
    pub(super) preimage: Preimage,
    /// All parameters, including those that are not in the preimage.
    #[serde(serialize_with = "StageParams::serialize_with_secrets")]
    pub(super) params: StageParams,
    /// The CUDA device; None for the CPU.
    pub(super) cuda: Option<usize>,
    pub(super) threads: usize,
    /// The number by which the stage divides its batch size, after its GPU ran out of memory.
    #[serde(rename = "split")]
    pub(super) batch_divisor: usize,
    /// The GPUs that the stage may use, as `CUDA_VISIBLE_DEVICES` names them.
    pub(super) gpus: Vec<String>,
    /// Run even if the key is cached.
    pub(super) force: bool,
    /// The address of a shared cache.
    pub(super) remote: Option<String>,
    /// The folder of the store.
    #[serde(with = "any_path")]
    pub(super) runs: PathBuf,
}

/// An event on a child's stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    Stage(StageEvent),
    Process(ProcessEvent),
}

/// An event of a stage's process or job, as opposed to the stage's own events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProcessEvent {
    /// Another process computes the same key; `holder` describes it.
    WaitingForLock { holder: Option<String> },
    /// The job waits in the queue, with the reason as the batch system reports it.
    Queued { job: String, reason: String },
    /// The job is starting or running on a node.
    Placed { job: String, node: String },
    /// The shared cache is unreachable or does not respond correctly; the run stops using it.
    CacheUnavailable,
    /// The process holds the key's lock and the key is not cached: the stage starts.
    Started,
    /// The action is in the store. `adopted`: another process computed it.
    Done { adopted: bool },
    /// `damaged`: an input blob that is missing or whose content does not match its digest.
    Failed { error: String, cause: Cause, damaged: Option<Digest> },
    /// The job is requeued, and its progress is saved.
    Requeued { cause: Cause },
    /// The stage was stopped on request.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn events_round_trip() {
        let values = BTreeMap::from([("loss".to_string(), 0.5)]);
        let events = [
            Event::Stage(StageEvent::Progress { done: 3, total: 9, unit: "steps".into(), values }),
            Event::Stage(StageEvent::Message { text: "a\nb".into() }),
            Event::Process(ProcessEvent::WaitingForLock { holder: Some("process 7 on n1".into()) }),
            Event::Process(ProcessEvent::Queued { job: "1_2".into(), reason: "Priority".into() }),
            Event::Process(ProcessEvent::Placed { job: "1_2".into(), node: "n7".into() }),
            Event::Process(ProcessEvent::CacheUnavailable),
            Event::Process(ProcessEvent::Started),
            Event::Process(ProcessEvent::Done { adopted: true }),
            Event::Process(ProcessEvent::Failed {
                error: "no".into(),
                cause: Cause::OutOfMemory,
                damaged: Some(Digest::of(b"")),
            }),
            Event::Process(ProcessEvent::Requeued { cause: Cause::Preempted }),
            Event::Process(ProcessEvent::Interrupted),
        ];
        for event in events {
            let line = serde_json::to_string(&event).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
