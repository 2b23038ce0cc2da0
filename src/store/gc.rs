//! Removing what no run needs any more.
//!
//! Roots are the runs that are kept (live ones, pinned ones, the newest of each pipeline) and the keys that are worked on.
//! What they name stays: actions by key, blobs through actions, work that was interrupted. Everything else goes: first
//! runs, then actions, blobs last, so that an interrupted removal leaves unreferenced blobs and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cluster::LEASE;
use super::files::entries;
use super::{Action, Digest, Key, RunDir, RunState, Store, files, runs};
use crate::config::ExecutorKind;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Of each pipeline, this many of the newest runs, at least one.
    pub keep: usize,
    /// Fewer of them, the oldest first, where their blobs take more bytes than this; never the latest of a pipeline.
    pub max_bytes: Option<u64>,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// `PIPELINE/ID`
    pub runs: Vec<String>,
    pub actions: usize,
    pub blobs: usize,
    /// Of the blobs.
    pub bytes: u64,
    /// Unfinished work that no kept run can go on with.
    pub work: usize,
    /// What killed processes left half-written.
    pub temporaries: usize,
    pub blobs_left: usize,
    pub bytes_left: u64,
}

/// What decides about a run.
#[derive(Debug, Clone)]
struct Facts {
    /// Pipeline and id; ids sort by time.
    pipeline: String,
    id: String,
    /// Live, pinned or the latest of its pipeline.
    must_stay: bool,
    keys: BTreeSet<Key>,
}

/// Which runs stay. `size`: the bytes that the blobs of these keys take.
fn choose(runs: &[Facts], retention: Retention, size: impl Fn(&BTreeSet<&Key>) -> u64) -> Vec<bool> {
    let mut newest_first: Vec<usize> = (0..runs.len()).collect();
    newest_first.sort_by(|&a, &b| runs[b].id.cmp(&runs[a].id));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut stays = vec![false; runs.len()];
    for &run in &newest_first {
        let count = counts.entry(&runs[run].pipeline).or_default();
        *count += 1;
        stays[run] = runs[run].must_stay || *count <= retention.keep.max(1);
    }
    let Some(max) = retention.max_bytes else { return stays };
    for &run in newest_first.iter().rev() {
        let kept = runs.iter().zip(&stays).filter(|(_, stays)| **stays).flat_map(|(run, _)| &run.keys).collect();
        if size(&kept) <= max {
            break;
        }
        stays[run] = runs[run].must_stay;
    }
    stays
}

