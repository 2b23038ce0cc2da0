//! Runs the stages of a pipeline that are not cached, each in its own process.
//!
//! - [`prepare()`]: looks up which stages are cached and hashes the external files (`sources`), before anything is
//!   started. The result is [`Prepared`].
//! - [`run`]: runs the stages. One thread (`scheduler`) decides what starts, from the states in the store
//!   (`cache_state`) and the free resources (`resource_pool`). An `Executor` runs stages: `local` as child processes,
//!   `batch` as jobs of a batch system such as `slurm`. A [`Progress`] shows the run. [`batch_system`] and
//!   `make_executor` choose the executor.
//! - [`exec`]: runs one stage in the child process (`worker`). `protocol`: the messages between the two processes.
//! - [`watch`]: follows the events of stages that other processes run.
//!
//! Nothing here writes to the terminal: a worker's stdout carries its events, and its stderr is the stage's log.

mod any_path;
pub mod batch;
mod cache_state;
mod event_output;
mod executor;
#[cfg(test)]
mod fake;
mod limits;
mod local;
mod log;
mod looks;
mod machine;
mod prepare;
mod prepared;
mod progress;
mod protocol;
mod resource_pool;
mod scheduler;
pub mod slurm;
mod sources;
mod status;
mod tail;
#[cfg(test)]
mod tests;
pub mod watch;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{ExecutorKind, redact_value};
use crate::pipeline::Pipeline;
use crate::plan::StageState;
use crate::runs::{RunDir, RunRecord, RunState, StageRecord, StageRunState};
use crate::store::{GcGuard, Store};

use executor::Executor;
pub use executor::Report;
pub use machine::{Machine, available_memory};
pub use prepare::{cuda_device, prepare, prepare_forced};
pub use prepared::Prepared;
pub use progress::{Progress, Stopping};
pub use protocol::EXIT_INTERRUPTED;
pub use scheduler::OnFailure;
pub use status::{Cause, Failure, Status};
pub use worker::exec;

use batch::{BatchExecutor, BatchSystem, JobStore, RunSpec};
use cache_state::CacheState;
use local::Local;
use resource_pool::ResourcePool;
use scheduler::{RunContext, Scheduler};
use slurm::Slurm;

