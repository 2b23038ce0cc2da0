//! What a stage's result depends on, and its name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical_json;
use crate::pipeline::{StageKind, StageParams};
use crate::store::{Digest, Key};

/// The version of [`Preimage`] and of its spelling. Another one makes every key another.
pub const KEY_FORMAT: u32 = 1;

/// The version of what a kind of stage computes. It is raised by whoever changes a kind's results, and makes the keys
/// of that kind others; those of later stages follow only where the bytes that they read change.
pub fn code_version(kind: StageKind) -> u32 {
    match kind {
        StageKind::Fetch => 1,
        StageKind::Degrade => 1,
        StageKind::Train => 1,
        StageKind::Sample => 1,
        StageKind::Compare => 1,
    }
}

/// What computes: devices of one class are expected to agree to the last bit, different classes are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendClass {
    Cpu,
    Cuda,
}

/// Everything that a stage's result depends on. The same struct is hashed into the key and kept in the action, for
/// whoever asks why a key is another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preimage {
    /// [`KEY_FORMAT`]
    pub format: u32,
    pub kind: StageKind,
    /// [`code_version`] of the kind.
    pub code_version: u32,
    /// The parameters, defaults filled in, less those that do not change the result.
    pub params: Value,
    /// Of stages that draw random numbers.
    pub seed: Option<u64>,
    /// Of stages that run a network.
    pub backend: Option<BackendClass>,
    /// The blobs that the stage reads of other stages, by role and name.
    pub inputs: BTreeMap<String, BTreeMap<String, Digest>>,
    /// Content from outside, by what it is to the stage.
    pub sources: BTreeMap<String, Digest>,
}

impl Preimage {
    pub fn key(&self) -> Key {
        Key::of(canonical_json(&self.to_value()).as_bytes())
    }

    /// As [`crate::store::Action::preimage`] keeps it.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("names, numbers and digests are JSON")
    }
}

/// The parameters that change a stage's result.
pub(super) fn semantic_params(params: &StageParams) -> Value {
    let value = match params {
        StageParams::Fetch(p) => serde_json::to_value(p),
        StageParams::Degrade(p) => serde_json::to_value(p),
        StageParams::Train(p) => serde_json::to_value(p),
        StageParams::Sample(p) => serde_json::to_value(p),
        StageParams::Compare(p) => serde_json::to_value(p),
    };
    value.expect("parameters have names for keys")
}
