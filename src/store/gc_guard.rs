//! Protects results from garbage collection while a process relies on them.
//!
//! A process that finds a cached result or stores a blob holds a shared lock on `store/gc.lock`, until the result is
//! listed where `gc` looks for it: in the record of a live run or in the lease of a live worker. `gc` takes the lock
//! exclusively, so it runs either before or after that. Processes that only display results take no lock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::sync::PoisonError;

use anyhow::{Context, Result};

use super::lock::{is_held, lock_uninterrupted};
use super::{Digest, Key, KeyLock, Store, files};

/// The file in a key's work folder that lists the blobs that its worker has stored, one digest per line.
const LEASE_FILE: &str = "lease";

/// Prevents garbage collection until it is dropped.
#[derive(Debug)]
pub struct GcGuard {
    _file: Option<File>,
}

impl Store {
    /// Acquires a shared lock; waits while `gc` removes files. A read-only store needs no lock, because `gc` cannot
    /// run.
    pub fn guard(&self) -> Result<GcGuard> {
        Ok(GcGuard { _file: self.gc_lock()?.map(shared).transpose()? })
    }

    /// Acquires the exclusive lock; waits for all other guards.
    pub(super) fn guard_exclusively(&self) -> Result<GcGuard> {
        let file = self.gc_lock()?;
        if let Some(file) = &file {
            lock_uninterrupted(file, File::lock).context("locking the store")?;
        }
        Ok(GcGuard { _file: file })
    }

    fn gc_lock(&self) -> Result<Option<File>> {
        let path = self.folder("gc.lock");
        match files::open_own(&path, File::options().write(true).create(true).truncate(false)) {
            Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => Ok(None),
            opened => Ok(Some(opened.with_context(|| format!("opening {}", path.display()))?)),
        }
    }

    /// Starts a lease: protects all blobs that this process stores from now on, while it holds the lock of the key.
    pub fn lease(&self, lock: &KeyLock) -> Result<()> {
        let path = self.work_dir(lock.key()).join(LEASE_FILE);
        let file = files::open_own(&path, File::options().create(true).append(true));
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Adds a blob to the lease of this process, if it has one.
    pub(super) fn add_to_lease(&self, digest: &Digest) -> Result<()> {
        match &mut *self.lease.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => writeln!(file, "{digest}").context("writing the lease"),
            None => Ok(()),
        }
    }

    /// Returns the keys that a process works on. `stopped` contains the heartbeats of processes that have stopped.
    pub fn live_keys(&self, stopped: &BTreeMap<Key, String>) -> Vec<Key> {
        let is_here = |key: &Key| is_held(&self.work_dir(key).join("lock"));
        let beats = |key: &Key| self.beat_on_other_host(key).is_some_and(|beat| stopped.get(key) != Some(&beat));
        self.work_keys().into_iter().filter(|key| is_here(key) || beats(key)).collect()
    }

    /// Returns the keys of all work folders, including those without a live worker.
    pub(super) fn work_keys(&self) -> Vec<Key> {
        let entries = fs::read_dir(self.folder("work")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Returns the blobs in the lease of a key.
    pub(super) fn leased(&self, key: &Key) -> Vec<Digest> {
        let text = files::read_text(&self.work_dir(key).join(LEASE_FILE)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// Acquires a shared lock on a file.
fn shared(file: File) -> Result<File> {
    lock_uninterrupted(&file, File::lock_shared).context("locking the store")?;
    Ok(file)
}
