//! The command `srpipe run`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};

use super::args::{ChoiceArgs, RunArgs};
use super::explanations::Explained;
use super::output::{Look, Paint, can_draw, note, print};
use super::{EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, cluster, json, load, plan, progress, report, results, settings};
use crate::config::InputError;
use crate::format;
use crate::format::command_line;
use crate::nn::fused::Isa;
use crate::pipeline::{Pipeline, did_you_mean};
use crate::plan::StageState;
use crate::run::{self, Machine, OnFailure, Options, Prepared, Progress, batch, prepare_forced};
use crate::runs::{RunDir, RunRecord, RunState, StageRunState};
use crate::store::Store;

pub(super) fn run(args: &RunArgs, runs: &Path) -> Result<u8> {
    let mut pipeline = load(&args.file, &args.flags)?;
    let forced = args.chosen.apply(&mut pipeline)?;
    let executor = cluster::executor(args.chosen.executor, &mut pipeline)?;
    let system = cluster::system(executor)?;
    if args.detach && system.is_none() {
        let why = "`--detach` submits all stages to a cluster: add `--executor slurm`";
        return Err(InputError(why.into()).into());
    }
    let existing_store = Store::open_existing(runs);
    // Jobs of an unwatched run may have ended or failed since its record was updated.
    let latest = existing_store.as_ref().and_then(|store| Some((store, store.latest_run(&pipeline.name)?)));
    if let Some((store, run)) = latest.filter(|_| system.is_some() && !args.dry_run) {
        cluster::reconcile_run(store, &run);
    }
    // Garbage collection must not delete cached results before the run's record refers to them.
    let guard = if args.dry_run { None } else { existing_store.as_ref().map(Store::guard).transpose()? };
    let prepared = prepare_forced(&pipeline, existing_store.as_ref(), forced)?;
    let warnings = existing_store.as_ref().map(Store::take_warnings).unwrap_or_default();
    warnings.iter().for_each(|warning| note(&format!("warning: {warning}")));
    if system.is_none() {
        prepared.check_fits(&pipeline, &Machine::detect())?;
    }
    if args.dry_run {
        print(&plan::show(&Explained::new(&pipeline, &prepared, existing_store.as_ref()), args.json, false));
        return Ok(EXIT_DONE);
    }
    if let Some(system) = system.as_ref().filter(|_| !prepared.is_done()) {
        system.check_available().map_err(InputError)?;
    }
    if prepared.is_done()
        && let Some(store) = &existing_store
        && let Some(latest) = store.latest_run(&pipeline.name).filter(|run| prepared.matches_run(run))
    {
        restore_links(&prepared, store, &latest, &pipeline.name);
        return Ok(print_cached_results(args, store, &latest.record()?));
    }

    Isa::from_env().map_err(|error| InputError(error.to_string()))?;
    let runs_dir = std::path::absolute(runs).context("finding the working directory")?;
    let exe = std::env::current_exe().context("finding the srpipe binary")?;
    if system.is_some() {
        check_job_paths(&runs_dir, &exe)?;
    }
    let store = Store::open(&runs_dir)?;
    let guard = guard.map_or_else(|| store.guard(), Ok)?;
    // Hash the sources again now that a store can cache their digests, so that the next run has nothing to do and
    // nothing to write.
    let prepared = match existing_store {
        Some(_) => prepared,
        None if prepared.sources.is_empty() => prepared,
        None => prepare_forced(&pipeline, Some(&store), prepared.forced)?,
    };
    let options = Options {
        // Paths in records are text, so bytes that are not UTF-8 are replaced.
        file: Some(format::path(&args.file).into()),
        jobs: args.jobs.map(|jobs| jobs as usize),
        on_failure: if args.fail_fast { OnFailure::StartNothing } else { OnFailure::KeepGoing },
        remote: settings::remote()?,
        executor,
        slurm: settings::slurm()?,
        exe,
        command: recorded_command_line(),
    };
    let mut progress: Box<dyn Progress> = match args.json {
        true => Box::new(json::JsonLines::default()),
        false if prepared.is_done() => Box::new(progress::NoProgress),
        false if can_draw() => Box::new(progress::Bars::new()),
        false => Box::new(progress::Lines::default()),
    };
    let earlier = match &system {
        Some(system) => cluster::take_over(&pipeline, &prepared, &store, &**system)?,
        None => None,
    };
    if args.detach {
        let (record, jobs) = match earlier {
            Some((run, record)) => {
                let unsubmitted = batch::count_unsubmitted(&run, &prepared.states)?;
                if unsubmitted > 0 {
                    let why = cluster::partly_submitted_error(&record, unsubmitted, &args.file);
                    return Err(InputError(why).into());
                }
                (record, 0)
            }
            None => run::detach(&pipeline, &prepared, &store, guard, &options)?,
        };
        match args.json {
            true => json::finished(&record, record.state),
            false => note(&cluster::detached_message(&record, jobs, &args.file)),
        }
        return Ok(EXIT_DONE);
    }
    let record = match earlier {
        Some((run, record)) => run::resume(&prepared, &store, guard, &run, record, &options, progress.as_mut())?,
        None => run::run(&pipeline, &prepared, &store, guard, &options, progress.as_mut())?,
    };
    report::write(&store, &record.pipeline, &record.id);
    if !args.json {
        print_summary(args, runs, &store, &record);
        print_report_path(runs, &record);
    }
    Ok(match record.state {
        RunState::Ok => EXIT_DONE,
        RunState::Interrupted | RunState::Running => EXIT_INTERRUPTED,
        RunState::Failed => EXIT_FAILED,
    })
}

