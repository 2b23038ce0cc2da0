//! What a report is asked of, and where it goes.

use std::path::PathBuf;

use clap::Args;

const REPORT_EXAMPLES: &str = "\
Examples:
  srpipe report                                   of the newest run
  srpipe report pipelines/quickstart.yaml --open  of the file's latest run, in the browser
  srpipe report 20261124-091502.118-kqzt -o results.html

With --json: {\"schema\": 1, \"pipeline\", \"run\", \"report\" (a path)}.";

/// The report of a run: one HTML file that needs nothing beside it, to be mailed or printed. `run` writes it into the
/// run's folder; this writes it again, of any run and of one that is not done yet.
#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub struct ReportArgs {
    /// A run's id, a pipeline's name or its file; without it, the newest run.
    pub what: Option<String>,
    /// Open it in the browser.
    #[arg(long)]
    pub open: bool,
    /// Where to write it, instead of the run's folder; `-` is stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}
