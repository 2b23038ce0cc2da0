//! `srpipe logs`.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::args::LogsArgs;
use super::output::{is_closed, note, print, print_json, visible};
use super::{EXIT_DONE, EXIT_FAILED, cluster, store};
use crate::config::InputError;
use crate::format;
use crate::pipeline::did_you_mean;
use crate::runs::{RunDir, StageRecord, StageRunState};
use crate::runs::{RunView, ViewState};
use crate::store::{Store, open_file, read_file};

const POLL: Duration = Duration::from_millis(200);
/// How often it is looked what became of jobs that nobody watches.
const ADOPT: Duration = Duration::from_secs(5);

pub fn logs(args: &LogsArgs, runs: &Path) -> Result<u8> {
    let store = store::open(runs)?;
    cluster::reconcile_latest(&store);
    let (run, mut stage) = find_stage(&store, &args.stage)?;
    let name = &stage.name.clone();
    let mut is_empty = true;
    let mut adopted = Instant::now();
    let mut wait = |stage: &mut StageRecord| -> Result<()> {
        std::thread::sleep(POLL);
        if adopted.elapsed() >= ADOPT {
            // With damaged records, the end of the stage would never be seen.
            cluster::try_reconcile_run(&store, &run)?;
            adopted = Instant::now();
        }
        if let Some(record) = record(&run, name) {
            *stage = record;
        }
        Ok(())
    };
    // Its key is known when its inputs are.
    while args.follow && stage.key.is_none() && is_going_on(&run, &stage) {
        wait(&mut stage)?;
    }
    let path = stage.key.as_ref().map(|key| store.log_path(key)).filter(|path| path.is_file());
    if args.json {
        return as_json(&run, &stage, path.as_deref());
    }
    let Some(path) = path else {
        let why = match stage.state {
            StageRunState::Pending => "it has not started",
            StageRunState::Skipped => "it was skipped",
            _ => "none was kept",
        };
        note(&format!("{name} in run {} has no log: {why}", run.id()));
        return Ok(EXIT_FAILED);
    };
    // Open, it can be read to its end although the stage's end moves it.
    let (mut file, _) = open_file(&path).with_context(|| format!("opening {}", path.display()))?;
    let mut rest = vec![];
    loop {
        let goes_on = args.follow && is_going_on(&run, &stage);
        // In pieces: a program may have written more than fits into memory.
        loop {
            let mut bytes = std::mem::take(&mut rest);
            let read = (&mut file).take(PIECE_BYTES).read_to_end(&mut bytes);
            let read = read.with_context(|| format!("reading {}", path.display()))?;
            if read > 0 {
                rest = split_off_incomplete(&mut bytes);
            }
            print(&visible(&String::from_utf8_lossy(&bytes)));
            is_empty &= bytes.is_empty();
            if is_closed() {
                return Ok(EXIT_DONE);
            }
            if read == 0 {
                break;
            }
        }
        if !goes_on {
            if is_empty {
                note(&format!("the log of {name} in run {} is empty", run.id()));
            }
            return Ok(EXIT_DONE);
        }
        wait(&mut stage)?;
    }
}

/// The bytes of a log that are printed at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Splits off the character at the end whose last bytes are yet to be read.
fn split_off_incomplete(bytes: &mut Vec<u8>) -> Vec<u8> {
    let is_start = |byte: &u8| byte & 0xc0 != 0x80;
    let start = bytes.iter().rev().take(4).position(is_start).map_or(bytes.len(), |back| bytes.len() - 1 - back);
    match std::str::from_utf8(&bytes[start..]) {
        Err(error) if error.error_len().is_none() => bytes.split_off(start),
        _ => vec![],
    }
}

fn as_json(run: &RunDir, stage: &StageRecord, path: Option<&Path>) -> Result<u8> {
    let read = |path: &Path| read_file(path).with_context(|| format!("reading {}", path.display()));
    let text = path.map(read).transpose()?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let value = json!({
        "schema": 1, "pipeline": pipeline_of(run), "run": run.id(), "stage": stage.name, "state": stage.state, "log": path.map(format::path),
        "text": text,
    });
    print_json(&value);
    Ok(if path.is_some() { EXIT_DONE } else { EXIT_FAILED })
}

fn is_going_on(run: &RunDir, stage: &StageRecord) -> bool {
    let goes_on = [ViewState::Running, ViewState::Left];
    matches!(stage.state, StageRunState::Pending | StageRunState::Running)
        && RunView::of(run).is_some_and(|view| goes_on.contains(&view.state))
}

fn record(run: &RunDir, name: &str) -> Option<StageRecord> {
    run.record().ok()?.stages.into_iter().find(|stage| stage.name == name)
}

fn pipeline_of(run: &RunDir) -> Option<String> {
    Some(run.record().ok()?.pipeline)
}

/// `STAGE` or `PIPELINE/STAGE`: the stage in the newest of the latest runs that have it.
pub fn find_stage(store: &Store, stage: &str) -> Result<(RunDir, StageRecord), InputError> {
    let (pipeline, name) = match stage.split_once('/') {
        Some((pipeline, stage)) => (Some(pipeline), stage),
        None => (None, stage),
    };
    let pipelines = pipeline.map_or_else(|| store.pipelines(), |pipeline| vec![pipeline.to_string()]);
    if let Some(pipeline) = pipeline.filter(|pipeline| store.latest_run(pipeline).is_none()) {
        let there = store.pipelines().join(", ");
        return Err(InputError(format!("there are no runs of a pipeline {pipeline}; there are of {there}")));
    }
    let runs: Vec<RunDir> = pipelines.iter().filter_map(|pipeline| store.latest_run(pipeline)).collect();
    let found: Vec<_> = runs.iter().filter_map(|run| Some((run.clone(), record(run, name)?))).collect();
    // Ids sort by time.
    let newest = found.iter().max_by_key(|(run, _)| run.id()).and_then(|(run, _)| pipeline_of(run));
    let others =
        found.iter().filter_map(|(run, _)| pipeline_of(run)).filter(|pipeline| Some(pipeline) != newest.as_ref());
    let others: Vec<String> = others.map(|pipeline| format!("{pipeline}/{name}")).collect();
    if let Some(pipeline) = newest.filter(|_| !others.is_empty()) {
        note(&format!("of {pipeline}, which ran last; there is also {}", others.join(", ")));
    }
    found.into_iter().max_by_key(|(run, _)| run.id().to_string()).ok_or_else(|| {
        let mut names: Vec<String> = runs
            .iter()
            .filter_map(|run| run.record().ok())
            .flat_map(|record| record.stages.into_iter().map(|stage| stage.name))
            .collect();
        names.sort();
        names.dedup();
        let instance = names.iter().find(|there| there.strip_prefix(name).is_some_and(|rest| rest.starts_with('[')));
        let there = match (instance, did_you_mean(name, names.iter().map(String::as_str))) {
            (Some(instance), _) => format!("it is swept: say which, such as '{instance}'"),
            (None, Some(meant)) => meant,
            (None, None) if names.is_empty() => "there is none".into(),
            (None, None) => format!("there are {}", names.join(", ")),
        };
        InputError(format!("no latest run has a stage {name}; {there}"))
    })
}
