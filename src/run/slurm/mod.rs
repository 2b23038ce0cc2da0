//! Stages as jobs of a Slurm cluster, over a file system that its machines share.
//!
//! - `job_store`: what a run keeps of its jobs. `options`: what a stage asks for, in the words of `sbatch`.
//! - `queue`: Slurm's commands and their answers, which `command` waits for. `verdict`: what became of a job, by all that is
//!   seen of it.
//! - `clerk`: the thread that submits (`submit`, `queue`), asks (`poll`) and watches, job by job (`tracked`). [`Slurm`]: what
//!   the scheduler sees of it.
//! - `detach`: a whole graph handed over at once. `reconcile`: what became of jobs that nobody tracked.
//! - `secrets`: passes secrets to jobs without writing them to files.
//! - `job`: the other side, the process that Slurm starts on a node.
//!
//! The result in the store is what counts, and jobs go on without the process that submitted them. Whoever takes up the
//! run later finds them by the run's id, which is their name, and by the tag in their comment.

mod command;
mod detach;
mod job;
mod job_outcome;
mod job_store;
mod monitor;
mod options;
mod poll;
mod queue;
mod reconcile;
mod secrets;
mod submit;
mod submit_queue;
mod tracked_job;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use super::executor::{Executor, Report};
use super::protocol::TaskSpec;
use super::status::Cause;
use crate::config::Device;
use crate::pipeline::Pipeline;
use crate::plan::{Plan, StageState, plan};
use crate::runs::{JobRecord, RunDir};
use crate::store::Store;

pub use detach::detach;
pub use job::{Job, Task, log_to};
pub use job_store::{JobStore, RunSpec};
pub use options::Defaults;
pub use queue::is_there;
pub use reconcile::reconcile;

use job_outcome::JobState;
use monitor::{Monitor, ReadyStage, Request};
use poll::Poll;
use submit::Submitter;

/// How long a run that was asked to end waits for somebody who wants its jobs cancelled.
const LEAVING: Duration = Duration::from_secs(10);

/// How runs on a cluster are done, as the user's settings say.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub defaults: Defaults,
    /// See `verdict`.
    pub grace: Duration,
    /// How long a command of Slurm may take.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { defaults: Defaults::default(), grace: Duration::from_secs(60), timeout: queue::TIMEOUT }
    }
}

/// A job in the record of a run; None once it has ended.
fn recorded(id: &str, state: &JobState) -> Option<JobRecord> {
    match state {
        JobState::Queued { reason } => Some(JobRecord::queued(id, reason)),
        JobState::Running { node } => Some(JobRecord::running(id, node)),
        JobState::Ended(_) | JobState::Unknown => None,
    }
}

/// Cancels all jobs of a run, and asks the process that watches it, if any, to submit no others. Returns whether that
/// process can observe the request.
pub fn cancel(run: &RunDir, settings: &Settings) -> Result<bool> {
    let job_store = JobStore::of(run);
    let marked = job_store.cancel();
    match queue::scancel(run.id(), settings.timeout) {
        Ok(()) => Ok(marked.is_ok()),
        Err(error) => {
            if !run.is_live() {
                // Otherwise the next process that resumes the run would cancel it.
                job_store.forget_cancelling();
            }
            marked.and(Err(error))
        }
    }
}

/// Checks that the records of a run's jobs are complete, as far as the run's files and the queue show.
pub fn check_records(run: &RunDir, settings: &Settings) -> Result<()> {
    let job_store = JobStore::of(run);
    let batches = job_store.batches()?;
    match queue::squeue(run.id(), settings.timeout) {
        Ok(jobs) => job_store.check_queue(&batches, &jobs),
        // Slurm may answer later.
        Err(_) => Ok(()),
    }
}

/// How many stages of a run have no job and are not known.
pub fn unsubmitted(run: &RunDir, states: &[StageState]) -> Result<usize> {
    let batches = JobStore::of(run).batches()?;
    let has_job = |stage: usize| batches.iter().any(|batch| batch.job.is_some() && batch.stages.contains(&stage));
    let is_missing = |&stage: &usize| !matches!(states[stage], StageState::Cached { .. }) && !has_job(stage);
    Ok((0..states.len()).filter(is_missing).count())
}

/// Where networks run, seen from a machine that need not have what the nodes have: on a card, where one that is trained
/// or sampled from asks for one.
pub fn device(pipeline: &Pipeline, settings: &Settings) -> Device {
    let asks = |stage: &crate::plan::PlannedStage| {
        stage.params.runs_network() && settings.defaults.complete(stage, false).0.gpus.is_some_and(|gpus| gpus > 0)
    };
    match pipeline.device {
        Device::Auto if cfg!(feature = "cuda") && plan(pipeline).stages.iter().any(asks) => Device::Cuda(0),
        Device::Auto => Device::Cpu,
        device => device,
    }
}

/// The jobs of one run.
pub struct Slurm {
    requests: Sender<Request>,
    ready: Vec<ReadyStage>,
}

impl Slurm {
    /// `plan` includes its secrets. `since`: when the run began. `runs`: the folder of the store.
    pub fn new(
        plan: &Plan,
        job_store: JobStore,
        settings: Settings,
        exe: PathBuf,
        runs: &Path,
        since: String,
        reports: Sender<Report>,
    ) -> Result<Self> {
        job_store.reset_unavailable_cache();
        let (requests, receiver) = channel();
        let run_start = since.parse().ok();
        let poll = Poll::new(job_store.run_id().to_string(), since, settings.timeout, requests.clone());
        let submitter = Submitter { spec: job_store.spec()?, job_store, settings, exe, secrets: secrets::of(plan) };
        let clerk = Monitor::new(submitter, Store::open(runs)?, poll, run_start, receiver, reports)?;
        std::thread::Builder::new().name("slurm".into()).spawn(|| clerk.work()).context("starting a thread")?;
        Ok(Self { requests, ready: vec![] })
    }

    fn request(&self, request: Request) {
        // The clerk is there as long as this.
        let _ = self.requests.send(request);
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.request(Request::End);
    }
}

impl Executor for Slurm {
    fn start(&mut self, stage: usize, spec: &TaskSpec, _log: &Path) -> Result<()> {
        self.ready.push(ReadyStage { stage, key: spec.key.clone(), forced: spec.force, split: spec.split });
        Ok(())
    }

    fn send(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        if !ready.is_empty() {
            self.request(Request::Submit(ready));
        }
    }

    /// The job goes on, or is cancelled by `kill`.
    fn stop(&mut self, _: usize) {}

    fn kill(&mut self, stage: usize) {
        self.request(Request::Cancel(stage));
    }

    /// Slurm holds jobs to what they asked for.
    fn memory(&self, _: usize) -> u64 {
        0
    }

    /// The clerk says of each how it ended.
    fn ended(&mut self, _: usize) -> (Cause, String) {
        (Cause::Lost, "its job ended without a result".into())
    }

    fn outlives(&self) -> Option<Duration> {
        Some(LEAVING)
    }
}