impl Store {
    /// Removes what `retention` does not keep; `dry_run` only tells.
    pub fn gc(&self, retention: Retention, dry_run: bool) -> Result<Removed> {
        // Takes a while where another machine's worker may have died, and nobody else has to wait.
        let stopped = self.stopped_elsewhere(LEASE);
        let _hold = self.hold_alone()?;
        self.refuse_links()?;
        self.refuse_left_runs()?;
        let actions: BTreeMap<Key, Option<Action>> =
            self.action_keys().into_iter().map(|key| (key.clone(), self.action(&key).ok().flatten())).collect();
        let actions = &actions;
        let abandoned = self.abandoned_runs();
        let runs: Vec<(RunDir, Facts)> = self
            .pipelines()
            .into_iter()
            .flat_map(|pipeline| {
                let latest = self.latest_run(&pipeline).map(|run| run.id().to_string());
                self.runs(&pipeline).into_iter().map(move |run| {
                    let keys =
                        run.record().map(|record| record.stages.into_iter().filter_map(|stage| stage.key).collect());
                    // If a run's record is damaged, use its links.
                    let keys = keys.unwrap_or_else(|_| keys_with_outputs_in(&run.linked(), actions));
                    let facts = Facts {
                        pipeline: pipeline.clone(),
                        id: run.id().to_string(),
                        must_stay: run.is_live() || run.is_pinned() || latest.as_deref() == Some(run.id()),
                        keys,
                    };
                    (run, facts)
                })
            })
            .collect();
        let sizes: BTreeMap<Digest, u64> = self.blob_sizes();
        let blobs = |keys: &BTreeSet<&Key>| -> BTreeSet<&Digest> {
            let kept = keys.iter().filter_map(|key| actions.get(key)?.as_ref());
            kept.flat_map(|action| action.outputs.values()).collect()
        };
        let size = |keys: &BTreeSet<&Key>| blobs(keys).iter().filter_map(|digest| sizes.get(digest)).sum();

        let facts: Vec<Facts> = runs.iter().map(|(_, facts)| facts.clone()).collect();
        let stays = choose(&facts, retention, size);
        let live = self.live_keys(&stopped);
        let kept_runs = facts.iter().zip(&stays).filter(|(_, stays)| **stays);
        let kept: BTreeSet<&Key> = kept_runs.flat_map(|(run, _)| &run.keys).chain(&live).collect();
        let leased: Vec<Digest> = live.iter().flat_map(|key| self.leased(key)).collect();
        let mut kept_blobs = blobs(&kept);
        kept_blobs.extend(&leased);

        let mut removed = Removed::default();
        let mut doomed: Vec<PathBuf> = vec![];
        for ((run, facts), _) in runs.iter().zip(&stays).filter(|(_, stays)| !**stays) {
            removed.runs.push(format!("{}/{}", facts.pipeline, facts.id));
            doomed.push(run.path().to_path_buf());
        }
        removed.temporaries += abandoned.len();
        doomed.extend(abandoned);
        for key in actions.keys().filter(|key| !kept.contains(key)) {
            removed.actions += 1;
            doomed.push(self.action_path(key));
            doomed.extend(self.kept_logs(key));
        }
        for key in self.work_keys().iter().filter(|key| !live.contains(key)) {
            // A process that was killed between its commit and its cleaning up leaves the work of what is done.
            let is_done = matches!(actions.get(key), Some(Some(_)));
            let is_removed =
                (is_done || !kept.contains(key)) && (dry_run || self.remove_work(key, kept.contains(key))?);
            removed.work += usize::from(is_removed);
        }
        for (digest, size) in &sizes {
            if kept_blobs.contains(digest) {
                removed.blobs_left += 1;
                removed.bytes_left += size;
            } else {
                removed.blobs += 1;
                removed.bytes += size;
                doomed.push(self.blob_path(digest));
            }
        }
        let temporaries = self.temporaries();
        removed.temporaries += temporaries.len();
        doomed.extend(temporaries);
        if !dry_run {
            doomed.iter().try_for_each(|path| remove(path))?;
        }
        Ok(removed)
    }

    /// Removes the work folder of a key, unless a process holds its lock.
    fn remove_work(&self, key: &Key, keep_logs: bool) -> Result<bool> {
        let folder = self.work_dir(key);
        if !files::is_folder(&folder) {
            remove(&folder)?;
            return Ok(true);
        }
        let Some(lock) = self.try_lock_stopped(key)? else { return Ok(false) };
        if keep_logs {
            self.keep_logs(key)?;
        }
        self.discard_work(lock)?;
        Ok(true)
    }

    /// Returns run folders whose process was killed before it wrote the record.
    fn abandoned_runs(&self) -> Vec<PathBuf> {
        let is_abandoned = |path: &PathBuf| {
            files::is_folder(path)
                && path.file_name().and_then(|name| name.to_str()).is_some_and(runs::is_new_id)
                && RunDir::is_abandoned(path)
        };
        let pipelines = files::entries(&self.runs).into_iter().filter(|path| *path != self.folder(""));
        pipelines.flat_map(|pipeline| files::entries(&pipeline)).filter(is_abandoned).collect()
    }

