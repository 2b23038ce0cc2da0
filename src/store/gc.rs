//! Garbage collection: removes actions, blobs and unfinished work that nothing refers to.
//!
//! The caller passes the keys to keep; keys that a process works on are kept as well. Actions are removed before their
//! blobs, so that an interrupted collection never leaves an action without its blobs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::files::entries;
use super::heartbeat::TIMEOUT;
use super::{Action, Digest, GcGuard, Key, Store, files};

/// What a collection removed from the store, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    pub actions: usize,
    pub blobs: usize,
    /// The size of the removed blobs.
    pub bytes: u64,
    /// Unfinished work that no kept run can resume.
    pub work: usize,
    /// Temporary files and folders of killed processes.
    pub temporaries: usize,
    pub blobs_left: usize,
    pub bytes_left: u64,
}

/// Exclusive access to a store for garbage collection, with the state of the store when it began.
pub struct Collection<'a> {
    store: &'a Store,
    _guard: GcGuard,
    /// `None` if the record of an action is damaged.
    actions: BTreeMap<Key, Option<Action>>,
    sizes: BTreeMap<Digest, u64>,
    live: Vec<Key>,
}

impl Store {
    /// Waits for exclusive access to the store.
    ///
    /// # Errors
    /// Fails if a folder of the store is a link.
    pub fn begin_collection(&self) -> Result<Collection<'_>> {
        // Takes a while if a process on another machine may have died, so do it while no other process has to wait.
        let stopped = self.stopped_on_other_hosts(TIMEOUT);
        let guard = self.guard_exclusively()?;
        self.check_no_links()?;
        let actions = self.action_keys().into_iter().map(|key| (key.clone(), self.action(&key).ok().flatten()));
        Ok(Collection {
            store: self,
            _guard: guard,
            actions: actions.collect(),
            sizes: self.blob_sizes(),
            live: self.live_keys(&stopped),
        })
    }
}

impl Collection<'_> {
    fn blobs(&self, keys: &BTreeSet<&Key>) -> BTreeSet<&Digest> {
        let kept = keys.iter().filter_map(|key| self.actions.get(key)?.as_ref());
        kept.flat_map(|action| action.outputs.values()).collect()
    }

    /// Returns the total size of the blobs of these keys, in bytes.
    pub fn size(&self, keys: &BTreeSet<&Key>) -> u64 {
        self.blobs(keys).iter().filter_map(|digest| self.sizes.get(digest)).sum()
    }

    /// Returns the keys of the actions whose outputs are all among `blobs`.
    pub fn keys_with_outputs_in(&self, blobs: &BTreeSet<Digest>) -> BTreeSet<Key> {
        let is_linked = |action: &Action| action.outputs.values().all(|digest| blobs.contains(digest));
        let linked = self.actions.iter().filter(|(_, action)| action.as_ref().is_some_and(is_linked));
        linked.map(|(key, _)| key.clone()).collect()
    }

    /// Removes the `unneeded` paths (runs), and everything in the store except the results and unfinished work of
    /// `kept` keys and of keys that a process works on. With `dry_run`, only counts.
    pub fn finish(self, unneeded: &[PathBuf], kept: &BTreeSet<&Key>, dry_run: bool) -> Result<Collected> {
        let Self { store, ref actions, ref live, .. } = self;
        let kept: BTreeSet<&Key> = kept.iter().copied().chain(live).collect();
        let leased: Vec<Digest> = live.iter().flat_map(|key| store.leased(key)).collect();
        let mut kept_blobs = self.blobs(&kept);
        kept_blobs.extend(&leased);

        let mut removed = Collected::default();
        let mut to_remove = unneeded.to_vec();
        for key in actions.keys().filter(|key| !kept.contains(key)) {
            removed.actions += 1;
            to_remove.push(store.action_path(key));
            to_remove.extend(store.archived_logs(key));
        }
        for key in store.work_keys().iter().filter(|key| !live.contains(key)) {
            // A process that was killed after its commit leaves the work folder of a finished action.
            let is_done = matches!(actions.get(key), Some(Some(_)));
            let is_removed =
                (is_done || !kept.contains(key)) && (dry_run || store.remove_work(key, kept.contains(key))?);
            removed.work += usize::from(is_removed);
        }
        for (digest, size) in &self.sizes {
            if kept_blobs.contains(digest) {
                removed.blobs_left += 1;
                removed.bytes_left += size;
            } else {
                removed.blobs += 1;
                removed.bytes += size;
                to_remove.push(store.blob_path(digest));
            }
        }
        let temporaries = store.temporaries();
        removed.temporaries += temporaries.len();
        to_remove.extend(temporaries);
        if !dry_run {
            to_remove.iter().try_for_each(|path| remove(path))?;
        }
        Ok(removed)
    }
}

