//! Opens the store and finds the run or the stage that the user names.

use std::path::Path;

use super::output::note;
use crate::config::InputError;
use crate::pipeline::did_you_mean;
use crate::runs::{RunDir, StageRecord, is_run_id};
use crate::store::Store;

/// Opens the store to read its records; fails if there are no runs.
pub(super) fn open_store(runs: &Path) -> Result<Store, InputError> {
    Store::open_records(runs).ok_or_else(|| no_runs(runs))
}

/// Returns the error for a folder without runs.
pub(super) fn no_runs(runs: &Path) -> InputError {
    InputError(format!("there are no runs in {} yet; `srpipe run FILE` starts one", runs.display()))
}

/// Finds a run by its id, a unique prefix of its id or its folder, or the latest run of a pipeline by the pipeline's
/// name.
pub(super) fn find_run(store: &Store, what: &str) -> Result<RunDir, InputError> {
    // The path of a run's folder, or of the link `latest`.
    let folder = Path::new(what);
    if folder.is_dir()
        && let Ok(folder) = folder.canonicalize()
        && let Some(id) = folder.file_name().and_then(|name| name.to_str()).filter(|id| is_run_id(id) && *id != what)
    {
        return find_run(store, id);
    }
    let runs: Vec<RunDir> = store.pipelines().into_iter().flat_map(|pipeline| store.runs(&pipeline)).collect();
    let exact = runs.iter().find(|run| run.id() == what).cloned();
    if let Some(run) = exact.or_else(|| store.latest_run(what)) {
        return Ok(run);
    }
    let matching: Vec<&RunDir> = runs.iter().filter(|run| run.id().starts_with(what)).collect();
    match matching[..] {
        [only] => Ok(only.clone()),
        [] => Err(InputError(format!(
            "{} has no run or pipeline named {what}; `srpipe runs` lists them",
            store.runs_dir().display()
        ))),
        _ => Err(InputError(format!(
            "{what} is ambiguous: {} runs begin with it; `srpipe runs` lists them",
            matching.len()
        ))),
    }
}

/// Finds `STAGE` or `PIPELINE/STAGE` in the newest of the latest runs that have it.
pub(super) fn find_stage(store: &Store, stage: &str) -> Result<(RunDir, StageRecord), InputError> {
    let (pipeline, name) = match stage.split_once('/') {
        Some((pipeline, stage)) => (Some(pipeline), stage),
        None => (None, stage),
    };
    let pipelines = pipeline.map_or_else(|| store.pipelines(), |pipeline| vec![pipeline.to_string()]);
    if let Some(pipeline) = pipeline.filter(|pipeline| store.latest_run(pipeline).is_none()) {
        let pipelines = store.pipelines().join(", ");
        return Err(InputError(format!("there are no runs of pipeline {pipeline}; pipelines with runs: {pipelines}")));
    }
    let runs: Vec<RunDir> = pipelines.iter().filter_map(|pipeline| store.latest_run(pipeline)).collect();
    let found: Vec<_> = runs.iter().filter_map(|run| Some((run.clone(), stage_record(run, name)?))).collect();
    // Ids sort by time.
    let newest = found.iter().max_by_key(|(run, _)| run.id()).and_then(|(run, _)| pipeline_of(run));
    let others =
        found.iter().filter_map(|(run, _)| pipeline_of(run)).filter(|pipeline| Some(pipeline) != newest.as_ref());
    let others: Vec<String> = others.map(|pipeline| format!("{pipeline}/{name}")).collect();
    if let Some(pipeline) = newest.filter(|_| !others.is_empty()) {
        note(&format!("showing {pipeline}/{name}, the newest; also found: {}", others.join(", ")));
    }
    found.into_iter().max_by_key(|(run, _)| run.id().to_string()).ok_or_else(|| {
        let mut names: Vec<String> = runs
            .iter()
            .filter_map(|run| run.record().ok())
            .flat_map(|record| record.stages.into_iter().map(|stage| stage.name))
            .collect();
        names.sort();
        names.dedup();
        let instance = names.iter().find(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('[')));
        let hint = match (instance, did_you_mean(name, names.iter().map(String::as_str))) {
            (Some(instance), _) => format!("it is swept: name an instance, such as '{instance}'"),
            (None, Some(suggestion)) => suggestion,
            (None, None) if names.is_empty() => "there are no stages".into(),
            (None, None) => format!("the stages are {}", names.join(", ")),
        };
        InputError(format!("no latest run has a stage {name}; {hint}"))
    })
}

/// Returns the record of a stage in a run.
pub(super) fn stage_record(run: &RunDir, name: &str) -> Option<StageRecord> {
    run.record().ok()?.stages.into_iter().find(|stage| stage.name == name)
}

fn pipeline_of(run: &RunDir) -> Option<String> {
    Some(run.record().ok()?.pipeline)
}

/// Warns if the results of the listed runs were deleted.
pub(super) fn warn_about_deleted_results(store: Option<&Store>) {
    if let Some(store) = store.filter(|store| !store.has_results()) {
        note(&format!(
            "the results of these runs are missing: {} was deleted. The next run recomputes them",
            store.runs_dir().join("store").display()
        ));
    }
}
