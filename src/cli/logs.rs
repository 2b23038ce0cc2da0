//! The command `srpipe logs`, which prints or follows the log of a stage.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::args::LogsArgs;
use super::lookup::{find_stage, open_store};
use super::output::{is_stdout_closed, note, print, print_json, sanitize};
use super::{EXIT_DONE, EXIT_FAILED, cluster};
use crate::format;
use crate::runs::{RunDir, StageRecord, StageRunState};
use crate::runs::{RunView, ViewState};
use crate::store::{open_file, read_file};

/// The interval between two reads of the record and the log.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The interval between updates of the records of unwatched jobs.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn logs(args: &LogsArgs, runs: &Path) -> Result<u8> {
    let store = open_store(runs)?;
    cluster::reconcile_latest(&store);
    let (run, mut stage) = find_stage(&store, &args.stage)?;
    let name = &stage.name.clone();
    let mut is_empty = true;
    let mut reconciled = Instant::now();
    let mut wait = |stage: &mut StageRecord| -> Result<()> {
        std::thread::sleep(POLL_INTERVAL);
        if reconciled.elapsed() >= RECONCILE_INTERVAL {
            // An error ends the command: with damaged records, the stage would never appear to end.
            cluster::try_reconcile_run(&store, &run)?;
            reconciled = Instant::now();
        }
        // Without its record, the stage would never appear to end.
        let stages = run.record()?.stages;
        let found = stages.into_iter().find(|stage| stage.name == *name);
        *stage = found.with_context(|| format!("the record of run {} no longer has the stage {name}", run.id()))?;
        Ok(())
    };
    // The key of a stage is unknown until its inputs are computed.
    while args.follow && stage.key.is_none() && is_unfinished(&run, &stage)? {
        wait(&mut stage)?;
    }
    let path = stage.key.as_ref().map(|key| store.log_path(key)).filter(|path| path.is_file());
    if args.json {
        return print_as_json(&run, &stage, path.as_deref());
    }
    let Some(path) = path else {
        let why = match stage.state {
            StageRunState::Pending => "it has not started",
            StageRunState::Skipped => "it was skipped",
            _ => "it wrote nothing, or the log was removed",
        };
        note(&format!("{name} in run {} has no log: {why}", run.id()));
        return Ok(EXIT_FAILED);
    };
    // An open file stays readable when the log is moved at the end of the stage.
    let (mut file, _) = open_file(&path).with_context(|| format!("opening {}", path.display()))?;
    let mut incomplete = vec![];
    loop {
        let is_active = args.follow && is_unfinished(&run, &stage)?;
        // Read in chunks, because a log may be larger than memory.
        loop {
            let mut bytes = std::mem::take(&mut incomplete);
            let read = (&mut file).take(CHUNK_BYTES).read_to_end(&mut bytes);
            let read = read.with_context(|| format!("reading {}", path.display()))?;
            if read > 0 {
                incomplete = split_off_incomplete(&mut bytes);
            }
            print(&sanitize(&String::from_utf8_lossy(&bytes)));
            is_empty &= bytes.is_empty();
            if is_stdout_closed() {
                return Ok(EXIT_DONE);
            }
            if read == 0 {
                break;
            }
        }
        if !is_active {
            if is_empty {
                note(&format!("the log of {name} in run {} is empty", run.id()));
            }
            return Ok(EXIT_DONE);
        }
        wait(&mut stage)?;
    }
}

/// The number of bytes of a log to read at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// Splits off an incomplete UTF-8 character at the end, whose last bytes are not read yet.
fn split_off_incomplete(bytes: &mut Vec<u8>) -> Vec<u8> {
    let is_start = |byte: &u8| byte & 0xc0 != 0x80;
    let start = bytes.iter().rev().take(4).position(is_start).map_or(bytes.len(), |back| bytes.len() - 1 - back);
    match std::str::from_utf8(&bytes[start..]) {
        Err(error) if error.error_len().is_none() => bytes.split_off(start),
        _ => vec![],
    }
}

/// Prints the log and the state of a stage as JSON.
fn print_as_json(run: &RunDir, stage: &StageRecord, path: Option<&Path>) -> Result<u8> {
    let read = |path: &Path| read_file(path).with_context(|| format!("reading {}", path.display()));
    let text = path.map(read).transpose()?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let pipeline = run.record().ok().map(|record| record.pipeline);
    let value = json!({
        "schema": 1, "pipeline": pipeline, "run": run.id(), "stage": stage.name, "state": stage.state,
        "log": path.map(format::path), "text": text,
    });
    print_json(&value);
    Ok(if path.is_some() { EXIT_DONE } else { EXIT_FAILED })
}

/// Whether a stage may still write to its log.
fn is_unfinished(run: &RunDir, stage: &StageRecord) -> Result<bool> {
    let is_active = [ViewState::Running, ViewState::Unwatched];
    Ok(matches!(stage.state, StageRunState::Pending | StageRunState::Running)
        && is_active.contains(&RunView::read(run)?.state))
}