/// Settings of a run. None of them changes results.
#[derive(Debug, Clone)]
pub struct Options {
    /// The pipeline file as the user named it.
    pub file: Option<PathBuf>,
    /// The maximum number of stages that run at the same time, if the user sets one.
    pub jobs: Option<usize>,
    pub on_failure: OnFailure,
    /// The address of a shared cache.
    pub remote: Option<String>,
    pub executor: ExecutorKind,
    pub slurm: slurm::Settings,
    /// The srpipe binary.
    pub exe: PathBuf,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// Returns the batch system that an executor submits jobs to; None if stages run on this machine.
pub fn batch_system(kind: ExecutorKind, slurm: &slurm::Settings) -> Option<Arc<dyn BatchSystem>> {
    match kind {
        ExecutorKind::Local => None,
        ExecutorKind::Slurm => Some(Arc::new(Slurm::new(slurm.clone()))),
        #[cfg(test)]
        ExecutorKind::Fake => Some(Arc::new(fake::Fake::default())),
    }
}

/// Returns the batch system that a job runs in. Older versions, which supported Slurm only, did not record it.
fn batch_system_of_job(spec: &RunSpec) -> Result<Arc<dyn BatchSystem>> {
    let kind = spec.executor.unwrap_or(ExecutorKind::Slurm);
    match batch_system(kind, &Default::default()) {
        Some(system) => Ok(system),
        None => bail!("the executor `{}` has no jobs", kind.name()),
    }
}

/// Returns the array index of the job that this process runs in, for a run whose spec cannot be read. Its batch system
/// is then unknown, so all are asked.
fn index_of_job() -> Option<usize> {
    let systems = ExecutorKind::ALL.iter().filter_map(|kind| batch_system(*kind, &Default::default()));
    systems.filter_map(|system| system.current_job().task).next()
}

fn make_executor(
    prepared: &Prepared,
    store: &Store,
    run: &RunDir,
    since: &str,
    options: &Options,
    reports: Sender<Report>,
) -> Result<Box<dyn Executor>> {
    let exe = options.exe.clone();
    Ok(match batch_system(options.executor, &options.slurm) {
        None => Box::new(Local::new(exe, reports)),
        Some(system) => {
            Box::new(BatchExecutor::new(&prepared.plan, run, system, exe, store.runs_dir(), since, reports)?)
        }
    })
}

/// Runs the stages that are not cached, as a new run, and returns its finished record. `guard` protects the results
/// that `prepared` refers to.
///
/// # Errors
/// Fails on errors of the store or the machine. Failed stages are not errors; the record contains them.
pub fn run(
    pipeline: &Pipeline,
    prepared: &Prepared,
    store: &Store,
    guard: GcGuard,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<RunRecord> {
    let (run, record) = create_run(pipeline, prepared, store, options)?;
    resume(prepared, store, guard, &run, record, options, progress)
}

fn create_run(
    pipeline: &Pipeline,
    prepared: &Prepared,
    store: &Store,
    options: &Options,
) -> Result<(RunDir, RunRecord)> {
    let mut record = new_record(pipeline, prepared, store, options);
    let has_jobs = batch_system(options.executor, &options.slurm).is_some();
    let run = store.create_run_with(&pipeline.name, &pipeline.resolved(), &record, |run| match has_jobs {
        true => {
            let spec = RunSpec::new(run, options.executor, prepared, store, options.remote.clone());
            JobStore::create(run, &spec).map(drop)
        }
        false => Ok(()),
    })?;
    record.id = run.id().to_string();
    run.make_latest()?;
    Ok((run, record))
}

/// Submits a whole run to a batch system, so that no process has to watch it. Returns its record and the number of
/// jobs. If a submission fails, the jobs that were submitted before it continue.
pub fn detach(
    pipeline: &Pipeline,
    prepared: &Prepared,
    store: &Store,
    guard: GcGuard,
    options: &Options,
) -> Result<(RunRecord, usize)> {
    let Some(system) = batch_system(options.executor, &options.slurm) else {
        bail!("the executor `{}` cannot run stages without this process", options.executor.name());
    };
    let (run, mut record) = create_run(pipeline, prepared, store, options)?;
    for ((stage, state), planned) in record.stages.iter_mut().zip(&prepared.states).zip(&prepared.plan.stages) {
        stage.key = state.key().cloned();
        if let StageState::Cached { action, .. } = state {
            run.link_stage(&planned.name, &action.outputs)?;
            stage.state = StageRunState::Cached;
        }
    }
    run.update(&record)?;
    drop(guard);
    let jobs = batch::detach(&run, &prepared.plan, system, options.exe.clone(), &prepared.states)?;
    Ok((record, jobs))
}

/// Runs the remaining stages of a run that this process or an earlier one created.
pub fn resume(
    prepared: &Prepared,
    store: &Store,
    guard: GcGuard,
    run: &RunDir,
    record: RunRecord,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<RunRecord> {
    let (sender, reports) = mpsc::channel();
    let mut executor = make_executor(prepared, store, run, &record.started_at, options, sender.clone())?;
    forward_signals(sender, executor.leave_delay().is_some())?;
    let pool = ResourcePool { machine: executor.machine(), jobs: options.jobs, cuda: prepared.cuda };
    let context = RunContext {
        plan: &prepared.plan,
        cuda: prepared.cuda,
        pool,
        on_failure: options.on_failure,
        remote: options.remote.clone(),
        store,
        run,
    };
    Scheduler::new(context, CacheState::new(prepared, store), record, executor.as_mut(), progress).run(&reports, guard)
}

/// Reports signals that ask the run to stop. If its jobs can continue without it, only Ctrl-C counts as a second
/// request: a session that ends sends several signals, and only a person may cancel jobs.
fn forward_signals(reports: Sender<Report>, jobs_continue: bool) -> Result<()> {
    let mut signals = Signals::new(not_ignored(&[SIGINT, SIGTERM, SIGHUP])).context("listening for signals")?;
    let forward = move || {
        let mut was_asked = false;
        let requests = signals.forever().filter(move |&signal| {
            let is_second = std::mem::replace(&mut was_asked, true);
            !(jobs_continue && is_second) || signal == SIGINT
        });
        requests.take_while(|_| reports.send(Report::Signal).is_ok()).for_each(drop);
    };
    std::thread::Builder::new().name("signals".into()).spawn(forward).context("starting a thread")?;
    Ok(())
}

/// Returns the signals that were not ignored when this process started. `nohup` ignores SIGHUP, and shell scripts
/// ignore SIGINT in background processes.
fn not_ignored(signals: &[i32]) -> Vec<i32> {
    // Linux only. On other systems no signal counts as ignored.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    signals.iter().copied().filter(|signal| mask.unwrap_or(0) >> (signal - 1) & 1 == 0).collect()
}

fn new_record(pipeline: &Pipeline, prepared: &Prepared, store: &Store, options: &Options) -> RunRecord {
    let stage = |stage: &crate::plan::PlannedStage| StageRecord {
        name: stage.name.clone(),
        kind: stage.kind,
        key: None,
        state: StageRunState::Pending,
        seconds: None,
        metrics: Default::default(),
        error: None,
        job: None,
    };
    RunRecord {
        id: String::new(),
        pipeline: pipeline.name.clone(),
        file: options.file.clone(),
        state: RunState::Running,
        started_at: jiff::Timestamp::now().to_string(),
        finished_at: None,
        seconds: None,
        pid: std::process::id(),
        srpipe_version: env!("CARGO_PKG_VERSION").to_string(),
        machine: Some(Machine::detect().to_record()),
        executor: options.executor,
        command: options.command.iter().map(|argument| redact_value(argument).into_owned()).collect(),
        stages: prepared.plan.stages.iter().map(stage).collect(),
        earlier_looks: looks::before(store),
    }
}
