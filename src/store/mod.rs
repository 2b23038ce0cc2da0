//! Content-addressed artifacts under `runs/`, and the records of runs. The only module that writes there, except that
//! a stage at work writes into its own work folder.
//!
//! ```text
//! runs/
//!   CACHEDIR.TAG
//!   store/blobs/ab/<sha256>          read-only content
//!   store/actions/ab/<key>.json      what made it: key preimage, outputs, metrics, cost. The commit point.
//!   store/work/<key>/                live: lock, checkpoint, events.jsonl, log.txt
//!   store/logs/ab/<key>.{log,jsonl}  log and events of finished work
//!   store/stat-cache.json            digests of files from outside
//!   <pipeline>/<run-id>/             run.json, pipeline.yaml (resolved), one folder a stage linking its outputs
//!   <pipeline>/latest                the newest of them
//! ```
//!
//! What holds, whenever a process dies and however many share the folder:
//!
//! - Every file is written to a temporary sibling (`.tmp-…`), synced and renamed: it is whole or not there.
//! - An action is written after its blobs, so a known key has its blobs. Blobs without an action are harmless.
//! - Bytes that are read from a blob hash to its name. Damage is noticed and healed by running the stage again.
//! - Names that come from outside, and links, do not lead out of the folder.

mod actions;
mod blobs;
mod digest;
mod files;
mod lock;
pub mod numbers;
mod runs;
mod stat_cache;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

pub use blobs::ReadError;
pub use digest::{Digest, Key, NotHex};
pub use files::host;
pub use lock::{KeyLock, LockHolder};
pub use runs::{RunDir, RunRecord, RunState, StageRecord, StageRunState};

/// The blobs that a stage made, by name.
pub type Artifact = BTreeMap<String, Digest>;

/// What made an artifact: the record whose presence says that a key is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The struct that was hashed into the key.
    pub preimage: serde_json::Value,
    pub outputs: Artifact,
    #[serde(with = "numbers")]
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

/// The artifacts under one `runs/` folder. Threads and processes share it freely.
#[derive(Debug)]
pub struct Store {
    runs: PathBuf,
}

/// https://bford.info/cachedir/: backup programs leave the folder out.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This folder holds results of srpipe, which can be computed again.\n";

impl Store {
    /// The store under `runs`, which is made where it is not there. An error where nothing can be written to it.
    pub fn open(runs: &Path) -> Result<Self> {
        let store = Self { runs: runs.to_path_buf() };
        let tag = runs.join("CACHEDIR.TAG");
        let make = || {
            files::create_folder(&store.folder(""))?;
            if !tag.exists() { files::write(&tag, CACHEDIR_TAG.as_bytes()) } else { Ok(()) }
        };
        make().with_context(|| {
            format!("cannot keep results in {}; choose another folder with --runs-dir", runs.display())
        })?;
        for folder in [runs, &store.folder("")] {
            if access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
                bail!(
                    "{} cannot be written to: change its permissions, or choose another folder with --runs-dir",
                    folder.display()
                );
            }
        }
        Ok(store)
    }

    /// The store under `runs` if there is one; for readers, nothing is made.
    pub fn open_existing(runs: &Path) -> Option<Self> {
        let store = Self { runs: runs.to_path_buf() };
        fs::metadata(store.folder("")).is_ok_and(|m| m.is_dir()).then_some(store)
    }

    pub fn runs_dir(&self) -> &Path {
        &self.runs
    }

    /// A folder or file of `runs/store`.
    fn folder(&self, name: &str) -> PathBuf {
        self.runs.join("store").join(name)
    }
}
