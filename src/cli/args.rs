//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::pipeline::Device;

/// Examples and exit codes, to be put before more.
macro_rules! examples {
    () => {
        "\
Examples:
  srpipe run pipelines/quickstart.yaml         runs what is not known yet; run it again after any interruption
  srpipe run pipelines/ablation.yaml --set stages.cifar.url=file:cifar-10-binary.tar.gz
  srpipe run pipelines/ablation.yaml --set defaults.train.model.base_channels=16 --dry-run
  srpipe status                                the latest run of every pipeline
  srpipe status pipelines/ablation.yaml        every stage of one
  srpipe logs baseline -f                      what a stage says while it runs

Exit codes:
    0  done
    1  a stage failed, or the machine did
    2  the pipeline file, the command line or a file that it names is wrong; nothing was started
  130  interrupted; what ran has saved its progress"
    };
}

const EXAMPLES: &str = examples!();

const RUN_HELP: &str = concat!(
    examples!(),
    "\n
With --json, one object a line on stdout; within a schema, fields and events are only added:
  {\"event\": \"run_started\", \"schema\": 1, \"run\": ID, \"pipeline\": NAME, \"stages\": [NAME, ...]}
  {\"event\": \"stage\", \"stage\": NAME, \"state\": pending|running|cached|ran|failed|skipped|interrupted}
      ran: \"seconds\"; failed: \"error\", \"cause\" (failed|lost|out_of_memory|time), \"log\" (a path);
      skipped: \"because\" (a stage, or null); running: \"waiting\" where another run computes the same
  {\"event\": \"progress\", \"stage\": NAME, \"done\": N, \"total\": N, \"unit\": TEXT, \"values\": {NAME: NUMBER}}
  {\"event\": \"message\", \"stage\": NAME, \"text\": TEXT}
  {\"event\": \"stopping\"}
  {\"event\": \"run_finished\", \"run\": ID, \"state\": ok|failed|interrupted, \"stages\": {NAME: STATE}}"
);

const STATUS_JSON: &str = "\
With --json: {\"schema\": 1, \"pipelines\": [{\"pipeline\", \"run\"}], \"store\": {\"results\", \"blobs\", \"bytes\",
\"unfinished\"}}; of a file or a run {\"schema\": 1, \"pipeline\", \"run\": {\"id\", \"state\": running|ok|failed|interrupted|died,
\"file\", \"started_at\", \"finished_at\", \"seconds\", \"counts\"}, \"stages\": [{\"name\", \"kind\", \"state\", \"key\",
\"finished_at\", \"seconds\", \"metrics\", \"progress\", \"error\", \"waits_for\"}]}.";

const CHECK_JSON: &str = "\
With --json: {\"schema\": 1, \"files\": [{\"file\", \"stages\" (how many, where there are no errors), \"errors\": [{\"message\",
\"place\" (file:line:column, or the flag), \"help\"}]}]}.";

const GC_JSON: &str = "\
With --json: {\"schema\": 1, \"dry_run\", \"removed\": {\"runs\": [PIPELINE/ID], \"actions\", \"blobs\", \"bytes\", \"work\",
\"temporaries\", \"blobs_left\", \"bytes_left\"}}.";

const VERIFY_JSON: &str = "\
With --json: {\"schema\": 1, \"verified\": {\"contents\": {\"results\", \"blobs\", \"bytes\", \"unfinished\"}, \"problems\":
[{\"problem\": garbled|damaged|missing, \"key\", \"output\", \"digest\"}], \"unreferenced\"}}. Exit code 1 where there are problems.";

const SHARE_JSON: &str = "\
With --json: {\"schema\": 1, \"moved\": {\"pipeline\", \"run\", \"results\", \"blobs\", \"bytes\"}}.";

/// Runs super-resolution experiments from YAML: what is known already is not computed again, and what was interrupted
/// goes on where it stopped.
#[derive(Debug, Parser)]
#[command(name = "srpipe", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// The folder that keeps results.
    #[arg(long, global = true, env = "SRPIPE_RUNS", default_value = "runs", value_name = "FOLDER")]
    pub runs_dir: PathBuf,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the stages of a pipeline that are not known yet.
    Run(RunArgs),
    /// Show where runs and stages stand.
    Status(StatusArgs),
    /// Say whether pipeline files are right, and all that is wrong with them.
    Check(CheckArgs),
    /// Show what a stage of the latest run said.
    Logs(LogsArgs),
    /// Remove what no run needs any more: runs but the newest of each pipeline, and then the results that none has.
    Gc(GcArgs),
    /// Read every result and say which are damaged; the next run makes those again.
    Verify(VerifyArgs),
    /// Write a run with all its results to one file.
    Export(ExportArgs),
    /// Add a run from such a file.
    Import(ImportArgs),
    /// Copy a run's results to the shared cache.
    Push(PushArgs),
    /// Keep a run, however old it gets.
    Pin(RunIdArgs),
    /// Keep a run no longer than others.
    Unpin(RunIdArgs),
    /// Print the JSON Schema of pipeline files, for editors and other programs.
    Schema,
    /// Print the completions of a shell.
    Completions { shell: clap_complete::Shell },
    /// Run one stage, as ordered on stdin.
    #[command(hide = true)]
    Exec,
    /// Start a stage's program.
    #[command(hide = true)]
    Launch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<std::ffi::OsString>,
    },
}

/// Ctrl-C asks running stages to save their progress; run
/// again to go on. A run that is killed loses what was done since the last checkpoint, and goes on the same way.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = RUN_HELP)]
pub struct RunArgs {
    /// The pipeline file.
    pub file: PathBuf,
    /// Set a value of the file, by its path from the root: `stages.cifar.limit.train=1000`.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Stages at once, which then share the cores. Without it networks run one after the other, each on up to 8 cores or
    /// more if there is nothing else to run, and short stages beside.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub jobs: Option<u32>,
    /// Go on with stages that do not need one that failed. Without it, what runs goes on to its end and nothing else is
    /// started.
    #[arg(short, long)]
    pub keep_going: bool,
    /// Run this stage although its result is known; of a swept stage, every instance.
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Run this stage and what it needs, nothing else.
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,
    /// Where networks run, instead of what the file says: auto, cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<Device>,
    /// Show what would run and why; start and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Write one JSON object a line to stdout; the last is `run_finished`.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = STATUS_JSON)]
pub struct StatusArgs {
    /// A pipeline file, a run's id or a pipeline's name; without it, every pipeline's latest run.
    pub what: Option<String>,
    /// Set a value of the file, as for `run`.
    #[arg(long, value_name = "PATH=VALUE", requires = "what")]
    pub set: Vec<String>,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_JSON)]
pub struct CheckArgs {
    /// Pipeline files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Set a value of the files, as for `run`.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// A stage; `PIPELINE/STAGE` where several pipelines have one of that name.
    pub stage: String,
    /// Go on as long as the stage runs.
    #[arg(short, long)]
    pub follow: bool,
}

/// Runs that are going on and those that are pinned stay, and so does the latest of each pipeline. What a run that is
/// going on counts on is never removed.
#[derive(Debug, Args)]
#[command(after_help = GC_JSON)]
pub struct GcArgs {
    /// Of each pipeline, keep this many of the newest runs.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
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
pub struct PushArgs {
    /// A run's id, or a pipeline's name for its latest run.
    pub run: String,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RunIdArgs {
    /// A run's id, or a pipeline's name for its latest run.
    pub run: String,
}

fn size(text: &str) -> Result<u64, String> {
    crate::pipeline::bytes(text).ok_or_else(|| "must be a number with a unit, such as `20 GB`".to_string())
}

fn device(text: &str) -> Result<Device, String> {
    text.parse().map_err(|expected| format!("must be {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn devices_are_read() {
        let read = ["auto", "cpu", "cuda", "cuda:3"].map(|text| device(text).unwrap());
        assert_eq!(read, [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3)]);
        assert!(["gpu", "cuda:", "cuda:x", ""].iter().all(|text| device(text).is_err()));
    }
}
