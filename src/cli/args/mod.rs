//! The command-line arguments and their help.

mod bench;
mod help;
mod report;
mod store;
mod user;

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Device, ExecutorKind};
use crate::pipeline::Flags;

pub use bench::{BenchArgs, BenchBackend};
pub use help::command;
pub use report::ReportArgs;
pub use store::{ExportArgs, GcArgs, ImportArgs, PushArgs, RunIdArgs, VerifyArgs};
pub use user::{InitArgs, Template, UpscaleArgs};

/// The examples and exit codes, as a macro so that `concat!` can extend them.
macro_rules! examples {
    () => {
        "\
Examples:
  srpipe init                                  write a commented pipeline file to start from
  srpipe run pipelines/quickstart.yaml         run all stages that are not cached
  srpipe run pipelines/ablation.yaml --set stages.cifar.url=file:cifar-10-binary.tar.gz
  srpipe run pipelines/ablation.yaml --set defaults.train.model.base_channels=16 --dry-run
  srpipe plan pipelines/sweep.yaml --sweep seed=0,1,2      show what would run and for how long
  srpipe why pipelines/ablation.yaml attention  show what changed, with its line in the file
  srpipe status                                show the latest run of every pipeline
  srpipe status pipelines/ablation.yaml        show every stage of a pipeline
  srpipe logs baseline -f                      follow the log of a stage
  srpipe upscale photo.png --model attention -o out.png    upscale an image with a trained model
  srpipe bench                                 measure training and sampling speed

Exit codes:
    0  success
    1  a stage failed, or a system error occurred
    2  invalid pipeline file, command line or input file; nothing was started
  130  interrupted; running stages saved a checkpoint"
    };
}

const EXAMPLES: &str = examples!();

