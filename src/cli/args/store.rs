//! What looks after results and moves them.

use std::path::PathBuf;

use clap::Args;

use super::whole;

const GC_JSON: &str = "\
With --json: {\"schema\": 1, \"dry_run\", \"removed\": {\"runs\": [PIPELINE/ID], \"actions\", \"blobs\", \"bytes\", \"work\",
\"temporaries\", \"blobs_left\", \"bytes_left\"}}.";

const VERIFY_JSON: &str = "\
With --json: {\"schema\": 1, \"verified\": {\"contents\": {\"results\", \"blobs\", \"bytes\", \"unfinished\"}, \"problems\":
[{\"problem\": garbled|damaged|missing, \"key\", \"reason\", \"output\", \"digest\"}], \"unreferenced\", \"wrong_hashes\" (files),
\"damaged_runs\", \"sealed\" (records)}}. Exit code 1 where anything is damaged.";

const PUSH_JSON: &str = "\
With --json: {\"schema\": 1, \"run\", \"pushed\" (results), \"there\" (already present), \"repaired\"
(damaged there and replaced)}.";

const PIN_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"run\", and \"pinned\": true|false, or of `cancel` \"is\": what became of it}.";

const SHARE_JSON: &str = "\
With --json: {\"schema\": 1, \"moved\": {\"pipeline\", \"run\", \"results\", \"blobs\", \"bytes\"}}.";

/// Runs that are going on and those that are pinned stay, and so does the latest of each pipeline. What a run that is
/// going on counts on is never removed.
#[derive(Debug, Args)]
#[command(after_help = GC_JSON)]
pub struct GcArgs {
    /// Of each pipeline, keep this many of the newest runs.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<u32, 1, { u32::MAX as u64 }>)]
    pub keep: u32,
    /// Keep fewer runs, without the oldest, where the results take more than this: `20 GB`, `500 MiB`.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Tell what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// A run takes a blob for whole that has its size and that nobody has written to since (its time of modification tells),
/// and verifies every blob that a stage reads. What a failing disk changes without a trace, in a blob that no stage
/// reads, is found here alone.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_JSON)]
pub struct VerifyArgs {
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = SHARE_JSON)]
pub struct ExportArgs {
    /// A run's id, or a pipeline's name for its latest run.
    pub run: String,
    /// The archive, compressed where it ends in `.gz` (weights and images hardly shrink).
    pub file: PathBuf,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// Nothing in the file is believed: what is not what it says is refused.
#[derive(Debug, Args)]
#[command(after_help = SHARE_JSON)]
pub struct ImportArgs {
    /// The archive.
    pub file: PathBuf,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// The cache is `remote` in $XDG_CONFIG_HOME/srpipe/config.yaml (or ~/.config/srpipe/config.yaml), or SRPIPE_REMOTE: a
/// folder, or `s3://BUCKET/PREFIX`. `run` takes from it what is known there.
#[derive(Debug, Args)]
#[command(after_help = PUSH_JSON)]
pub struct PushArgs {
    /// A run's id, or a pipeline's name for its latest run.
    pub run: String,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = PIN_JSON)]
pub struct RunIdArgs {
    /// A run's id, or a pipeline's name for its latest run.
    pub run: String,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

fn size(text: &str) -> Result<u64, String> {
    crate::config::bytes(text).ok_or_else(|| "must be a number with a unit, such as `20 GB`".to_string())
}
