//! Who may remove: `gc` alone, and only while nobody counts on what is there.
//!
//! Whoever finds something known, or puts something, holds `store/gc.lock` shared until what they count on is written
//! where `gc` looks for it: in the record of a live run, or in the lease of a live worker. `gc` takes the lock
//! exclusively, so it sees all of that or comes first. Readers that only tell what they saw take no lock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::sync::PoisonError;

use anyhow::{Context, Result};

use super::lock::{is_held, lock_uninterrupted};
use super::{Digest, Key, KeyLock, Store, files};

/// In a key's work folder: the blobs that its worker has put, a digest a line.
const LEASE: &str = "lease";

/// As long as it lives, nothing is removed.
#[derive(Debug)]
pub struct GcGuard {
    _file: Option<File>,
}

impl Store {
    /// Waits while `gc` removes, which takes moments. Where nothing can be written, nothing can be removed either.
    pub fn guard(&self) -> Result<GcGuard> {
        Ok(GcGuard { _file: self.gc_lock()?.map(shared).transpose()? })
    }

    /// Waits until nobody holds; then nobody else removes, puts or counts on anything.
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

    /// From now on, what this process puts is kept for as long as it has the lock of the key, known or not.
    pub fn lease(&self, lock: &KeyLock) -> Result<()> {
        let path = self.work_dir(lock.key()).join(LEASE);
        let file = files::open_own(&path, File::options().create(true).append(true));
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Notes in this process's lease, if it has one, that it counts on a blob.
    pub(super) fn count_on(&self, digest: &Digest) -> Result<()> {
        match &mut *self.lease.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => writeln!(file, "{digest}").context("noting a blob in the lease of the work"),
            None => Ok(()),
        }
    }

    /// The keys that are worked on at this moment.
    /// `stopped`: hearts that were seen to stand still.
    pub(crate) fn live_keys(&self, stopped: &BTreeMap<Key, String>) -> Vec<Key> {
        let is_here = |key: &Key| is_held(&self.work_dir(key).join("lock"));
        let beats = |key: &Key| self.beat_elsewhere(key).is_some_and(|beat| stopped.get(key) != Some(&beat));
        self.work_keys().into_iter().filter(|key| is_here(key) || beats(key)).collect()
    }

    /// The keys of all work folders, of those too whose worker is gone.
    pub(super) fn work_keys(&self) -> Vec<Key> {
        let entries = fs::read_dir(self.folder("work")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// What the worker on a key has put.
    pub(super) fn leased(&self, key: &Key) -> Vec<Digest> {
        let text = files::read_text(&self.work_dir(key).join(LEASE)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

fn shared(file: File) -> Result<File> {
    lock_uninterrupted(&file, File::lock_shared).context("locking the store")?;
    Ok(file)
}