const RUN_HELP: &str = concat!(
    examples!(),
    "\n
With --json, stdout has one object per line. Within a schema version, fields and events are only added:
  {\"event\": \"run_started\", \"schema\": 1, \"run\": ID, \"pipeline\": NAME, \"stages\": [NAME, ...]}
  {\"event\": \"stage\", \"stage\": NAME, \"state\": pending|running|cached|ran|failed|skipped|interrupted}
      ran: \"seconds\"; failed: \"error\", \"cause\" (failed|lost|out_of_memory|time), \"log\" (a path);
      skipped: \"because\" (a stage, or null); running: \"waiting\" if another run computes the same result
  {\"event\": \"progress\", \"stage\": NAME, \"done\": N, \"total\": N, \"unit\": TEXT, \"values\": {NAME: NUMBER}}
  {\"event\": \"message\", \"stage\": NAME, \"text\": TEXT}
  {\"event\": \"stopping\"}
  {\"event\": \"run_finished\", \"schema\": 1, \"run\": ID, \"state\": ok|failed|interrupted, \"stages\": {NAME: STATE}}"
);

const STATUS_JSON: &str = "\
With --json: {\"schema\": 1, \"pipelines\": [{\"pipeline\", \"run\"}], \"store\": {\"results\", \"blobs\", \"bytes\",
\"unfinished\"}}; for a file or a run, {\"schema\": 1, \"pipeline\", \"run\": {\"id\", \"state\": running|left|ok|failed|interrupted|died,
\"file\", \"started_at\", \"finished_at\", \"seconds\", \"counts\"}, \"stages\": [{\"name\", \"kind\", \"state\", \"key\",
\"finished_at\", \"seconds\", \"metrics\", \"progress\", \"error\", \"job\": {\"id\", \"queued\" (why),
\"node\"}, \"waits_for\"}]}.";

const CHECK_JSON: &str = "\
With --json: {\"schema\": 1, \"files\": [{\"file\", \"stages\" (their number, if there are no errors), \"errors\": [{\"message\",
\"place\" (file:line:column, or the flag), \"help\"}]}]}.";

/// Run super-resolution experiments from YAML. Cached results are not recomputed; interrupted runs resume.
#[derive(Debug, Parser)]
#[command(name = "srpipe", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// The folder for runs and cached results.
    #[arg(long, global = true, env = "SRPIPE_RUNS", default_value = "runs", value_name = "FOLDER")]
    pub runs_dir: PathBuf,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a pipeline file to start from.
    Init(InitArgs),
    /// Run the stages of a pipeline that are not cached.
    ///
    /// Ctrl-C asks running stages to save a checkpoint; the next run resumes from it. A killed run resumes from the
    /// last checkpoint that it saved.
    Run(RunArgs),
    /// Show the state of runs and stages.
    Status(StatusArgs),
    /// Show what would run, in which order, why, and for how long.
    Plan(PlanArgs),
    /// Explain why a stage would run or is cached.
    Why(WhyArgs),
    /// Compare the parameters and metrics of two runs.
    ///
    /// A run is given by its id, a unique prefix of its id, or its pipeline's name, which means the latest run.
    Diff(DiffArgs),
    /// List runs with the parameters and metrics that differ.
    ///
    /// Parameters are named by their path in the file, metrics by stage and name. A unique ending of the name suffices.
    Runs(RunsArgs),
    /// Show the dependency graph of the stages with their states.
    Graph(GraphArgs),
    /// Validate pipeline files and report every error.
    Check(CheckArgs),
    /// Show the log of a stage of the latest run.
    Logs(LogsArgs),
    /// Cancel a run; its stages save a checkpoint to resume from.
    Cancel(RunIdArgs),
    /// Write the report of a run as one HTML file.
    ///
    /// The file is self-contained. `run` writes it to the run's folder; this command rewrites it, also for a run that
    /// has not finished.
    Report(ReportArgs),
    /// Upscale an image with a trained model.
    ///
    /// The image is sampled as a whole, in overlapping tiles of the model's training size. The tiles are blended at
    /// every step, so there are no seams. The same seed gives the same image.
    Upscale(UpscaleArgs),
    /// Measure how fast a network trains and samples on this machine.
    ///
    /// Trains the U-Net on noise for a few seconds, then runs forward passes. Training and sampling in pipelines reach
    /// the same speed. Measure on an idle machine.
    Bench(BenchArgs),
    /// Delete old runs, and results that no run refers to.
    ///
    /// Keeps active and pinned runs, the latest run of each pipeline, and all results that an active run uses.
    Gc(GcArgs),
    /// Check every result for damage; the next run recomputes damaged ones.
    ///
    /// A run checks only the size and modification time of each blob, and the content of the blobs that its stages
    /// read. Only this command finds silent disk corruption in the other blobs.
    Verify(VerifyArgs),
    /// Write a run and all its results to an archive.
    Export(ExportArgs),
    /// Add a run from an archive.
    Import(ImportArgs),
    /// Copy the results of a run to the shared cache.
    ///
    /// The shared cache is a folder or `s3://BUCKET/PREFIX`. It is set by SRPIPE_REMOTE or by `remote` in
    /// $XDG_CONFIG_HOME/srpipe/config.yaml (default: ~/.config/srpipe/config.yaml). `run` downloads cached results from
    /// it.
    Push(PushArgs),
    /// Protect a run from `gc`.
    Pin(RunIdArgs),
    /// Let `gc` delete a pinned run again.
    Unpin(RunIdArgs),
    /// Print the JSON Schema of pipeline files.
    Schema {
        /// Print the reference of pipeline files as Markdown instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Print the completion script for a shell.
    Completions { shell: clap_complete::Shell },
    /// Run the stage that stdin specifies.
    #[command(hide = true)]
    Exec {
        /// In a Slurm job: the file of its batch.
        #[arg(long)]
        job: Option<PathBuf>,
    },
    /// Run a stage's program and terminate every process it started.
    #[command(hide = true)]
    Launch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<std::ffi::OsString>,
    },
    /// Replace this process with a stage's program.
    #[command(hide = true)]
    Start {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<std::ffi::OsString>,
    },
}

/// The overrides of a pipeline file, shared by all commands that read one.
#[derive(Debug, Args)]
pub struct FlagArgs {
    /// Override a value of the file by its path from the root: `stages.cifar.limit.train=1000`.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Sweep a parameter; each value is trained and sampled: `defaults.train.optim.lr=1e-3,2e-3`,
    /// `stages.baseline.model.base_channels=16,32`, `seed=0,1,2`.
    #[arg(long, value_name = "PATH=A,B")]
    pub sweep: Vec<String>,
}

impl FlagArgs {
    pub fn flags(&self) -> Flags {
        Flags { set: self.set.clone(), sweep: self.sweep.clone() }
    }
}

/// The choice of stages, executor and device, shared by `run` and `plan`.
#[derive(Debug, Args)]
pub struct ChoiceArgs {
    /// Rerun this stage even if it is cached. The name of a swept stage means all its instances.
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Run only this stage and its dependencies.
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,
    /// Run stages with this executor, overriding the file and your settings: local, slurm.
    #[arg(long, value_name = "EXECUTOR", value_parser = executor)]
    pub executor: Option<ExecutorKind>,
    /// Run networks on this device, overriding the file: auto, cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<Device>,
}

/// The arguments of `srpipe run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = RUN_HELP)]
pub struct RunArgs {
    /// The pipeline file.
    pub file: PathBuf,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Run up to N stages at once, which share the cores. By default, networks run one at a time, each on up to 8 cores
    /// (more if nothing else can run), and short stages run beside them.
    #[arg(short, long, value_name = "N", value_parser = whole::<u32, 1, 4096>)]
    pub jobs: Option<u32>,
    /// After a failure, start no more stages; running stages finish.
    #[arg(long)]
    pub fail_fast: bool,
    /// After a failure, continue with stages that do not depend on the failed one (default).
    #[arg(short, long, conflicts_with = "fail_fast")]
    pub keep_going: bool,
    #[command(flatten)]
    pub chosen: ChoiceArgs,
    /// On a cluster: submit all stages as jobs with dependencies and exit without waiting for them.
    #[arg(long)]
    pub detach: bool,
    /// Show what would run and why, without running or writing anything.
    #[arg(long)]
    pub dry_run: bool,
    /// Write one JSON object per line to stdout; the last is `run_finished`.
    #[arg(long)]
    pub json: bool,
}

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

const PLAN_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"stages\": [{\"name\", \"stage\" (its name in the file), \"kind\", \"state\":
cached|ready|waiting, \"reason\": known|new|lost|forced|waits|changed, \"because\", \"key\", \"nearest\" (the key of the nearest
cached result), \"differences\": [{\"field\", \"before\", \"now\", \"place\": file:line:column}], \"waits_for\", \"seconds\"}],
\"summary\": {\"instances\", \"shared\", \"cached\", \"to_run\", \"seconds\", \"without_estimate\"}}";

/// The arguments of `srpipe plan`.
#[derive(Debug, Args)]
#[command(after_help = PLAN_JSON)]
pub struct PlanArgs {
    /// The pipeline file.
    pub file: PathBuf,
    #[command(flatten)]
    pub flags: FlagArgs,
    #[command(flatten)]
    pub chosen: ChoiceArgs,
    /// Show each instance of a sweep on its own line.
    #[arg(long)]
    pub all: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const WHY_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"stages\": [as in `plan --json`, with \"sentence\", \"follow\": the stages that
depend on it]}";

/// The arguments of `srpipe why`.
#[derive(Debug, Args)]
#[command(after_help = WHY_JSON)]
pub struct WhyArgs {
    /// The pipeline file.
    pub file: PathBuf,
    /// A stage. For a swept stage: one instance, or the stage's name for all of them.
    pub stage: String,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Assume that networks run on this device, as for `run`.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<Device>,
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

With --json: {\"schema\": 1, \"runs\": [{\"id\", \"pipeline\", \"state\": running|ok|failed|interrupted|died, \"started_at\",
\"seconds\", \"params\": {PATH: text}, \"metrics\": {STAGE.NAME: number}}]}";

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

fn executor(text: &str) -> Result<ExecutorKind, String> {
    text.parse().map_err(|expected| format!("must be {expected}"))
}

/// Adds a hint to the error about a missing pipeline file.
pub fn helped(mut error: clap::Error) -> clap::Error {
    let lacks_file = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) => {
            missing.iter().any(|name| name.starts_with("<FILE"))
        }
        _ => false,
    };
    if lacks_file {
        let tip = "give a pipeline file; `srpipe init` writes one to start from".into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// Parses an integer from `MIN` to `MAX`, both inclusive.
fn whole<T: TryFrom<u64>, const MIN: u64, const MAX: u64>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match MAX {
        u64::MAX => format!("must be a whole number, {MIN} or more"),
        _ => format!("must be a whole number from {MIN} to {MAX}"),
    })
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

    /// Except commands that print only text, and commands that print the paths of the files they wrote.
    #[test]
    fn every_command_documents_its_json() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        cli.build();
        let visible = cli.get_subcommands_mut().filter(|command| !command.is_hide_set());
        let others = ["schema", "completions", "help", "init", "report", "upscale"];
        for command in visible.filter(|command| !others.contains(&command.get_name())) {
            let name = command.get_name().to_string();
            assert!(command.get_arguments().any(|arg| arg.get_id() == "json"), "{name}");
            let help = command.render_long_help().to_string();
            assert!(help.contains("With --json") && help.contains("\"schema\": 1"), "{name}: {help}");
        }
    }

    #[test]
    fn devices_are_parsed() {
        let read = ["auto", "cpu", "cuda", "cuda:3"].map(|text| device(text).unwrap());
        assert_eq!(read, [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3)]);
        assert!(["gpu", "cuda:", "cuda:x", ""].iter().all(|text| device(text).is_err()));
    }
}
