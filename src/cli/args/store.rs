//! The arguments of `gc`, `verify`, `export`, `import`, `push`, `cancel`, `pin` and `unpin`.

use std::path::PathBuf;

use clap::Args;

use super::values::integer;

const GC_JSON: &str = "\
With --json: {\"schema\": 1, \"dry_run\", \"removed\": {\"runs\": [PIPELINE/ID], \"actions\", \"blobs\", \"bytes\", \"work\",
\"temporaries\", \"blobs_left\", \"bytes_left\"}}.";

const VERIFY_JSON: &str = "\
With --json: {\"schema\": 1, \"verified\": {\"contents\": {\"results\", \"blobs\", \"bytes\", \"unfinished\"}, \"problems\":
[{\"problem\": garbled|damaged|missing, \"key\", \"reason\", \"output\", \"digest\"}], \"unreferenced\", \"wrong_hashes\" (files),
\"damaged_runs\", \"sealed\" (records)}}. The exit code is 1 if anything is damaged.";

const PUSH_JSON: &str = "\
With --json: {\"schema\": 1, \"run\", \"pushed\" (results), \"there\" (already in the cache), \"repaired\"
(damaged in the cache and replaced)}.";

const PIN_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"run\", and \"pinned\": true|false, or for `cancel` \"is\": the outcome}.";

const SHARE_JSON: &str = "\
With --json: {\"schema\": 1, \"moved\": {\"pipeline\", \"run\", \"results\", \"blobs\", \"bytes\"}}.";

/// The arguments of `srpipe gc`.
#[derive(Debug, Args)]
#[command(after_help = GC_JSON)]
pub struct GcArgs {
    /// Keep the N newest runs of each pipeline.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = integer::<u32, 1, { u32::MAX as u64 }>)]
    pub keep: u32,
    /// Delete more of the oldest runs until the results fit this size: `20 GB`, `500 MiB`.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Show what would be removed without removing it.
    #[arg(long)]
    pub dry_run: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `srpipe verify`.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_JSON)]
pub struct VerifyArgs {
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `srpipe export`.
#[derive(Debug, Args)]
#[command(after_help = SHARE_JSON)]
pub struct ExportArgs {
    /// A run id, or a pipeline name for its latest run.
    pub run: String,
    /// The archive to write; a name ending in `.gz` compresses it (weights and images hardly shrink).
    pub file: PathBuf,
    /// Overwrite an existing file.
    #[arg(long)]
    pub force: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `srpipe import`. The archive is untrusted: contents that do not match their digests are rejected.
#[derive(Debug, Args)]
#[command(after_help = SHARE_JSON)]
pub struct ImportArgs {
    /// The archive to read.
    pub file: PathBuf,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `srpipe push`.
#[derive(Debug, Args)]
#[command(after_help = PUSH_JSON)]
pub struct PushArgs {
    /// A run id, or a pipeline name for its latest run.
    pub run: String,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `srpipe cancel`, `pin` and `unpin`.
#[derive(Debug, Args)]
#[command(after_help = PIN_JSON)]
pub struct RunIdArgs {
    /// A run id, or a pipeline name for its latest run.
    pub run: String,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// Parses a size with a unit, in bytes.
fn size(text: &str) -> Result<u64, String> {
    crate::config::bytes(text).ok_or_else(|| "must be a number with a unit, such as `20 GB`".to_string())
}
