//! Content-addressed artifacts under `runs/`.
//!
//! ```text
//! runs/
//!   CACHEDIR.TAG
//!   store/blobs/ab/<sha256>          read-only content
//!   store/actions/ab/<key>.json      what made it: key preimage, outputs, metrics, cost. The commit point.
//!   store/work/<key>/                live: lock, checkpoint, events.jsonl, log.txt
//!   <pipeline>/<run-id>/             run.json, the resolved pipeline, one folder a stage linking its outputs
//!   <pipeline>/latest                the newest of them
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The SHA-256 of a blob's content; prints as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(pub String);

/// The SHA-256 of a stage's key preimage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(pub String);

/// The blobs that a stage made, by name.
pub type Artifact = BTreeMap<String, Digest>;

/// What made an artifact: the record whose presence says that a key is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The struct that was hashed into the key.
    pub preimage: serde_json::Value,
    pub outputs: Artifact,
    pub metrics: BTreeMap<String, f64>,
    pub cost: Cost,
}

/// What it took to make an artifact.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Of all attempts together.
    pub seconds: f64,
    /// RFC 3339.
    pub finished_at: String,
    pub host: String,
    pub srpipe_version: String,
}

/// The artifacts under one `runs/` folder.
pub struct Store {
    root: std::path::PathBuf,
}
