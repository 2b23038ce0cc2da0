//! The choice of the executor, runs whose jobs no process watches, and `srpipe cancel`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::args::RunIdArgs;
use super::lookup::{find_run, open_store};
use super::output::{note, print, print_json};
use super::{EXIT_DONE, settings};
use crate::config::ExecutorKind;
use crate::config::InputError;
use crate::format;
use crate::pipeline::Pipeline;
use crate::run::batch::{self, BatchSystem};
use crate::run::{Prepared, batch_system};
use crate::runs::{RunDir, RunRecord, RunState, StageRunState};
use crate::store::{Store, host};

/// Returns the executor set on the command line, in the pipeline file or in the settings, in this order of precedence.
/// For a batch system, also resolves the pipeline's device, because `auto` must not depend on this machine's GPUs.
pub fn executor(flag: Option<ExecutorKind>, pipeline: &mut Pipeline) -> Result<ExecutorKind, InputError> {
    let named = flag.or(pipeline.executor);
    let executor = named.map_or_else(settings::executor, |named| Ok(Some(named)))?.unwrap_or_default();
    if let Some(system) = system(executor)? {
        pipeline.device = batch::device(pipeline, &*system);
    }
    Ok(executor)
}

/// Returns the batch system of an executor; None if stages run on this machine.
pub(super) fn system(executor: ExecutorKind) -> Result<Option<Arc<dyn BatchSystem>>, InputError> {
    Ok(batch_system(executor, &settings::slurm()?))
}

