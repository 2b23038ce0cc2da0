//! Creates, imports and lists the folders of runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::RunRecord;
use super::run_dir::{LATEST, RunDir};
use super::run_id::new_run_id;
use crate::store::files;
use crate::store::{Artifact, Store};

impl Store {
    /// Creates the folder of a new run with its record and the resolved pipeline. Sets the id and the pipeline's name
    /// in the record.
    pub fn create_run(&self, pipeline: &str, resolved_yaml: &str, record: &RunRecord) -> Result<RunDir> {
        self.create_run_with(pipeline, resolved_yaml, record, |_| Ok(()))
    }

    /// Like [`create_run`](Self::create_run), with the additional files that `add_files` writes. Atomic: if the process
    /// is killed, the run either has all of its files or does not exist.
    pub fn create_run_with(
        &self,
        pipeline: &str,
        resolved_yaml: &str,
        record: &RunRecord,
        add_files: impl Fn(&RunDir) -> Result<()>,
    ) -> Result<RunDir> {
        let parent = self.pipeline_folder(pipeline)?;
        let record = RunRecord { pipeline: pipeline.to_string(), ..record.clone() };
        loop {
            let id = new_run_id(Timestamp::now());
            if fs::symlink_metadata(parent.join(&id)).is_ok() {
                continue;
            }
            return stage_run(&parent, &id, |path| {
                let run = RunDir::locked(path, id.clone())?;
                run.write_resolved(resolved_yaml.as_bytes())?;
                add_files(&run)?;
                run.update(&record)?;
                Ok(run)
            });
        }
    }

    /// Adds a run that finished elsewhere, atomically, with links to `outputs`: the names of stages with their results.
    /// The caller must have checked the names.
    pub(super) fn add_run(
        &self,
        record: &RunRecord,
        resolved_yaml: &[u8],
        outputs: &[(&str, Artifact)],
    ) -> Result<RunDir> {
        let is_new = !self.runs_dir().join(&record.pipeline).exists();
        let had_runs = self.latest_run(&record.pipeline).is_some();
        let parent = self.pipeline_folder(&record.pipeline)?;
        let add = || {
            let run = stage_run(&parent, &record.id, |path| {
                let run = RunDir::unlocked(path, record.id.clone());
                run.write_resolved(resolved_yaml)?;
                outputs.iter().try_for_each(|(stage, outputs)| run.link_stage(stage, outputs).map(drop))?;
                run.update(record)?;
                Ok(run)
            })?;
            if !had_runs {
                run.make_latest().inspect_err(|_| drop(fs::remove_dir_all(run.path())))?;
            }
            Ok(run)
        };
        add().inspect_err(|_| {
            if is_new {
                // Keeps the folder if another process has added files to it in the meantime.
                let _ = fs::remove_dir(&parent);
            }
        })
    }

    /// Returns the folder of a pipeline's runs, creating it if necessary.
    fn pipeline_folder(&self, pipeline: &str) -> Result<PathBuf> {
        files::check_name("the pipeline's name", pipeline)?;
        if pipeline == "store" {
            bail!("a pipeline cannot be named \"store\", because runs/store contains the results; rename the pipeline");
        }
        let folder = self.runs_dir().join(pipeline);
        files::create_folder(&folder)?;
        if fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_symlink()) {
            bail!("{} is a link, which srpipe does not follow: remove it", folder.display());
        }
        Ok(folder)
    }

    /// Returns the names of all pipelines that have runs, sorted.
    pub fn pipelines(&self) -> Vec<String> {
        let mut names = folders(self.runs_dir());
        names.retain(|name| name != "store" && !self.runs(name).is_empty());
        names
    }

    /// Returns the runs of a pipeline, the oldest first.
    pub fn runs(&self, pipeline: &str) -> Vec<RunDir> {
        if files::check_name("the pipeline's name", pipeline).is_err() {
            return vec![];
        }
        let parent = self.runs_dir().join(pipeline);
        // A link could lead anywhere.
        if !files::is_folder(&parent) {
            return vec![];
        }
        entry_names(&parent).into_iter().filter_map(|id| RunDir::at(&parent, id)).collect()
    }

    /// Returns the run that the link `latest` points to, or the newest run if the link is invalid.
    pub fn latest_run(&self, pipeline: &str) -> Option<RunDir> {
        let runs = self.runs(pipeline);
        let named = fs::read_link(self.runs_dir().join(pipeline).join(LATEST)).ok();
        let named = runs.iter().find(|run| named.as_deref() == Some(Path::new(run.id())));
        named.or(runs.last()).cloned()
    }
}

