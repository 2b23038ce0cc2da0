//! The job's side: what a process that Slurm started is to do, and how it goes when it is to go.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::SIGUSR2;

use super::job_outcome::AGAIN;
use super::job_store::{CACHE_UNAVAILABLE, RunSpec, entry};
use super::{queue, secrets};
use crate::plan::{BackendClass, StageState, state_of};
use crate::run::cache_state::Visible;
use crate::run::log::log;
use crate::run::protocol::{ProcessEvent, TaskSpec};
use crate::run::status::Cause;
use crate::store::{Key, Store, open_log};

/// How long what other jobs have made may take to be seen here.
const PATIENCE: Duration = Duration::from_secs(30);

/// This process as Slurm started it.
pub struct Job {
    spec: RunSpec,
    stage: usize,
    split: usize,
    /// As `scontrol` takes it.
    id: String,
    /// How often it was started before.
    restarts: usize,
    /// The marker file for an unusable shared cache.
    marker: PathBuf,
}

/// What there is to do.
pub enum Task {
    Run(Box<TaskSpec>),
    /// The result is there.
    Known,
}

impl Job {
    /// By the file of its batch, and what Slurm has put into the environment.
    pub fn new(batch: &Path) -> Result<Self> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let (spec, stage, split) = entry(batch, number("SLURM_ARRAY_TASK_ID").unwrap_or(0))?;
        let id = std::env::var("SLURM_JOB_ID").unwrap_or_default();
        let restarts = number("SLURM_RESTART_COUNT").unwrap_or(0);
        if restarts > 0 {
            log(AGAIN);
        }
        let marker = batch.with_file_name(CACHE_UNAVAILABLE);
        Ok(Self { spec, stage, split, id, restarts, marker })
    }

    pub fn runs(&self) -> &Path {
        &self.spec.runs
    }

    /// Disables the shared cache for jobs of this run that start later.
    pub fn disable_cache(&self) {
        // If the marker cannot be written, they find out for themselves.
        let _ = File::create(&self.marker);
    }

    /// Works out the stage's key from what is there now: what it reads was perhaps not when the job was submitted, and
    /// may have come out as something that is known.
    pub fn task(&self, store: &Store) -> Result<Task> {
        let RunSpec { plan, sources, backend, forced, remote, runs, .. } = &self.spec;
        let mut hidden: BTreeSet<Key> = BTreeSet::new();
        let start = Instant::now();
        let force = forced.contains(&self.stage);
        loop {
            let look = |stage| state_of(plan, stage, &Visible { store, hidden: &hidden }, sources, *backend);
            match look(self.stage) {
                StageState::Cached { key, .. } if force => drop(hidden.insert(key)),
                StageState::Cached { .. } => return Ok(Task::Known),
                StageState::Ready { key, preimage } => {
                    let planned = &plan.stages[self.stage];
                    let mut params = planned.params.clone();
                    secrets::restore(&mut params, &planned.name, std::env::var(secrets::VARIABLE).ok().as_deref())?;
                    return Ok(Task::Run(Box::new(TaskSpec {
                        key,
                        preimage,
                        params,
                        cuda: (*backend == BackendClass::Cuda).then_some(0),
                        threads: threads(),
                        split: self.split,
                        gpus: gpus(),
                        force,
                        remote: remote.clone().filter(|_| !self.marker.exists()),
                        runs: runs.clone(),
                    })));
                }
                StageState::Waiting { on } if start.elapsed() > PATIENCE => {
                    let names: Vec<&str> = on.iter().map(|&on| plan.stages[on].name.as_str()).collect();
                    bail!(
                        "stage {} needs the result of {}, and {} does not have it",
                        plan.stages[self.stage].name,
                        names.join(", "),
                        store.runs_dir().display()
                    );
                }
                StageState::Waiting { on } => {
                    on.iter().filter_map(|&on| look(on).key().cloned()).for_each(|key| store.refresh(&key));
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }

    /// The last word of a stage that has saved its progress because of a signal. Before the time is up, and where the job
    /// has to make room for another, it goes into the queue again, as far as its `retry` allows.
    pub fn leave(&self, signal: i32, say: impl Fn(String)) -> ProcessEvent {
        let cause = if signal == SIGUSR2 { Cause::Time } else { Cause::Preempted };
        let allowed = cause.retries(&self.spec.plan.stages[self.stage].retry);
        let error = match cause {
            Cause::Time => "its time on the cluster was up; its progress is saved",
            _ => "it was asked to make room; its progress is saved",
        };
        // A job that was cancelled is no longer running, as Slurm sees it, and stays cancelled.
        let is_wanted = cause == Cause::Time || queue::is_running(&self.id);
        if self.restarts < allowed && is_wanted {
            say(format!("{error}; it goes into the queue again ({} of {allowed})", self.restarts + 1));
            match queue::requeue(&self.id) {
                Ok(()) => return ProcessEvent::Requeued { cause },
                Err(error) => say(format!("it cannot: {error:#}")),
            }
        }
        match cause {
            Cause::Time => ProcessEvent::Failed { error: error.into(), cause, damaged: None },
            // Why it was, Slurm knows.
            _ => ProcessEvent::Interrupted,
        }
    }
}

/// As many as the job was given.
fn threads() -> usize {
    let given = ["SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"];
    let given = given.iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
    let threads = given.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    threads.max(1)
}

fn gpus() -> Vec<String> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    visible.split(',').map(|id| id.trim().to_string()).filter(|id| !id.is_empty()).collect()
}

/// From here on, what this process writes to stderr goes to the end of a file.
pub fn log_to(path: &Path) -> Result<()> {
    let file = open_log(path)?;
    rustix::stdio::dup2_stderr(&file).with_context(|| format!("writing stderr to {}", path.display()))
}
