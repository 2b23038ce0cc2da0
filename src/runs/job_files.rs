//! The files of a run whose stages are jobs of a batch system.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::RunDir;
use crate::store::files::{self, Durability};

/// The subfolder of a run's folder that contains the records and output of its jobs.
const JOBS: &str = ".slurm";

/// The name of the file that specifies what a run's jobs do. It is written before the first job is submitted.
pub const RUN_SPEC: &str = "charter.json";

impl RunDir {
    /// Returns the folder for the records and output of the run's jobs.
    pub fn jobs_dir(&self) -> PathBuf {
        self.path().join(JOBS)
    }

    /// Whether the run has a folder for its jobs, whatever its record says.
    pub fn has_jobs_dir(&self) -> bool {
        // A link may have replaced the run's folder, so that its jobs are unknown.
        self.path().is_symlink() || std::fs::symlink_metadata(self.jobs_dir()).is_ok()
    }

    /// Returns the run to which a file in a folder of jobs belongs.
    pub fn of_job_file(path: &Path) -> Option<Self> {
        Self::of_folder(path.parent()?.parent()?)
    }

    /// Writes a file in the folder of the jobs, atomically and durably.
    pub fn write_job_file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        files::check_name("the file's name", name)?;
        self.check_jobs_dir()?;
        let path = self.jobs_dir().join(name);
        files::write(&path, bytes, Durability::Synced)?;
        Ok(path)
    }
}