impl Store {
    /// Removes the work folder of a key, unless a process holds its lock.
    fn remove_work(&self, key: &Key, archive_logs: bool) -> Result<bool> {
        let folder = self.work_dir(key);
        if !files::is_folder(&folder) {
            remove(&folder)?;
            return Ok(true);
        }
        let Some(lock) = self.try_lock_stopped(key)? else { return Ok(false) };
        if archive_logs {
            self.archive_logs(key)?;
        }
        self.discard_work(lock)?;
        Ok(true)
    }

    /// Fails if a folder of the store or of a pipeline's runs is a link: stages may read through it, but collection
    /// would treat its content as missing.
    pub(super) fn check_no_links(&self) -> Result<()> {
        let mut paths: Vec<PathBuf> = ["actions", "blobs", "work"].map(|kind| self.folder(kind)).into();
        paths.extend(["actions", "blobs"].iter().flat_map(|kind| entries(&self.folder(kind))));
        // `runs/store` as a whole may be a link.
        paths.extend(entries(&self.runs).into_iter().filter(|path| *path != self.folder("")));
        paths.sort();
        let is_link = |path: &PathBuf| path.is_symlink() && path.is_dir();
        if let Some(link) = paths.into_iter().find(is_link) {
            let link = link.display();
            bail!(
                "{link} is a link, which srpipe does not follow: replace it with the folder itself, or link runs/store as a whole"
            )
        }
        let kinds = ["actions", "blobs", "work"].map(|kind| self.folder(kind));
        match kinds.into_iter().find(|path| path.exists() && !files::is_folder(path)) {
            Some(other) => bail!("{} is not a folder: remove it", other.display()),
            None => Ok(()),
        }
    }

    /// Returns the temporary files and folders of the store. No process writes there during a collection. A process
    /// that works on a key cleans its work folder itself.
    fn temporaries(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.folder(""), self.folder("work")];
        for kind in ["blobs", "actions", "logs"] {
            folders.push(self.folder(kind));
            folders.extend(entries(&self.folder(kind)));
        }
        folders.iter().flat_map(|folder| files::temporaries(folder)).collect()
    }

    /// Returns the sizes of all blobs in bytes.
    pub(super) fn blob_sizes(&self) -> BTreeMap<Digest, u64> {
        let shards = entries(&self.folder("blobs"));
        let blobs = shards.iter().flat_map(|shard| entries(shard)).filter_map(|path| {
            let digest: Digest = path.file_name()?.to_str()?.parse().ok()?;
            let metadata = fs::symlink_metadata(&path).ok()?;
            (path == self.blob_path(&digest)).then_some((digest, metadata.len()))
        });
        blobs.collect()
    }

    /// Returns the keys that have an action record, valid or not.
    pub(super) fn action_keys(&self) -> Vec<Key> {
        let shards = entries(&self.folder("actions"));
        let keys = shards.iter().flat_map(|shard| entries(shard));
        keys.filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()).collect()
    }
}

/// Removes a file, a link, or a folder with its content. Does not follow links.
fn remove(path: &Path) -> Result<()> {
    // Rename it first, so that no process finds a half-removed folder.
    let removed = match files::is_folder(path) {
        true => files::move_away(path).map(|moved| files::remove_folder(&moved))?,
        false => fs::remove_file(path),
    };
    match removed {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("removing {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eventually, key, store};

    #[test]
    fn locked_work_is_kept() {
        let (_folder, store) = store();
        let lock = store.lock(&key("7")).unwrap();
        assert!(!store.remove_work(&key("7"), false).unwrap());
        assert!(store.work_dir(&key("7")).is_dir());
        store.clean_work(lock).unwrap();
        drop(store.lock(&key("7")).unwrap());
        assert!(eventually(|| store.remove_work(&key("7"), false).unwrap()));
        assert!(!store.work_dir(&key("7")).exists());
    }
}
