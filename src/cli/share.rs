//! The commands `export`, `import` and `push`.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::args::{ExportArgs, ImportArgs, PushArgs};
use super::lookup::{find_run, open_store};
use super::output::{note, print, print_json};
use super::output_file::OutputFile;
use super::{EXIT_DONE, EXIT_FAILED, settings};
use crate::config::InputError;
use crate::format;
use crate::runs::archive::{self, Transferred};
use crate::runs::{Pushed, Remote};
use crate::store::Store;

pub(super) fn export(args: &ExportArgs, runs: &Path) -> Result<u8> {
    let store = open_store(runs)?;
    let run = find_run(&store, &args.run)?;
    let path = args.file.display();
    let folder = args.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(
            InputError(format!("{path}: the folder {} does not exist; create it first", folder.display())).into()
        );
    }
    if args.file.is_file() && !args.force {
        return Err(
            InputError(format!("{path} already exists: overwrite it with --force, or choose another name")).into()
        );
    }
    // The archive appears only when it is complete: a truncated archive would look valid.
    let file = OutputFile::create(&args.file).map_err(|error| InputError(format!("{error:#}")))?;
    let mut out = BufWriter::new(file);
    let moved = if archive::is_compressed(&args.file) {
        // Use the fastest level: images and weights hardly shrink, and tables shrink at any level.
        let mut gzip = GzEncoder::new(&mut out, Compression::fast());
        let moved = archive::export(&store, &run, &mut gzip)?;
        gzip.finish().with_context(|| format!("writing {path}"))?;
        moved
    } else {
        archive::export(&store, &run, &mut out)?
    };
    let file = out.into_inner().map_err(|error| error.into_error()).with_context(|| format!("writing {path}"))?;
    file.finish()?;
    report_moved(&moved, args.json, &format!("written to {path}"));
    Ok(EXIT_DONE)
}

pub(super) fn import(args: &ImportArgs, runs: &Path) -> Result<u8> {
    let path = args.file.display();
    let file = File::open(&args.file)
        .map_err(|e| InputError(format!("cannot read the archive {path}: {}", format::io_error(&e))))?;
    if args.file.is_dir() {
        return Err(InputError(format!("{path} is a folder; expected an archive written by `srpipe export`")).into());
    }
    let store = Store::open(runs)?;
    let moved = archive::import(&store, BufReader::new(file)).with_context(|| format!("importing {path}"))?;
    report_moved(&moved, args.json, &format!("imported from {path}"));
    Ok(EXIT_DONE)
}

pub(super) fn push(args: &PushArgs, runs: &Path) -> Result<u8> {
    let store = open_store(runs)?;
    let run = find_run(&store, &args.run)?;
    let address = settings::remote()?.ok_or_else(|| {
        InputError(
            "no shared cache is configured: set SRPIPE_REMOTE, or `remote` in srpipe/config.yaml (see `srpipe push --help`)".into(),
        )
    })?;
    let remote = Remote::open(&address)?;
    let record = run.record()?;
    let _guard = store.guard()?;
    let (mut pushed, mut present, mut repaired) = (0, 0, 0);
    let mut is_complete = true;
    for (stage, key) in record.stages.iter().filter_map(|stage| Some((stage, stage.key.as_ref()?))) {
        if let Some(problem) = store.problem(key) {
            note(&format!("warning: {} was not pushed: {problem}. Run the pipeline again to recompute it", stage.name));
            is_complete = false;
        } else if store.action(key)?.is_some() {
            match remote.push(&store, key).with_context(|| format!("pushing to {address}"))? {
                Pushed::New => pushed += 1,
                Pushed::Present => present += 1,
                Pushed::Repaired => repaired += 1,
            }
        }
    }
    if args.json {
        let summary = serde_json::json!({
            "schema": 1, "run": record.id, "pushed": pushed, "there": present, "repaired": repaired,
        });
        print_json(&summary);
    } else {
        let repaired = if repaired > 0 { format!(", {repaired} damaged and repaired") } else { String::new() };
        print(&format!("{} pushed to {address}, {present} already there{repaired}\n", format::count(pushed, "result")));
    }
    Ok(if is_complete { EXIT_DONE } else { EXIT_FAILED })
}

/// Prints what an export or import contained.
fn report_moved(moved: &Transferred, as_json: bool, what: &str) {
    if as_json {
        return print_json(&serde_json::json!({"schema": 1, "moved": moved}));
    }
    print(&format!(
        "{} run {}: {} in {} ({}) {what}\n",
        moved.pipeline,
        moved.run,
        format::count(moved.results, "result"),
        format::count(moved.blobs, "blob"),
        format::size(moved.bytes)
    ));
}
