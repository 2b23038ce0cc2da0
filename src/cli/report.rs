//! The command `srpipe report`, and the report that each run writes to its folder.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::json;

use super::args::ReportArgs;
use super::lookup::{find_run, no_runs, open_store};
use super::output::{note, print, print_json};
use super::{EXIT_DONE, output_file, results, status};
use crate::format;
use crate::report;
use crate::runs::RunDir;
use crate::store::Store;

/// The file name of the report in a run's folder.
pub(super) const FILE: &str = "report.html";

pub(super) fn report(args: &ReportArgs, runs: &Path) -> Result<u8> {
    let store = open_store(runs)?;
    let run = match &args.what {
        Some(what) if status::looks_like_file(what) => {
            let pipeline = super::load(Path::new(what), &super::FlagArgs { set: vec![], sweep: vec![] })?;
            find_run(&store, &pipeline.name)?
        }
        Some(what) => find_run(&store, what)?,
        None => newest(&store).ok_or_else(|| no_runs(runs))?,
    };
    // Garbage collection must not delete results while they are read.
    let _guard = store.guard()?;
    let page = report::collect(&store, &run)?.render()?;
    let damage = store.take_warnings();
    if !damage.is_empty() {
        anyhow::bail!(
            "cannot write the report of run {}: some of its results are damaged\n  {}\nRun `srpipe verify` and the pipeline again to recompute them",
            run.id(),
            damage.join("\n  ")
        );
    }
    let path = match &args.output {
        Some(path) if path == Path::new("-") => {
            print(&page);
            return Ok(EXIT_DONE);
        }
        Some(path) => {
            output_file::write(path, page.as_bytes())?;
            path.clone()
        }
        None => run.write(FILE, page.as_bytes())?,
    };
    match args.json {
        true => {
            let record = run.record().ok();
            let claims = record.as_ref().map(|record| results::claims_to_json(&store, record)).unwrap_or_default();
            let pipeline = record.map(|record| record.pipeline);
            let path = format::path(&path);
            print_json(&json!({
                "schema": 1, "pipeline": pipeline, "run": run.id(), "report": path, "claims": claims,
            }));
        }
        false => print(&format!("{}\n", path.display())),
    }
    if args.open {
        open(&path)?;
    }
    Ok(EXIT_DONE)
}

/// Writes the report of a finished run. Errors are printed as warnings, because the run's results are valid without it.
pub(super) fn write(store: &Store, pipeline: &str, id: &str) {
    let Some(run) = store.runs(pipeline).into_iter().find(|run| run.id() == id) else { return };
    let written = report::collect(store, &run).and_then(|report| run.write(FILE, report.render()?.as_bytes()));
    store.take_warnings().iter().for_each(|warning| note(&format!("warning: {warning}")));
    if let Err(error) = written {
        note(&format!("warning: cannot write the report of this run: {error:#}"));
    }
}

fn newest(store: &Store) -> Option<RunDir> {
    let runs = store.pipelines().into_iter().filter_map(|pipeline| store.runs(&pipeline).pop());
    // Ids sort by time.
    runs.max_by(|a, b| a.id().cmp(b.id()))
}

/// Opens a file with `$BROWSER` or the system's default program.
fn open(path: &Path) -> Result<()> {
    let opener = std::env::var_os("BROWSER").filter(|browser| !browser.is_empty());
    let opener = opener.unwrap_or_else(|| if cfg!(target_os = "macos") { "open" } else { "xdg-open" }.into());
    let path = std::path::absolute(path).context("finding the working directory")?;
    let status =
        Command::new(&opener).arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let opener = opener.to_string_lossy();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => anyhow::bail!("{opener} could not open {} ({status}); open it by hand", path.display()),
        Err(error) => anyhow::bail!(
            "cannot start {opener} ({error}): set BROWSER to your browser, or open {} by hand",
            path.display()
        ),
    }
}
