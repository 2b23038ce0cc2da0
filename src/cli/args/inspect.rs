//! The arguments of `status`, `diff`, `runs`, `graph`, `check` and `logs`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::run::FlagArgs;

const STATUS_JSON: &str = "\
With --json: {\"schema\": 1, \"pipelines\": [{\"pipeline\", \"run\"}], \"store\": {\"results\", \"blobs\", \"bytes\",
\"unfinished\"}}; for a file or a run, {\"schema\": 1, \"pipeline\", \"run\": {\"id\", \"state\": running|left|ok|failed|interrupted|died,
\"file\", \"started_at\", \"finished_at\", \"seconds\", \"counts\"}, \"stages\": [{\"name\", \"kind\", \"state\", \"key\",
\"finished_at\", \"seconds\", \"metrics\", \"progress\", \"error\", \"job\": {\"id\", \"queued\" (why),
\"node\"}, \"waits_for\"}], \"claims\": [as in `summary.json`, with \"stage\" and \"exploratory\": the reason why the
answer is exploratory, or null]}.";

/// The arguments of `srpipe status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS_JSON)]
pub struct StatusArgs {
    /// A pipeline file, run id or pipeline name; default: the latest run of every pipeline.
    pub what: Option<String>,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Show each instance of a sweep on its own line.
    #[arg(long)]
    pub all: bool,
    /// Show the current state and exit. By default, on a terminal, an active run is followed until it ends.
    #[arg(long)]
    pub once: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const DIFF_JSON: &str = "\
With --json: {\"schema\": 1, \"runs\": [ID, ID], \"params\": {PATH: [before, after]}, \"metrics\": {STAGE.NAME: [before,
after]}}; null if a run has no value.";

/// The arguments of `srpipe diff`.
#[derive(Debug, Args)]
#[command(after_help = DIFF_JSON)]
pub struct DiffArgs {
    #[arg(value_name = "RUN")]
    pub before: String,
    #[arg(value_name = "RUN")]
    pub after: String,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const RUNS_HELP: &str = "\
Examples:
  srpipe runs ablation --filter state=ok --sort psnr_mean.baseline --reverse
  srpipe runs ablation --filter 'base_channels>=32'

With --json: {\"schema\": 1, \"runs\": [{\"id\", \"pipeline\", \"state\": running|left|ok|failed|interrupted|died,
\"started_at\", \"seconds\", \"params\": {PATH: text}, \"metrics\": {STAGE.NAME: number}}]}";

/// The arguments of `srpipe runs`.
#[derive(Debug, Args)]
#[command(after_help = RUNS_HELP)]
pub struct RunsArgs {
    /// Show only the runs of this pipeline.
    pub pipeline: Option<String>,
    /// Show only runs that match NAME=VALUE; also != < <= > >=.
    #[arg(long, value_name = "TEST")]
    pub filter: Vec<String>,
    /// Sort by run, pipeline, state, age, took, a parameter or a metric; default: newest first.
    #[arg(long, value_name = "NAME")]
    pub sort: Option<String>,
    /// Reverse the order.
    #[arg(long)]
    pub reverse: bool,
    /// Show all parameters and metrics, including those with the same value in all runs.
    #[arg(long)]
    pub all: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// The output format of `srpipe graph`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A tree for the terminal: each stage is below its last dependency.
    Ascii,
    /// A Graphviz graph.
    Dot,
    /// A Mermaid diagram, for Markdown.
    Mermaid,
}

const GRAPH_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"nodes\": [{\"name\", \"kind\", \"count\", \"states\": {STATE: count}, \"reads\":
[names]}]}";

/// The arguments of `srpipe graph`.
#[derive(Debug, Args)]
#[command(after_help = GRAPH_JSON)]
pub struct GraphArgs {
    /// The pipeline file.
    pub file: PathBuf,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// The output format.
    #[arg(long, value_enum, default_value_t = GraphFormat::Ascii)]
    pub format: GraphFormat,
    /// Show each instance of a sweep on its own line.
    #[arg(long)]
    pub all: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const CHECK_JSON: &str = "\
With --json: {\"schema\": 1, \"files\": [{\"file\", \"stages\" (the number of stages, or null if there are errors),
\"errors\": [{\"message\", \"place\" (file:line:column, or the flag), \"help\"}]}]}.";

/// The arguments of `srpipe check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_JSON)]
pub struct CheckArgs {
    /// The pipeline files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const LOGS_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"run\", \"stage\", \"state\": pending|running|ran|cached|failed|skipped|interrupted,
\"log\" (a path, or null), \"text\" (or null)}.";

/// The arguments of `srpipe logs`. The exit code is 1 if the stage has no log.
#[derive(Debug, Args)]
#[command(after_help = LOGS_JSON)]
pub struct LogsArgs {
    /// A stage, or `PIPELINE/STAGE` if several pipelines have a stage of that name.
    pub stage: String,
    /// Print new output until the stage ends.
    #[arg(short, long)]
    pub follow: bool,
    /// Write JSON to stdout.
    #[arg(long, conflicts_with = "follow")]
    pub json: bool,
}