/// Creates the folder of a run atomically, with the files that `write` writes. Readers ignore the folder until it is
/// renamed; on failure it is removed.
fn stage_run(parent: &Path, id: &str, write: impl FnOnce(PathBuf) -> Result<RunDir>) -> Result<RunDir> {
    let shared = Permissions::from_mode(0o777);
    let staged = tempfile::Builder::new().prefix(files::TEMPORARY).permissions(shared).tempdir_in(parent);
    let staged = staged.with_context(|| format!("creating a folder in {}", parent.display()))?;
    let run = write(staged.path().to_path_buf())?;
    let path = parent.join(id);
    fs::rename(run.path(), &path).with_context(|| format!("creating the folder {}", path.display()))?;
    let _ = staged.keep();
    Ok(run.moved_to(path))
}

/// Returns the names of the subfolders, sorted, without links and hidden folders.
fn folders(path: &Path) -> Vec<String> {
    let mut names = entry_names(path);
    names.retain(|name| files::is_folder(&path.join(name)));
    names
}

/// Returns the names of everything in a folder, sorted, without hidden files and folders.
fn entry_names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::RunState;
    use crate::runs::testing::record;
    use crate::store::testing::{store, temporaries};

    #[test]
    fn a_run_is_recorded_and_found() {
        let (_folder, store) = store();
        assert_eq!((store.pipelines().len(), store.runs("a").len()), (0, 0));
        assert!(store.latest_run("a").is_none());
        let run = store.create_run("a", "name: a\n", &record()).unwrap();
        let mut expected = RunRecord { id: run.id().to_string(), pipeline: "a".to_string(), ..record() };
        assert_eq!(run.record().unwrap(), expected);
        assert_eq!(run.resolved().unwrap(), b"name: a\n");
        expected.state = RunState::Ok;
        run.update(&expected).unwrap();
        assert_eq!(store.latest_run("a").unwrap().record().unwrap(), expected);
        store.create_run("b", "", &record()).unwrap();
        assert_eq!(store.pipelines(), ["a", "b"]);
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn latest_is_the_linked_run_or_the_newest() {
        let (_folder, store) = store();
        let runs: Vec<_> = (0..3)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                store.create_run("a", "", &record()).unwrap()
            })
            .collect();
        let latest = || store.latest_run("a").unwrap().id().to_string();
        assert_eq!(
            store.runs("a").iter().map(RunDir::id).collect::<Vec<_>>(),
            runs.iter().map(RunDir::id).collect::<Vec<_>>()
        );
        assert_eq!(latest(), runs[2].id());
        for run in [&runs[1], &runs[0]] {
            run.make_latest().unwrap();
            assert_eq!(latest(), run.id());
            assert_eq!(fs::read_link(store.runs_dir().join("a/latest")).unwrap(), Path::new(run.id()));
        }
        fs::remove_dir_all(runs[0].path()).unwrap();
        assert_eq!(latest(), runs[2].id(), "latest names a run that was deleted");
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn folders_that_are_not_runs_are_ignored() {
        let (_folder, store) = store();
        let run = store.create_run("a", "", &record()).unwrap();
        fs::create_dir_all(store.runs_dir().join("a/notes")).unwrap();
        fs::create_dir_all(store.runs_dir().join("somebody's/folder")).unwrap();
        fs::write(store.runs_dir().join("file"), b"").unwrap();
        assert_eq!(store.pipelines(), ["a"]);
        assert_eq!(store.runs("a").len(), 1);
        fs::write(run.path().join("run.json"), b"{").unwrap();
        let error = format!("{:#}", run.record().unwrap_err());
        assert!(error.contains("run.json is damaged"), "{error}");
    }
}
