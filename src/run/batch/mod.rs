//! Stages as jobs of a batch system, on machines that share a file system.
//!
//! - `system`: the trait that a batch system implements. `command`: runs its commands.
//! - `job_store`: the records of a run's jobs. `submit`, `submit_queue`: submission of batches.
//! - `monitor`: the thread that watches jobs (`tracked_job`), queries the batch system (`poll`) and handles each
//!   `request`. `job_outcome`: decides the outcome of a job. `BatchExecutor`: the executor that the scheduler uses.
//! - `event_seal`: protects the events in the output of jobs.
//! - `detach`: submits a whole run at once. `reconcile`: updates the record of a run whose jobs no process watches.
//! - `secrets`: passes secrets to jobs without writing them to files. `job`: the process that runs as a job.
//!
//! The result in the store is authoritative, and jobs continue without the process that submitted them. A process that
//! resumes the run finds its jobs by their name, which is the run's id, and by the tag in their comment.

pub mod command;
mod detach;
mod event_seal;
mod job;
mod job_outcome;
mod job_store;
mod monitor;
mod poll;
mod reconcile;
mod request;
pub mod secrets;
mod submit;
mod submit_queue;
pub mod system;
mod tracked_job;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use super::executor::{Executor, Report};
use super::prepared::Prepared;
use super::protocol::TaskSpec;
use super::status::Cause;
use crate::config::Device;
use crate::pipeline::Pipeline;
use crate::plan::{Plan, StageState, plan};
use crate::runs::RunDir;
use crate::store::Store;

pub use detach::detach;
pub use event_seal::EventSeal;
pub use job::{Job, Task};
pub(super) use job_store::seal_of_job;
pub use job_store::{JobStore, RunSpec};
pub use reconcile::reconcile;
pub use system::BatchSystem;

use monitor::Monitor;
use poll::Poll;
use request::{ReadyStage, Request};
use submit::Submitter;

/// How long a run that is asked to stop waits for a second request, which cancels its jobs.
const LEAVE_DELAY: Duration = Duration::from_secs(10);

/// Cancels all jobs of a run, and asks the process that watches it, if any, to submit no others. Returns whether that
/// process can see the request.
pub fn cancel(run: &RunDir, system: &dyn BatchSystem) -> Result<bool> {
    let job_store = JobStore::of(run);
    let marked = job_store.mark_cancelled();
    match system.cancel(run.id()) {
        Ok(()) => Ok(marked.is_ok()),
        Err(error) => {
            if !run.is_live() {
                // The request must not reach a process that resumes the run later.
                job_store.clear_cancelled();
            }
            marked.and(Err(error))
        }
    }
}

/// Whether a process that watches the run is asked to cancel its jobs.
pub fn is_marked_cancelled(run: &RunDir) -> bool {
    JobStore::of(run).is_cancelled()
}

/// Whether a run whose jobs continue does the same as the prepared run.
///
/// # Errors
/// Fails if the records of its jobs are damaged or incomplete, as far as its files and the queue show.
pub fn is_same_run(run: &RunDir, prepared: &Prepared, system: &dyn BatchSystem) -> Result<bool> {
    let job_store = JobStore::of(run);
    if !job_store.spec()?.matches(prepared) {
        return Ok(false);
    }
    let batches = job_store.batches()?;
    // If the batch system does not answer, only the files are checked.
    if let Ok(jobs) = system.queue(run.id()) {
        job_store.check_queue(&batches, &jobs)?;
    }
    Ok(true)
}

/// Checks the records of a run's jobs.
///
/// # Errors
/// Fails if a record is damaged or missing.
pub fn check_records(run: &RunDir) -> Result<()> {
    let job_store = JobStore::of(run);
    job_store.spec()?;
    job_store.batches().map(drop)
}

/// Returns the number of stages of a run that are not cached and have no job.
pub fn count_unsubmitted(run: &RunDir, states: &[StageState]) -> Result<usize> {
    let batches = JobStore::of(run).batches()?;
    let has_job = |stage: usize| batches.iter().any(|batch| batch.job.is_some() && batch.stages.contains(&stage));
    let is_missing = |&stage: &usize| !matches!(states[stage], StageState::Cached { .. }) && !has_job(stage);
    Ok((0..states.len()).filter(is_missing).count())
}

/// Returns the device for networks. This machine may not have the nodes' GPUs, so `auto` means a GPU if a stage that
/// runs a network requests one.
pub fn device(pipeline: &Pipeline, system: &dyn BatchSystem) -> Device {
    let requests_gpu = |stage: &crate::plan::PlannedStage| stage.params.runs_network() && system.requests_gpu(stage);
    match pipeline.device {
        Device::Auto if cfg!(feature = "cuda") && plan(pipeline).stages.iter().any(requests_gpu) => Device::Cuda(0),
        Device::Auto => Device::Cpu,
        device => device,
    }
}

/// Runs stages as jobs of a batch system.
pub(super) struct BatchExecutor {
    requests: Sender<Request>,
    ready: Vec<ReadyStage>,
}

impl BatchExecutor {
    /// Starts the monitor of a run's jobs. `plan` includes its secrets, `since` is when the run began, and `runs` is
    /// the folder of the store.
    pub(super) fn new(
        plan: &Plan,
        run: &RunDir,
        system: Arc<dyn BatchSystem>,
        exe: PathBuf,
        runs: &Path,
        since: &str,
        reports: Sender<Report>,
    ) -> Result<Self> {
        let job_store = JobStore::of(run);
        job_store.reset_unavailable_cache();
        let (requests, receiver) = channel();
        let poll = Poll::new(system.clone(), run.id().to_string(), since.to_string(), requests.clone());
        let submitter =
            Submitter { spec: job_store.spec()?, system, job_store, exe, secrets: secrets::to_variable(plan) };
        let monitor = Monitor::new(submitter, Store::open(runs)?, poll, since.parse().ok(), receiver, reports)?;
        std::thread::Builder::new().name("monitor".into()).spawn(|| monitor.run()).context("starting a thread")?;
        Ok(Self { requests, ready: vec![] })
    }

    fn request(&self, request: Request) {
        // The monitor runs as long as this executor exists.
        let _ = self.requests.send(request);
    }
}

impl Drop for BatchExecutor {
    fn drop(&mut self) {
        self.request(Request::Stop);
    }
}

impl Executor for BatchExecutor {
    fn start(&mut self, stage: usize, spec: &TaskSpec, _log: &Path) -> Result<()> {
        self.ready.push(ReadyStage {
            stage,
            key: spec.key.clone(),
            forced: spec.force,
            batch_divisor: spec.batch_divisor,
        });
        Ok(())
    }

    fn flush(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        if !ready.is_empty() {
            self.request(Request::Submit(ready));
        }
    }

    /// Jobs continue, or are cancelled by `kill`.
    fn stop(&mut self, _: usize) {}

    fn kill(&mut self, stage: usize) {
        self.request(Request::Cancel(stage));
    }

    /// The monitor reports how each job ended.
    fn exit_cause(&mut self, _: usize) -> (Cause, String) {
        (Cause::Lost, "its job ended without a result".into())
    }

    fn leave_delay(&self) -> Option<Duration> {
        Some(LEAVE_DELAY)
    }
}
