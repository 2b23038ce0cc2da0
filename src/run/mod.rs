//! Runs pipelines: what is not known yet is computed, each stage in a process of its own.
//!
//! - [`Prepared`]: a pipeline with all that decides what there is to do; made before anything is started.
//! - [`run`]: does it. One thread decides (`scheduler`) by what is known (`knowledge`), an [`Executor`] runs stages
//!   (`local`: as child processes, `slurm`: as jobs of a cluster), a [`Progress`] shows it to somebody.
//! - [`exec`]: the child's side. `wire`: what both sides say to each other.
//! - [`watch`]: where runs stand, for those who did not start them.
//!
//! Nothing here prints, and nothing here knows what a stage computes.

mod any_path;
mod cache_state;
mod executor;
mod limits;
mod local;
mod log;
mod machine;
mod prepare;
mod protocol;
mod resource_pool;
mod scheduler;
pub mod slurm;
mod status;
mod tail;
#[cfg(test)]
mod tests;
pub mod watch;
mod worker;

use std::path::PathBuf;
use std::sync::mpsc;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{ExecutorKind, redact_value};
use crate::pipeline::Pipeline;
use crate::plan::StageState;
use crate::runs::{RunDir, RunRecord, RunState, StageRecord, StageRunState};
use crate::store::{GcGuard, Store};

pub use executor::{Executor, Progress, Report, Stopping};
pub use machine::{Machine, available_memory};
pub use prepare::{Prepared, cuda};
pub use protocol::EXIT_INTERRUPTED;
pub use scheduler::OnFailure;
pub use status::{Cause, Failure, Status};
pub use worker::exec;

use cache_state::CacheState;
use resource_pool::ResourcePool;
use scheduler::{RunContext, Scheduler};

/// How a pipeline is run; none of it changes results.
#[derive(Debug, Clone)]
pub struct Options {
    /// The pipeline file as it was named.
    pub file: Option<PathBuf>,
    /// Stages at once, where the user says so.
    pub jobs: Option<usize>,
    pub on_failure: OnFailure,
    /// A shared cache, as the user's settings name it.
    pub remote: Option<String>,
    pub executor: ExecutorKind,
    pub slurm: slurm::Settings,
    /// The srpipe binary.
    pub exe: PathBuf,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// Runs what is not known; `guard` goes back to when `prepared` was made. Returns the finished record. A stage that fails
/// is in the record, an error here is one of the store or the machine.
pub fn run(
    pipeline: &Pipeline,
    prepared: &Prepared,
    store: &Store,
    guard: GcGuard,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<RunRecord> {
    let (run, record) = begin(pipeline, prepared, store, options)?;
    resume(prepared, store, guard, &run, record, options, progress)
}

fn begin(pipeline: &Pipeline, prepared: &Prepared, store: &Store, options: &Options) -> Result<(RunDir, RunRecord)> {
    let mut record = new_record(pipeline, prepared, options);
    let run = store.create_run(&pipeline.name, &pipeline.resolved(), &record)?;
    record.id = run.id().to_string();
    run.make_latest()?;
    if options.executor == ExecutorKind::Slurm {
        slurm::JobStore::begin(&run, &slurm::RunSpec::new(&run, prepared, store, options.remote.clone()))?;
    }
    Ok((run, record))
}

/// Begins a run on a cluster that needs nobody to watch it. Returns its record and the number of jobs; where some could not
/// be submitted, the others go on.
pub fn detach(
    pipeline: &Pipeline,
    prepared: &Prepared,
    store: &Store,
    guard: GcGuard,
    options: &Options,
) -> Result<(RunRecord, usize)> {
    let (run, mut record) = begin(pipeline, prepared, store, options)?;
    for ((stage, state), planned) in record.stages.iter_mut().zip(&prepared.states).zip(&prepared.plan.stages) {
        stage.key = state.key().cloned();
        if let StageState::Cached { action, .. } = state {
            run.link_stage(&planned.name, &action.outputs)?;
            stage.state = StageRunState::Cached;
        }
    }
    run.update(&record)?;
    drop(guard);
    let jobs = slurm::detach(&run, &prepared.plan, options.slurm.clone(), options.exe.clone(), &prepared.states)?;
    Ok((record, jobs))
}

/// Does what there is to do in a run that has begun: now, or in another process that is gone.
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
    let mut signals = Signals::new(not_ignored(&[SIGINT, SIGTERM, SIGHUP])).context("listening for signals")?;
    let signal_sender = sender.clone();
    let outlives = options.executor == ExecutorKind::Slurm;
    let listen = move || {
        // A session that ends sends several. Only a person asks for jobs to be cancelled.
        let mut is_asked = false;
        let heard = signals.forever().filter(move |&signal| {
            let is_again = std::mem::replace(&mut is_asked, true);
            !(outlives && is_again) || signal == SIGINT
        });
        heard.take_while(|_| signal_sender.send(Report::Signal).is_ok()).for_each(drop);
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).context("starting a thread")?;

    let machine = (options.executor == ExecutorKind::Local).then(Machine::here);
    let pool = ResourcePool { machine, jobs: options.jobs, cuda: prepared.cuda };
    let context = RunContext {
        plan: &prepared.plan,
        cuda: prepared.cuda,
        pool,
        on_failure: options.on_failure,
        remote: options.remote.clone(),
        store,
        run,
    };
    let mut executor: Box<dyn Executor> = match options.executor {
        ExecutorKind::Local => Box::new(local::Local::new(options.exe.clone(), sender)),
        ExecutorKind::Slurm => {
            let (book, settings, since) = (slurm::JobStore::of(run), options.slurm.clone(), record.started_at.clone());
            Box::new(slurm::Slurm::new(
                &prepared.plan,
                book,
                settings,
                options.exe.clone(),
                store.runs_dir(),
                since,
                sender,
            )?)
        }
    };
    Scheduler::new(context, CacheState::new(prepared, store), record, executor.as_mut(), progress).run(&reports, guard)
}

/// Returns those of the signals that this process does not ignore since its start. `nohup` ignores SIGHUP, and shell
/// scripts ignore SIGINT in the processes that they start in the background.
fn not_ignored(signals: &[i32]) -> Vec<i32> {
    // Linux only; on other systems no signal counts as ignored.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    signals.iter().copied().filter(|signal| mask.unwrap_or(0) >> (signal - 1) & 1 == 0).collect()
}

fn new_record(pipeline: &Pipeline, prepared: &Prepared, options: &Options) -> RunRecord {
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
        machine: Some(Machine::here().described()),
        executor: options.executor,
        command: options.command.iter().map(|argument| redact_value(argument).into_owned()).collect(),
        stages: prepared.plan.stages.iter().map(stage).collect(),
    }
}
