//! Slurm as a batch system.
//!
//! - `commands`: runs `sbatch`, `squeue`, `sacct`, `scancel` and `scontrol`, and parses their output.
//! - `options`: translates a stage's resources into options of `sbatch`. `states`: parses Slurm's job states.

mod commands;
mod options;
mod states;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::batch::system::{BatchSystem, CurrentJob, End, JobState, Jobs, Refusal, Submission};
use crate::plan::PlannedStage;

use options::Defaults;

/// The user's settings for Slurm.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub defaults: Defaults,
    /// How long it may take until this machine sees what a job wrote to the shared file system.
    pub grace: Duration,
    /// How long a command of Slurm may take.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { defaults: Defaults::default(), grace: Duration::from_secs(60), timeout: Duration::from_secs(30) }
    }
}

pub(super) struct Slurm {
    settings: Settings,
}

impl Slurm {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings }
    }
}

impl BatchSystem for Slurm {
    fn name(&self) -> &'static str {
        "Slurm"
    }

    fn grace(&self) -> Duration {
        self.settings.grace
    }

    fn check_available(&self) -> Result<(), String> {
        commands::check_available()
    }

    fn requests_gpu(&self, stage: &PlannedStage) -> bool {
        self.settings.defaults.complete(stage, false).0.gpus.is_some_and(|gpus| gpus > 0)
    }

    fn options(&self, stage: &PlannedStage, cuda: bool) -> Vec<String> {
        options::options(&self.settings.defaults.complete(stage, cuda))
    }

    fn submit(&self, submission: &Submission) -> Result<u64, Refusal> {
        commands::sbatch(submission, self.settings.timeout)
    }

    fn queue(&self, run_id: &str) -> Result<Jobs> {
        commands::squeue(run_id, self.settings.timeout)
    }

    fn accounting(&self, run_id: &str, since: &str) -> Result<Option<BTreeMap<String, JobState>>> {
        commands::sacct(run_id, since, self.settings.timeout)
    }

    fn cancel(&self, run_id: &str) -> Result<()> {
        commands::scancel(run_id, self.settings.timeout)
    }

    fn start_now(&self, job: &str) -> Result<()> {
        commands::start_now(job, self.settings.timeout)
    }

    fn current_job(&self) -> CurrentJob {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        CurrentJob {
            id: std::env::var("SLURM_JOB_ID").unwrap_or_default(),
            task: number("SLURM_ARRAY_TASK_ID"),
            restarts: number("SLURM_RESTART_COUNT").unwrap_or(0),
            cores: number("SLURM_CPUS_PER_TASK").or_else(|| number("SLURM_CPUS_ON_NODE")),
        }
    }

    fn requeue(&self, job: &str) -> Result<()> {
        commands::requeue(job, self.settings.timeout)
    }

    fn is_running(&self, job: &str) -> bool {
        commands::is_running(job, self.settings.timeout)
    }

    fn end_in_log(&self, stderr: &str) -> Option<End> {
        states::end_in_log(stderr)
    }
}
