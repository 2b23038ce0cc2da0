//! The arguments of `report`.

use std::path::PathBuf;

use clap::Args;

const REPORT_EXAMPLES: &str = "\
Examples:
  srpipe report                                   report on the newest run
  srpipe report pipelines/quickstart.yaml --open  open the file's latest report in the browser
  srpipe report 20261124-091502.118-kqzt -o results.html

With --json: {\"schema\": 1, \"pipeline\", \"run\", \"report\" (a path), \"claims\": [as in `status --json`]}.";

/// The arguments of `srpipe report`.
#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub struct ReportArgs {
    /// A run id, pipeline name or pipeline file; default: the newest run.
    pub what: Option<String>,
    /// Open the report in the browser.
    #[arg(long)]
    pub open: bool,
    /// Write to this file instead of the run's folder; `-` means stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}