impl ChoiceArgs {
    /// Applies `--only` and `--device` to a pipeline. Returns the indices of the stages that `--force` names.
    pub(super) fn apply(&self, pipeline: &mut Pipeline) -> Result<BTreeSet<usize>, InputError> {
        pipeline.device = self.device.unwrap_or(pipeline.device);
        if !self.only.is_empty() {
            let selected = named_stages(pipeline, "--only", &self.only)?;
            pipeline.keep(selected);
        }
        named_stages(pipeline, "--force", &self.force)
    }
}

/// Returns the indices of the stages that a flag names.
fn named_stages(pipeline: &Pipeline, flag: &str, names: &[String]) -> Result<BTreeSet<usize>, InputError> {
    let mut found = BTreeSet::new();
    for name in names {
        let named = pipeline.named(name);
        if named.is_empty() {
            let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).take(20).collect();
            let suggestion = did_you_mean(name, pipeline.stages.iter().map(|stage| stage.base.as_str()));
            let hint = suggestion.unwrap_or_else(|| format!("the stages are {}", names.join(", ")));
            return Err(InputError(format!("{flag} {name}: no such stage; {hint}")));
        }
        found.extend(named);
    }
    Ok(found)
}

/// Recreates deleted links to results and a deleted report in a run's folder.
fn restore_links(prepared: &Prepared, store: &Store, run: &RunDir, pipeline: &str) {
    let stages = prepared.plan.stages.iter().zip(&prepared.states);
    let links = stages.filter_map(|(stage, state)| match state {
        // Ignore errors: without write permission, the folder keeps its links.
        StageState::Cached { action, .. } => run.link_stage(&stage.name, &action.outputs).ok(),
        _ => None,
    });
    let restored: usize = links.sum();
    if restored > 0 {
        note(&format!("restored {} in {}", format::count(restored, "deleted link"), run.path().display()));
    }
    if !run.path().join(report::FILE).exists() {
        report::write(store, pipeline, run.id());
    }
}

/// Prints the results of the latest run, which has the cached results of all stages. Writes nothing.
fn print_cached_results(args: &RunArgs, store: &Store, latest: &RunRecord) -> u8 {
    let mut record = latest.clone();
    record.stages.iter_mut().for_each(|stage| stage.state = StageRunState::Cached);
    // Suggested commands are based on the current command line.
    record.command = recorded_command_line();
    match args.json {
        true => json::finished(&record, RunState::Ok),
        false => {
            print(&all_cached_message(&record));
            print(&results::show(store, store.runs_dir(), &record));
            print_report_path(store.runs_dir(), &record);
        }
    }
    EXIT_DONE
}

/// Prints the path of the latest run's report, if it exists.
fn print_report_path(runs: &Path, record: &RunRecord) {
    let path = runs.join(&record.pipeline).join("latest").join(report::FILE);
    if path.exists() {
        print(&format!("{}\n", path.display()));
    }
}

fn all_cached_message(record: &RunRecord) -> String {
    match record.stages.len() {
        1 => "nothing to do: the stage is cached\n".to_string(),
        n => format!("nothing to do: all {n} stages are cached\n"),
    }
}

/// Prints the results and the final state of a run.
fn print_summary(args: &RunArgs, runs: &Path, store: &Store, record: &RunRecord) {
    if record.stages.iter().all(|stage| stage.state == StageRunState::Cached) {
        print(&all_cached_message(record));
    }
    print(&results::show(store, runs, record));
    let paint = Paint::stderr();
    let took = format::duration(record.seconds.unwrap_or(0.0));
    let counts = format!("{} in {took}", record.state_counts());
    match record.state {
        RunState::Ok => note(&format!("{} {counts}", paint.paint(Look::Good, "done:"))),
        RunState::Interrupted => note(&format!(
            "{} {counts}. Progress is saved; resume with\n    {}",
            paint.paint(Look::Attention, "interrupted:"),
            shell_command_line(record)
        )),
        RunState::Running => note(&format!(
            "{} {counts}. Jobs continue without this process: watch them with the same command or `srpipe status`, or \
             cancel them with `srpipe cancel {}`",
            paint.paint(Look::Attention, "left:"),
            record.id
        )),
        RunState::Failed => note(&format!(
            "{} {counts}. Finished stages are cached; `srpipe status {}` shows each stage",
            paint.paint(Look::Bad, "failed:"),
            format::shell_word(&args.file)
        )),
    }
}

/// Returns the command line for the run's record; bytes that are not UTF-8 are replaced.
fn recorded_command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Returns the command line quoted for a shell, so that it can be run again.
fn shell_command_line(record: &RunRecord) -> String {
    let words: Vec<OsString> = std::env::args_os().collect();
    match words.iter().all(|word| word.to_str().is_some()) {
        true => command_line(&record.command),
        false => {
            let rest = words.iter().skip(1).map(format::shell_word);
            std::iter::once("srpipe".to_string()).chain(rest).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Fails if a path that job scripts contain is not UTF-8.
fn check_job_paths(runs: &Path, exe: &Path) -> Result<(), InputError> {
    let folder = std::env::current_dir().unwrap_or_default();
    match [folder.as_path(), runs, exe].into_iter().find(|path| path.to_str().is_none()) {
        None => Ok(()),
        Some(path) => Err(InputError(format!(
            "the path {} is not UTF-8, and jobs of a batch system need UTF-8 paths: rename it, or run with `--executor local`",
            path.display()
        ))),
    }
}
