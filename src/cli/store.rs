//! The commands `gc`, `verify`, `pin` and `unpin`.

use std::path::Path;

use anyhow::Result;

use super::args::{GcArgs, RunIdArgs, VerifyArgs};
use super::lookup::{find_run, open_store};
use super::output::{Look, Paint, note, print, print_json};
use super::{EXIT_DONE, EXIT_FAILED, cluster};
use crate::config::InputError;
use crate::format;
use crate::plan::Preimage;
use crate::runs::{self, Removed, Retention, collect_garbage};
use crate::store::{Contents, Key, Problem, Store};

pub(super) fn gc(args: &GcArgs, runs: &Path) -> Result<u8> {
    let store = match args.dry_run {
        true => open_store(runs)?,
        // Opening the store for writing fails if it is read-only.
        false => open_store(runs).and_then(|_| Store::open(runs).map_err(|error| InputError(format!("{error:#}"))))?,
    };
    // A run whose jobs have all ended is not active, and may be deleted.
    cluster::reconcile_all(&store);
    let retention = Retention { keep: args.keep as usize, max_bytes: args.max_size };
    let removed = collect_garbage(&store, retention, args.dry_run)?;
    if args.json {
        print_json(&serde_json::json!({"schema": 1, "dry_run": args.dry_run, "removed": removed}));
    } else {
        print(&describe_removed(&removed, args.dry_run));
    }
    Ok(EXIT_DONE)
}

/// Describes what garbage collection removed, or would remove.
fn describe_removed(removed: &Removed, dry_run: bool) -> String {
    let mut text: String = removed.runs.iter().map(|run| format!("run {run}\n")).collect();
    let kinds = [
        (removed.runs.len(), "run"),
        (removed.results.actions, "result"),
        (removed.results.blobs, "blob"),
        (removed.results.work, "unfinished stage"),
        (removed.results.temporaries, "half-written file"),
    ];
    let counts: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|&(n, noun)| format::count(n, noun)).collect();
    let verb = if dry_run { "would remove" } else { "removed" };
    text += &match counts.is_empty() {
        true => "nothing to remove".to_string(),
        false => format!("{verb} {} ({})", counts.join(", "), format::size(removed.results.bytes)),
    };
    text + &format!(
        "; {} with {} left\n",
        format::count(removed.results.blobs_left, "blob"),
        format::size(removed.results.bytes_left)
    )
}

pub(super) fn verify(args: &VerifyArgs, runs: &Path) -> Result<u8> {
    let store = open_store(runs)?;
    let mut verified = runs::verify(&store, |action| match Preimage::of(action) {
        Some(preimage) => preimage.check_outputs(&action.outputs),
        // The record is from another version of srpipe, whose outputs are unknown here.
        None => Ok(()),
    })?;
    verified.damaged_runs.extend(cluster::damaged_job_records(&store));
    if args.json {
        print_json(&serde_json::json!({"schema": 1, "verified": verified}));
    } else {
        let paint = Paint::stdout();
        for problem in &verified.problems {
            let (key, what) = match problem {
                Problem::InvalidRecord { key, reason } => (key, format!("its record is damaged: {reason}")),
                Problem::Damaged { key, output, digest } => (key, format!("{output} is damaged (blob {digest})")),
                Problem::Missing { key, output, digest } => (key, format!("{output} is missing (blob {digest})")),
            };
            print(&format!("{} {}: {what}\n", paint.paint(Look::Bad, "damaged:"), describe_result(&store, key)));
        }
        for run in &verified.damaged_runs {
            print(&format!("{} {run}\n", paint.paint(Look::Bad, "damaged:")));
        }
        for path in &verified.wrong_hashes {
            let what = "had a wrong digest in the stat cache; the entry was removed";
            print(&format!("{} {} {what}\n", paint.paint(Look::Bad, "damaged:"), path.display()));
        }
        let verdict = match verified.problems.len() {
            0 if verified.is_intact() => "all results are intact".to_string(),
            0 => "all results are intact, other files are damaged".to_string(),
            n => format!("{}: the next run that needs them recomputes them", format::count(n, "damaged result")),
        };
        print(&format!("{}; {verdict}\n", contents(&verified.contents)));
        if verified.sealed > 0 {
            let records = format::count(verified.sealed, "record");
            note(&format!("added checksums to {records} of an older version of srpipe"));
        }
        if verified.unreferenced > 0 {
            note(&format!(
                "{} not referenced by any result; `srpipe gc` removes them",
                format::count(verified.unreferenced, "blob")
            ));
        }
    }
    Ok(if verified.is_intact() { EXIT_DONE } else { EXIT_FAILED })
}

/// Describes a result by the stages of the latest runs that have its key, or else by its kind and key.
fn describe_result(store: &Store, key: &Key) -> String {
    let runs = store.pipelines().into_iter().filter_map(|pipeline| store.latest_run(&pipeline));
    let stages = runs.filter_map(|run| run.record().ok()).flat_map(|record| {
        let has_key = record.stages.into_iter().filter(|stage| stage.key.as_ref() == Some(key));
        has_key.map(|stage| format!("{}/{}", record.pipeline, stage.name)).collect::<Vec<_>>()
    });
    let stages: Vec<String> = stages.collect();
    if !stages.is_empty() {
        return stages.join(", ");
    }
    let kind = store.action(key).ok().flatten().and_then(|action| Some(Preimage::of(&action)?.kind.to_string()));
    format!("{} {key}", kind.unwrap_or_else(|| "result".to_string()))
}

pub(super) fn pin(args: &RunIdArgs, runs: &Path, pin: bool) -> Result<u8> {
    let store = open_store(runs)?;
    let run = find_run(&store, &args.run)?;
    if pin {
        run.pin()?
    } else {
        run.unpin()?
    }
    if args.json {
        let pipeline = run.record().ok().map(|record| record.pipeline);
        let value = serde_json::json!({"schema": 1, "pipeline": pipeline, "run": run.id(), "pinned": pin});
        print_json(&value);
        return Ok(EXIT_DONE);
    }
    let what = if pin { "is pinned: `srpipe gc` keeps it" } else { "is no longer pinned" };
    print(&format!("run {} {what}\n", run.id()));
    Ok(EXIT_DONE)
}

/// Describes the contents of the store in one line.
pub(super) fn contents(contents: &Contents) -> String {
    let Contents { results, blobs, bytes, unfinished } = *contents;
    let unfinished = match unfinished {
        0 => String::new(),
        n => format!(", {} unfinished", format::count(n, "stage")),
    };
    let results = format::count(results, "result");
    format!("store: {results} in {}, {}{unfinished}", format::count(blobs, "blob"), format::size(bytes))
}
