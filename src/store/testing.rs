//! Helpers for tests of the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::files::TEMPORARY;
use super::{Action, Artifact, Cost, Key, Store, is_held};

/// Creates a store in a temporary folder, which can also contain other files.
pub fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("runs")).unwrap();
    (folder, store)
}

/// Replaces the content of a file, as a disk error would.
pub(super) fn damage(path: &Path, bytes: &[u8]) {
    let damaged = path.with_extension("damaged");
    fs::write(&damaged, bytes).unwrap();
    fs::rename(damaged, path).unwrap();
}

/// Counts the temporary files and folders anywhere under `runs`.
pub fn temporaries(store: &Store) -> usize {
    fn count(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let counts = entries.map(|entry| {
            let is_temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
            usize::from(is_temporary) + if entry.file_type().unwrap().is_dir() { count(&entry.path()) } else { 0 }
        });
        counts.sum()
    }
    count(store.runs_dir())
}

fn preimage(name: &str) -> serde_json::Value {
    json!({"params": {"lr": 1e-4, "steps": 3, "name": name}, "seed": u64::MAX})
}

/// Returns the key of the [`action`] with this name.
pub fn key(name: &str) -> Key {
    Key::of_preimage(&preimage(name))
}

/// Stores these outputs and returns an action with a preimage that contains `name`.
pub fn action(store: &Store, name: &str, outputs: &[(&str, &[u8])]) -> Action {
    let outputs = outputs.iter().map(|(name, bytes)| (name.to_string(), store.put(bytes).unwrap()));
    Action {
        preimage: preimage(name),
        outputs: outputs.collect::<Artifact>(),
        metrics: BTreeMap::from([("loss".to_string(), 0.1), ("psnr".to_string(), f64::INFINITY)]),
        cost: Cost { seconds: 1.5, host: "here".to_string(), ..Cost::default() },
    }
}

/// Returns a command that runs the ignored test `name` of this test program in another process.
pub(super) fn another_process(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Whether a condition becomes true within a few seconds. A released lock may be held a moment longer by a process that
/// another test starts: between fork and exec, it has a copy of all open files. Tests that need a lock to be free must
/// therefore wait for it; see also [`release`].
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    (0..500).any(|_| {
        let is_true = condition();
        if !is_true {
            std::thread::sleep(Duration::from_millis(10));
        }
        is_true
    })
}

/// Drops the owner of a lock file, and waits until no process has a copy of that file.
pub fn release(owner: impl Sized, lock: &Path) {
    drop(owner);
    assert!(eventually(|| !is_held(lock)), "{} is still locked", lock.display());
}