/// Takes over the latest run if no process watches its jobs and `prepared` is the same run.
pub(super) fn take_over(
    pipeline: &Pipeline,
    prepared: &Prepared,
    store: &Store,
    system: &dyn BatchSystem,
) -> Result<Option<(RunDir, RunRecord)>> {
    let Some(latest) = store.latest_run(&pipeline.name) else { return Ok(None) };
    if !latest.record()?.may_have_unwatched_jobs() || !batch::is_same_run(&latest, prepared, system)? {
        return Ok(None);
    }
    // Another process may lock the run briefly to update its record.
    for _ in 0..20 {
        if let Some(run) = latest.take_over()? {
            let record = run.record()?;
            return Ok(Some((run, record)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(None)
}

/// Updates the record of each pipeline's latest run, if its jobs are unwatched.
pub(super) fn reconcile_latest(store: &Store) {
    let latest = store.pipelines().into_iter().filter_map(|pipeline| store.latest_run(&pipeline));
    latest.for_each(|run| reconcile_run(store, &run));
}

/// Updates the records of all runs with unwatched jobs.
pub(super) fn reconcile_all(store: &Store) {
    store.pipelines().iter().flat_map(|pipeline| store.runs(pipeline)).for_each(|run| reconcile_run(store, &run));
}

/// Updates the record of a run with unwatched jobs. Errors are printed as warnings.
pub(super) fn reconcile_run(store: &Store, run: &RunDir) {
    if let Err(error) = try_reconcile_run(store, run) {
        note(&format!("warning: cannot update the jobs of run {}: {error:#}", run.id()));
    }
}

/// Updates the record of a run with unwatched jobs.
///
/// # Errors
/// Fails if the records of the run or of its jobs are damaged. A batch system that does not answer is not an error.
pub(super) fn try_reconcile_run(store: &Store, run: &RunDir) -> Result<()> {
    let Some(system) = system(run.record()?.executor)? else { return Ok(()) };
    let warnings = batch::reconcile(run, store, &*system)?;
    warnings.iter().for_each(|warning| note(&format!("warning: run {}: {warning}", run.id())));
    Ok(())
}

/// Returns the problems with the job records of all runs whose jobs may continue.
pub(super) fn damaged_job_records(store: &Store) -> Vec<String> {
    let runs = store.pipelines().into_iter().flat_map(|pipeline| store.runs(&pipeline));
    let active = runs.filter(|run| run.record().is_ok_and(|record| record.may_have_unwatched_jobs()));
    active.filter_map(|run| batch::check_records(&run).err()).map(|error| format!("{error:#}")).collect()
}

/// Cancels the jobs of a run that does not say which batch system has them: asks every one.
fn cancel_everywhere(run: &RunDir) -> Result<&'static str> {
    let mut result = None;
    for kind in ExecutorKind::ALL {
        let Some(system) = system(*kind)? else { continue };
        let outcome = cancel_jobs(run, &*system);
        result = Some(match result {
            Some(Ok(what)) => Ok(what),
            Some(Err(_)) | None => outcome,
        });
    }
    result.context("there is no batch system")?
}

pub fn cancel(args: &RunIdArgs, runs: &Path) -> Result<u8> {
    let store = open_store(runs)?;
    let run = find_run(&store, &args.run)?;
    if run.record().is_ok() {
        reconcile_run(&store, &run);
    }
    let record = match run.record() {
        // The batch system finds the jobs by the run's id.
        Err(error) if run.has_jobs_dir() => {
            note(&format!("warning: {error:#}"));
            let what = cancel_everywhere(&run)?;
            let folder = run.path().parent().and_then(Path::file_name).unwrap_or_default();
            report_cancelled(args, &run, &folder.to_string_lossy(), what);
            return Ok(EXIT_DONE);
        }
        record => record?,
    };
    let what = match (record.state, system(record.executor)?) {
        (RunState::Running, Some(system)) => cancel_jobs(&run, &*system)?,
        (RunState::Running, None) if run.is_live() => interrupt(&record)?,
        _ => "has ended; there is nothing to cancel",
    };
    report_cancelled(args, &run, &record.pipeline, what);
    Ok(EXIT_DONE)
}

/// Prints what happened to a run.
fn report_cancelled(args: &RunIdArgs, run: &RunDir, pipeline: &str, what: &str) {
    match args.json {
        true => print_json(&json!({"schema": 1, "pipeline": pipeline, "run": run.id(), "is": what})),
        false => print(&format!("run {} {what}\n", run.id())),
    }
}

/// Cancels the jobs of a run and updates its record. Returns what happened, as a verb phrase.
fn cancel_jobs(run: &RunDir, system: &dyn BatchSystem) -> Result<&'static str> {
    system.check_available().map_err(InputError)?;
    match batch::cancel(run, system) {
        Ok(true) => {}
        Ok(false) if run.is_live() => note(&format!(
            "warning: cannot write to {}: the process that watches the run may submit more jobs; stop it with Ctrl-C",
            run.jobs_dir().display()
        )),
        Ok(false) => {}
        Err(error) if run.is_live() && batch::is_marked_cancelled(run) => {
            note(&format!("warning: {error:#}"));
            return Ok("will be cancelled by the process that watches it as soon as the batch system answers");
        }
        Err(error) => return Err(error),
    }
    // A process that watches the run updates the record itself. A damaged record is kept.
    if run.record().is_ok()
        && let Some(run) = run.take_over().context("the jobs of the run are cancelled, but not its record")?
    {
        let mut record = run.record()?;
        for stage in &mut record.stages {
            stage.state = match stage.state {
                StageRunState::Running => StageRunState::Interrupted,
                StageRunState::Pending => StageRunState::Skipped,
                state => state,
            };
        }
        record.state = RunState::Interrupted;
        record.finished_at = Some(jiff::Timestamp::now().to_string());
        run.update(&record)?;
    }
    Ok("was cancelled; its jobs save their progress and exit")
}

/// Interrupts the process of a run on this machine. Returns what happened, as a verb phrase.
fn interrupt(record: &RunRecord) -> Result<&'static str> {
    let machine = record.machine.as_ref().map_or("another machine", |machine| machine.host.as_str());
    if machine != host() {
        return Err(InputError(format!("run {} runs on {machine}; cancel it on that machine", record.id)).into());
    }
    let pid = Pid::from_raw(record.pid.cast_signed()).context("the run's record has no process id")?;
    kill_process(pid, Signal::INT).context("sending SIGINT to the run's process")?;
    Ok("was asked to stop; its stages save their progress and exit")
}

/// Returns the error of `run --detach` for an earlier run of the same pipeline that continues and is only partly
/// submitted.
pub(super) fn partly_submitted_error(record: &RunRecord, stages: usize, file: &Path) -> String {
    format!(
        "run {} continues with {} not submitted yet: submit the rest and watch the run with `srpipe run {}`, or cancel it \
         with `srpipe cancel {}`",
        record.id,
        format::count(stages, "stage"),
        format::shell_word(file),
        record.id,
    )
}

/// Returns the message of `run --detach` after it has submitted `jobs` jobs.
pub(super) fn detached_message(record: &RunRecord, jobs: usize, file: &Path) -> String {
    let what = match jobs {
        0 => format!("run {} continues as it was submitted", record.id),
        _ => format!("{} submitted as run {}", format::count(jobs, "job"), record.id),
    };
    format!(
        "{what}. Its jobs continue without this process: show their state with `srpipe status {file}`, watch them with \
         `srpipe run {file}`, or cancel them with `srpipe cancel {}`",
        record.id,
        file = format::shell_word(file),
    )
}
