//! The side of the job: determines which stage a process that the batch system started must run, and how it stops.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use signal_hook::consts::SIGUSR2;

use super::job_store::{CACHE_UNAVAILABLE, RunSpec, read_task};
use super::secrets;
use super::system::{BatchSystem, CurrentJob};
use super::tracked_job::RESTART_LINE;
use crate::plan::{BackendClass, StageState, state_of};
use crate::run::cache_state::Visible;
use crate::run::log::log;
use crate::run::protocol::{ProcessEvent, TaskSpec};
use crate::run::status::Cause;
use crate::store::{Key, Store};

/// How long results of other jobs may take to become visible on this machine.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The job that this process runs in.
pub struct Job {
    system: Arc<dyn BatchSystem>,
    current: CurrentJob,
    spec: RunSpec,
    stage: usize,
    batch_divisor: usize,
    /// The marker file for an unusable shared cache.
    marker: PathBuf,
}

/// The work of a job.
pub enum Task {
    Run(Box<TaskSpec>),
    /// The result is in the store.
    Cached,
}

impl Job {
    /// Returns the job of this process. `record` is the record of its batch, and `system` the batch system of `spec`.
    pub fn new(record: &Path, system: impl Fn(&RunSpec) -> Result<Arc<dyn BatchSystem>>) -> Result<Self> {
        let system = system(&read_task(record, 0)?.0)?;
        let current = system.current_job();
        let (spec, stage, batch_divisor) = read_task(record, current.task.unwrap_or(0))?;
        if current.restarts > 0 {
            log(RESTART_LINE);
        }
        let marker = record.with_file_name(CACHE_UNAVAILABLE);
        Ok(Self { system, current, spec, stage, batch_divisor, marker })
    }

    /// Returns the index of this job in its array.
    pub fn index(&self) -> Option<usize> {
        self.current.task
    }

    pub fn runs(&self) -> &Path {
        &self.spec.runs
    }

    /// Disables the shared cache for jobs of this run that start later.
    pub(in crate::run) fn disable_cache(&self) {
        // If the marker cannot be written, those jobs detect the problem themselves.
        let _ = File::create(&self.marker);
    }

    /// Computes the stage's key from the results that exist now: its inputs may not have existed when the job was
    /// submitted, and the stage may have become cached.
    pub fn task(&self, store: &Store) -> Result<Task> {
        let RunSpec { plan, sources, backend, forced, remote, runs, .. } = &self.spec;
        let mut hidden: BTreeSet<Key> = BTreeSet::new();
        let start = Instant::now();
        let force = forced.contains(&self.stage);
        loop {
            let state = |stage| state_of(plan, stage, &Visible { store, hidden: &hidden }, sources, *backend);
            match state(self.stage) {
                StageState::Cached { key, .. } if force => drop(hidden.insert(key)),
                StageState::Cached { .. } => return Ok(Task::Cached),
                StageState::Ready { key, preimage } => {
                    let planned = &plan.stages[self.stage];
                    let mut params = planned.params.clone();
                    secrets::restore(&mut params, &planned.name, std::env::var(secrets::VARIABLE).ok().as_deref())?;
                    return Ok(Task::Run(Box::new(TaskSpec {
                        key,
                        preimage,
                        params,
                        cuda: (*backend == BackendClass::Cuda).then_some(0),
                        threads: self.threads(),
                        batch_divisor: self.batch_divisor,
                        gpus: gpus(),
                        force,
                        remote: remote.clone().filter(|_| !self.marker.exists()),
                        runs: runs.clone(),
                    })));
                }
                StageState::Waiting { on } if start.elapsed() > MAX_WAIT => {
                    let names: Vec<&str> = on.iter().map(|&on| plan.stages[on].name.as_str()).collect();
                    bail!(
                        "stage {} needs the result of {}, which is missing from {}",
                        plan.stages[self.stage].name,
                        names.join(", "),
                        store.runs_dir().display()
                    );
                }
                StageState::Waiting { on } => {
                    on.iter().filter_map(|&on| state(on).key().cloned()).for_each(|key| store.refresh(&key));
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }

    /// Returns the last event of a stage that has saved its progress because of a signal. If its time is nearly up or
    /// the job is preempted, requeues the job, as far as the stage's `retry` allows.
    pub fn stop(&self, signal: i32, report: impl Fn(String)) -> ProcessEvent {
        let cause = if signal == SIGUSR2 { Cause::Time } else { Cause::Preempted };
        let allowed = cause.retries(&self.spec.plan.stages[self.stage].retry);
        let error = match cause {
            Cause::Time => "the time limit of the job is reached; progress is saved",
            _ => "the job was asked to stop; progress is saved",
        };
        // For the batch system, a cancelled job is not running; it must stay cancelled.
        let may_requeue = cause == Cause::Time || self.system.is_running(&self.current.id);
        let restarts = self.current.restarts;
        if restarts < allowed && may_requeue {
            report(format!("{error}; the job is requeued ({} of {allowed})", restarts + 1));
            match self.system.requeue(&self.current.id) {
                Ok(()) => return ProcessEvent::Requeued { cause },
                Err(error) => report(format!("cannot requeue the job: {error:#}")),
            }
        }
        match cause {
            Cause::Time => ProcessEvent::Failed { error: error.into(), cause, damaged: None },
            // The batch system reports the reason.
            _ => ProcessEvent::Interrupted,
        }
    }

    /// Returns the number of cores allocated to the job.
    fn threads(&self) -> usize {
        let cores = self.current.cores;
        cores.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1)
    }
}

/// Returns the GPUs allocated to the job.
fn gpus() -> Vec<String> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    visible.split(',').map(|id| id.trim().to_string()).filter(|id| !id.is_empty()).collect()
}
