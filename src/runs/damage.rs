//! Recognises runs whose folder or record is damaged. Jobs of such a run may continue and need their inputs, so the run
//! never counts as missing.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::job_files::RUN_SPEC;
use super::run_dir::{LOCK, RECORD};
use super::{RunDir, RunRecord, is_run_id};
use crate::store::{files, is_held};

/// Whether a path is the folder of a run, even if its record is missing or not a file, or if a link has replaced the
/// folder. `id` is the name of the folder.
fn is_run(path: &Path, id: &str) -> bool {
    match is_run_id(id) {
        true if path.is_symlink() => true,
        true => files::is_folder(path) && !is_abandoned(path),
        false => files::is_folder(path) && exists(&path.join(RECORD)),
    }
}

/// Whether a run's folder is left over from a process that was killed while it created the run: it has no record, no
/// live process and no job.
pub(super) fn is_abandoned(path: &Path) -> bool {
    !exists(&path.join(RECORD)) && !is_held(&path.join(LOCK)) && !may_have_jobs(path)
}

/// Whether the files in a run's folder show that jobs were submitted. Older versions did not create runs atomically.
fn may_have_jobs(path: &Path) -> bool {
    let Some(run) = RunDir::of_folder(path) else { return false };
    let folder = run.jobs_dir();
    if !exists(&folder) {
        return false;
    }
    let is_other = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name != RUN_SPEC && !name.as_encoded_bytes().starts_with(files::TEMPORARY.as_bytes())
    };
    !files::is_folder(&folder) || files::entries(&folder).iter().any(|path| is_other(path))
}

/// Whether something exists at this path. True if that cannot be determined.
fn exists(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound)
}

impl RunDir {
    /// Returns the run with this id; None if the path is not the folder of a run. The run may be damaged.
    pub(super) fn at(parent: &Path, id: String) -> Option<Self> {
        let path = parent.join(&id);
        is_run(&path, &id).then(|| Self::unlocked(path, id))
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Fails if the record is missing or damaged, or belongs to another run.
    pub fn record(&self) -> Result<RunRecord> {
        self.check_folder()?;
        let path = self.path().join(RECORD);
        let bytes = match files::read_record(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound && !exists(self.path()) => {
                bail!("the run {} was removed", self.id());
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(anyhow!("{} is missing: {}", path.display(), self.remedy()));
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => return Err(anyhow!(e).context(self.damaged())),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let record = RunRecord::from_json(&bytes).with_context(|| self.damaged())?;
        let pipeline = self.path().parent().and_then(Path::file_name);
        let is_of_folder = pipeline.is_none_or(|name| name == OsStr::new(&record.pipeline));
        match record.id == self.id() && is_of_folder {
            true => Ok(record),
            false => Err(anyhow!(
                "it belongs to run {} of pipeline {}. If the folder of that run was moved or copied here, move this \
                 folder back or out of the runs folder instead",
                record.id,
                record.pipeline
            )
            .context(self.damaged())),
        }
    }

    fn damaged(&self) -> String {
        format!("{} is damaged: {}", self.path().join(RECORD).display(), self.remedy())
    }

    /// Returns what to do about a damaged run.
    fn remedy(&self) -> String {
        let cancel = match self.has_jobs_dir() {
            true => format!("cancel its jobs with `srpipe cancel {}`, then remove", self.id()),
            false => "remove".to_string(),
        };
        format!("{cancel} the folder of this run; its results stay in the store until `srpipe gc`")
    }

    /// Fails if the run's folder is a link, which could lead anywhere.
    pub(super) fn check_folder(&self) -> Result<()> {
        self.check_not_linked(self.path())
    }

    /// Fails if the run's folder or that of its jobs is a link.
    pub fn check_jobs_dir(&self) -> Result<()> {
        self.check_folder()?;
        self.check_not_linked(&self.jobs_dir())
    }

    fn check_not_linked(&self, path: &Path) -> Result<()> {
        match path.is_symlink() {
            false => Ok(()),
            true => bail!(
                "{} is a link, which srpipe does not follow: replace it with the folder itself, or cancel the jobs of \
                 the run with `srpipe cancel {}` and remove the link",
                path.display(),
                self.id()
            ),
        }
    }
}