    /// An error where jobs on a cluster may go on that nobody watches: no record says what they count on.
    fn refuse_left_runs(&self) -> Result<()> {
        let runs = self.pipelines().into_iter().flat_map(|pipeline| self.runs(&pipeline));
        let is_left = |run: &RunDir| {
            let record = run.record();
            record.is_ok_and(|record| record.executor == ExecutorKind::Slurm && record.state == RunState::Running)
                && !run.is_live()
        };
        let Some(run) = runs.into_iter().find(is_left) else { return Ok(()) };
        let id = run.id();
        bail!(
            "the jobs of run {id} go on without a process: wait for them (`srpipe status {id}`), or `srpipe cancel {id}`"
        )
    }

    /// An error where a link stands for a folder of the store, or of a pipeline's runs: stages may read through it, and what
    /// is behind it would be taken for missing.
    pub(super) fn refuse_links(&self) -> Result<()> {
        let mut places: Vec<PathBuf> = ["actions", "blobs", "work"].map(|kind| self.folder(kind)).into();
        places.extend(["actions", "blobs"].iter().flat_map(|kind| entries(&self.folder(kind))));
        // All results may lie elsewhere; of one kind alone they may not.
        places.extend(entries(&self.runs).into_iter().filter(|path| *path != self.folder("")));
        places.sort();
        let is_link = |path: &PathBuf| path.is_symlink() && path.is_dir();
        if let Some(link) = places.into_iter().find(is_link) {
            let link = link.display();
            bail!(
                "{link} is a link, which srpipe does not follow: put the folder itself there, or link all of runs/store"
            )
        }
        let kinds = ["actions", "blobs", "work"].map(|kind| self.folder(kind));
        match kinds.into_iter().find(|path| path.exists() && !files::is_folder(path)) {
            Some(other) => bail!("{} is not a folder: remove it", other.display()),
            None => Ok(()),
        }
    }

    /// Returns the temporary files and folders of the store and of runs that are not live. No process writes there
    /// while `gc` has exclusive access to the store. A process that works on a key cleans its work folder itself.
    fn temporaries(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.runs.clone(), self.folder(""), self.folder("work")];
        for kind in ["blobs", "actions", "logs"] {
            folders.push(self.folder(kind));
            folders.extend(entries(&self.folder(kind)));
        }
        for pipeline in self.pipelines() {
            folders.push(self.runs.join(&pipeline));
            for run in self.runs(&pipeline).into_iter().filter(|run| !run.is_live()) {
                folders.push(run.path().to_path_buf());
                folders.push(run.jobs_dir());
                folders.extend(entries(run.path()));
            }
        }
        let mut found: Vec<PathBuf> = folders.iter().flat_map(|folder| files::temporaries(folder)).collect();
        found.sort();
        found.dedup();
        found
    }

    /// The lengths of all blobs.
    pub(super) fn blob_sizes(&self) -> BTreeMap<Digest, u64> {
        let shards = entries(&self.folder("blobs"));
        let blobs = shards.iter().flat_map(|shard| entries(shard)).filter_map(|path| {
            let digest: Digest = path.file_name()?.to_str()?.parse().ok()?;
            let metadata = fs::symlink_metadata(&path).ok()?;
            (path == self.blob_path(&digest)).then_some((digest, metadata.len()))
        });
        blobs.collect()
    }

    /// The keys that have an action, readable or not.
    pub(super) fn action_keys(&self) -> Vec<Key> {
        let shards = entries(&self.folder("actions"));
        let keys = shards.iter().flat_map(|shard| entries(shard));
        keys.filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()).collect()
    }
}

/// Returns the keys of the actions whose outputs are all among `blobs`.
fn keys_with_outputs_in(blobs: &BTreeSet<Digest>, actions: &BTreeMap<Key, Option<Action>>) -> BTreeSet<Key> {
    let is_linked = |action: &Action| action.outputs.values().all(|digest| blobs.contains(digest));
    let linked = actions.iter().filter(|(_, action)| action.as_ref().is_some_and(is_linked));
    linked.map(|(key, _)| key.clone()).collect()
}

/// Removes a file, a link or a folder with all in it; links in it are not followed.
fn remove(path: &Path) -> Result<()> {
    // Renamed first, so that a half-removed folder is never found.
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
#[path = "gc_tests.rs"]
mod tests;
