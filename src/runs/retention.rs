//! Decides which runs `gc` keeps, and removes the others with the results that only they refer to.
//!
//! Live runs, pinned runs and the newest runs of each pipeline are kept, with the results of their stages. Runs are
//! removed before their results, so that an interrupted collection leaves only results that no run refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::damage::is_abandoned;
use super::is_run_id;
use crate::store::{Collected, Key, Store, files};

/// Which runs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The number of the newest runs to keep per pipeline, at least one.
    pub keep: usize,
    /// If the blobs of the kept runs have more bytes than this, the oldest runs are removed too, but never the latest
    /// run of a pipeline.
    pub max_bytes: Option<u64>,
}

/// What was removed, or would be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// `PIPELINE/ID`
    pub runs: Vec<String>,
    #[serde(flatten)]
    pub results: Collected,
}

/// The properties of a run that decide whether it is kept.
#[derive(Debug, Clone)]
struct Candidate {
    pipeline: String,
    /// Ids sort by time.
    id: String,
    /// Live, pinned or the latest of its pipeline.
    must_stay: bool,
    keys: BTreeSet<Key>,
}

/// Decides for each run whether it is kept. `size` returns the total size of the blobs of these keys, in bytes.
fn choose(runs: &[Candidate], retention: Retention, size: impl Fn(&BTreeSet<&Key>) -> u64) -> Vec<bool> {
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

/// Removes the runs that `retention` does not keep, and the results that no kept run refers to. With `dry_run`, only
/// reports what it would remove.
///
/// # Errors
/// Fails while jobs of a run may continue although no process watches them: no record lists the results that they
/// need.
pub fn collect_garbage(store: &Store, retention: Retention, dry_run: bool) -> Result<Removed> {
    let collection = store.begin_collection()?;
    refuse_unwatched_runs(store)?;
    let mut runs = vec![];
    for pipeline in store.pipelines() {
        let latest = store.latest_run(&pipeline).map(|run| run.id().to_string());
        for run in store.runs(&pipeline) {
            let keys = run.record().map(|record| record.stages.into_iter().filter_map(|stage| stage.key).collect());
            let candidate = Candidate {
                pipeline: pipeline.clone(),
                id: run.id().to_string(),
                must_stay: run.is_live() || run.is_pinned() || latest.as_deref() == Some(run.id()),
                // If a run's record is damaged, use its links.
                keys: keys.unwrap_or_else(|_| collection.keys_with_outputs_in(&run.linked_blobs())),
            };
            runs.push((run, candidate));
        }
    }
    let candidates: Vec<Candidate> = runs.iter().map(|(_, candidate)| candidate.clone()).collect();
    let stays = choose(&candidates, retention, |keys| collection.size(keys));
    let kept = candidates.iter().zip(&stays).filter(|(_, stays)| **stays).flat_map(|(run, _)| &run.keys).collect();

    let mut removed: Vec<String> = vec![];
    let mut unneeded: Vec<PathBuf> = vec![];
    for ((run, candidate), _) in runs.iter().zip(&stays).filter(|(_, stays)| !**stays) {
        removed.push(format!("{}/{}", candidate.pipeline, candidate.id));
        unneeded.push(run.path().to_path_buf());
    }
    let leftovers = leftovers(store);
    let temporaries = leftovers.len();
    unneeded.extend(leftovers);
    let mut results = collection.finish(&unneeded, &kept, dry_run)?;
    results.temporaries += temporaries;
    Ok(Removed { runs: removed, results })
}

/// Returns abandoned run folders, and the temporary files and folders of runs that are not live.
fn leftovers(store: &Store) -> Vec<PathBuf> {
    let runs_dir = store.runs_dir();
    let mut folders = vec![runs_dir.to_path_buf()];
    // Including those of pipelines whose first run was never completely created.
    folders.extend(files::entries(runs_dir).into_iter().filter(|path| *path != runs_dir.join("store")));
    for pipeline in store.pipelines() {
        for run in store.runs(&pipeline).into_iter().filter(|run| !run.is_live()) {
            folders.push(run.path().to_path_buf());
            folders.push(run.jobs_dir());
            folders.extend(files::entries(run.path()));
        }
    }
    let temporaries = folders.iter().flat_map(|folder| files::temporaries(folder));
    let mut found: Vec<PathBuf> = abandoned_runs(store).into_iter().chain(temporaries).collect();
    found.sort();
    found.dedup();
    found
}

/// Fails if jobs of a run may continue although no process watches them.
fn refuse_unwatched_runs(store: &Store) -> Result<()> {
    for run in store.pipelines().into_iter().flat_map(|pipeline| store.runs(&pipeline)) {
        let id = run.id();
        match run.record() {
            Ok(record) if record.may_have_unwatched_jobs() && !run.is_live() => bail!(
                "the jobs of run {id} continue although no process watches them: wait for them (`srpipe status {id}`), \
                 or cancel them with `srpipe cancel {id}`"
            ),
            Err(error) if run.has_jobs_dir() => {
                return Err(error.context(format!("the jobs of run {id} may continue and need their inputs")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns run folders without a record, whose process was killed before it wrote one.
fn abandoned_runs(store: &Store) -> Vec<PathBuf> {
    let is_abandoned = |path: &PathBuf| {
        files::is_folder(path)
            && path.file_name().and_then(|name| name.to_str()).is_some_and(is_run_id)
            && is_abandoned(path)
    };
    let runs_dir = store.runs_dir();
    let pipelines = files::entries(runs_dir).into_iter().filter(|path| *path != runs_dir.join("store"));
    pipelines.flat_map(|pipeline| files::entries(&pipeline)).filter(is_abandoned).collect()
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
