//! What the runner and a stage's process say to each other: an [`TaskSpec`] on the child's stdin, then [`STOP`] or the
//! end of the stream; [`Event`]s on its stdout. One JSON value a line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::any_path;
use super::status::Cause;
use crate::config::StageParams;
use crate::plan::Preimage;
use crate::stages::StageEvent;
use crate::store::{Digest, Key};

/// The line that asks a child to save what it has and end.
pub const STOP: &str = "stop";

/// The exit code of a child that stopped because it was asked to.
pub const EXIT_INTERRUPTED: u8 = 130;

/// All that a process needs to run one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub key: Key,
    /// What was hashed into the key: inputs and seed are taken from it, and it goes into the action.
    pub preimage: Preimage,
    /// Those too that are not in the preimage.
    #[serde(serialize_with = "StageParams::serialize_with_secrets")]
    pub params: StageParams,
    /// The CUDA device, or none for the CPU.
    pub cuda: Option<usize>,
    pub threads: usize,
    /// How many times smaller than the stage says the images are that it has on a GPU at a time.
    pub split: usize,
    /// The graphics cards that the stage may use, as `CUDA_VISIBLE_DEVICES` names them.
    pub gpus: Vec<String>,
    /// To run although the key is known.
    pub force: bool,
    /// A cache that may know the key.
    pub remote: Option<String>,
    /// The folder of the store.
    #[serde(with = "any_path")]
    pub runs: PathBuf,
}

/// What a child reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    Stage(StageEvent),
    Process(ProcessEvent),
}

/// What happens around a stage, as opposed to in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProcessEvent {
    /// Another process is computing the same key: which, in words.
    WaitingForLock { holder: Option<String> },
    /// Its job waits in the queue of a cluster, for a reason in the cluster's words.
    Queued { job: String, reason: String },
    /// Its job has a node.
    Placed { job: String, node: String },
    /// The shared cache cannot be reached or does not respond correctly: the rest of the run does not use it.
    CacheUnavailable,
    /// The key's lock is held and its action is not there: the stage runs from here on.
    Started,
    /// The action is in the store; `adopted` from another process.
    Done { adopted: bool },
    /// `damaged`: an input blob that is missing or does not have the content its name says.
    Failed { error: String, cause: Cause, damaged: Option<Digest> },
    /// Its job goes into the queue of the cluster again, its progress saved.
    Requeued { cause: Cause },
    /// Stopped as asked.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn events_read_back_as_what_they_were() {
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
