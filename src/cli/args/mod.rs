//! What can be typed.

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

/// Examples and exit codes, to be put before more.
macro_rules! examples {
    () => {
        "\
Examples:
  srpipe init                                  writes a pipeline to start from, with comments
  srpipe run pipelines/quickstart.yaml         runs what is not known yet; run it again after any interruption
  srpipe run pipelines/ablation.yaml --set stages.cifar.url=file:cifar-10-binary.tar.gz
  srpipe run pipelines/ablation.yaml --set defaults.train.model.base_channels=16 --dry-run
  srpipe plan pipelines/sweep.yaml --sweep seed=0,1,2      what that would run, and how long it would take
  srpipe why pipelines/ablation.yaml attention  what has changed, with its line in the file
  srpipe status                                the latest run of every pipeline
  srpipe status pipelines/ablation.yaml        every stage of one
  srpipe logs baseline -f                      what a stage says while it runs
  srpipe upscale photo.png --model attention -o out.png    what a trained model makes of it
  srpipe bench                                 how fast this machine trains and samples

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
  {\"event\": \"run_finished\", \"schema\": 1, \"run\": ID, \"state\": ok|failed|interrupted, \"stages\": {NAME: STATE}}"
);

const STATUS_JSON: &str = "\
With --json: {\"schema\": 1, \"pipelines\": [{\"pipeline\", \"run\"}], \"store\": {\"results\", \"blobs\", \"bytes\",
\"unfinished\"}}; of a file or a run {\"schema\": 1, \"pipeline\", \"run\": {\"id\", \"state\": running|left|ok|failed|interrupted|died,
\"file\", \"started_at\", \"finished_at\", \"seconds\", \"counts\"}, \"stages\": [{\"name\", \"kind\", \"state\", \"key\",
\"finished_at\", \"seconds\", \"metrics\", \"progress\", \"error\", \"job\": {\"id\", \"queued\" (why),
\"node\"}, \"waits_for\"}]}.";

const CHECK_JSON: &str = "\
With --json: {\"schema\": 1, \"files\": [{\"file\", \"stages\" (how many, where there are no errors), \"errors\": [{\"message\",
\"place\" (file:line:column, or the flag), \"help\"}]}]}.";

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
    /// Write a pipeline to start from.
    Init(InitArgs),
    /// Run the stages of a pipeline that are not known yet.
    Run(RunArgs),
    /// Show where runs and stages stand.
    Status(StatusArgs),
    /// Show what would run, in which order, why, and how long it would take.
    Plan(PlanArgs),
    /// Say why a stage would run or is cached, and what it waits for.
    Why(WhyArgs),
    /// Show what two runs differ in: parameters and metrics.
    Diff(DiffArgs),
    /// List runs with the parameters and metrics in which they differ.
    Runs(RunsArgs),
    /// Show which stage reads which, with their states.
    Graph(GraphArgs),
    /// Say whether pipeline files are right, and all that is wrong with them.
    Check(CheckArgs),
    /// Show what a stage of the latest run said.
    Logs(LogsArgs),
    /// End a run: its stages save their progress, and the next run goes on from there.
    Cancel(RunIdArgs),
    /// Write the report of a run: one HTML file.
    Report(ReportArgs),
    /// Enlarge a picture of your own with a trained model.
    Upscale(UpscaleArgs),
    /// Measure how fast a network trains and samples on this machine's CPU.
    Bench(BenchArgs),
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
    Schema {
        /// Print the reference of pipeline files instead, for people.
        #[arg(long)]
        markdown: bool,
    },
    /// Print the completions of a shell.
    Completions { shell: clap_complete::Shell },
    /// Run one stage, as ordered on stdin.
    #[command(hide = true)]
    Exec {
        /// In a job of Slurm: the file of its batch.
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

/// What the command line says of a pipeline file; the same for every command that reads one.
#[derive(Debug, Args)]
pub struct FlagArgs {
    /// Set a value of the file, by its path from the root: `stages.cifar.limit.train=1000`.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Give a parameter several values, and train and sample with each: `defaults.train.optim.lr=1e-3,2e-3`,
    /// `stages.baseline.model.base_channels=16,32`, `seed=0,1,2`.
    #[arg(long, value_name = "PATH=A,B")]
    pub sweep: Vec<String>,
}

impl FlagArgs {
    pub fn flags(&self) -> Flags {
        Flags { set: self.set.clone(), sweep: self.sweep.clone() }
    }
}

/// Which stages run, and where; the same for `run` and `plan`.
#[derive(Debug, Args)]
pub struct ChoiceArgs {
    /// Run this stage although its result is known; of a swept stage, every instance.
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Run this stage and what it needs, nothing else.
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,
    /// What runs stages, instead of what the file and your settings say: local, slurm.
    #[arg(long, value_name = "EXECUTOR", value_parser = executor)]
    pub executor: Option<ExecutorKind>,
    /// Where networks run, instead of what the file says: auto, cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<Device>,
}

/// Ctrl-C asks running stages to save their progress; run again to go on. A run that is killed loses what was done since
/// the last checkpoint, and goes on the same way.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = RUN_HELP)]
pub struct RunArgs {
    /// The pipeline file.
    pub file: PathBuf,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Stages at once, which then share the cores. Without it networks run one after the other, each on up to 8 cores or
    /// more if there is nothing else to run, and short stages beside.
    #[arg(short, long, value_name = "N", value_parser = whole::<u32, 1, 4096>)]
    pub jobs: Option<u32>,
    /// After a failure start nothing more; what runs goes on to its end.
    #[arg(long)]
    pub fail_fast: bool,
    /// Go on with stages that do not need one that failed: so it is without `--fail-fast`.
    #[arg(short, long, conflicts_with = "fail_fast")]
    pub keep_going: bool,
    #[command(flatten)]
    pub chosen: ChoiceArgs,
    /// On a cluster: submit all stages at once, each after those that it needs, and do not wait for them.
    #[arg(long)]
    pub detach: bool,
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
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Show every instance of a sweep.
    #[arg(long)]
    pub all: bool,
    /// On a terminal, too, show where a run stands now and end: without it, one that is on is followed until it ends.
    #[arg(long)]
    pub once: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const PLAN_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"stages\": [{\"name\", \"stage\" (its name in the file), \"kind\", \"state\":
cached|ready|waiting, \"reason\": known|new|lost|forced|waits|changed, \"because\", \"key\", \"nearest\" (the key of the nearest
known result), \"differences\": [{\"field\", \"before\", \"now\", \"place\": file:line:column}], \"waits_for\", \"seconds\"}],
\"summary\": {\"instances\", \"shared\", \"cached\", \"to_run\", \"seconds\", \"without_estimate\"}}";

/// Nothing is started or written. Times are those of the nearest known results, scaled by the arithmetic.
#[derive(Debug, Args)]
#[command(after_help = PLAN_JSON)]
pub struct PlanArgs {
    /// The pipeline file.
    pub file: PathBuf,
    #[command(flatten)]
    pub flags: FlagArgs,
    #[command(flatten)]
    pub chosen: ChoiceArgs,
    /// Show every instance of a sweep.
    #[arg(long)]
    pub all: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const WHY_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"stages\": [as in `plan --json`, and \"sentence\", \"follow\": the stages that
read of it]}";

/// A stage is compared with the nearest result that is known; what differs is told with its place in the file.
#[derive(Debug, Args)]
#[command(after_help = WHY_JSON)]
pub struct WhyArgs {
    /// The pipeline file.
    pub file: PathBuf,
    /// A stage; of one that is swept, an instance or all.
    pub stage: String,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Where networks would run, as for `run`.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<Device>,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const DIFF_JSON: &str = "\
With --json: {\"schema\": 1, \"runs\": [ID, ID], \"params\": {PATH: [before, after]}, \"metrics\": {STAGE.NAME: [before,
after]}}; null where a run has none.";

/// A run is named by its id, by the beginning of it, or by its pipeline, whose latest is meant.
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

/// Parameters are named by their path in the file, metrics by stage and name; the end of it is enough.
#[derive(Debug, Args)]
#[command(after_help = RUNS_HELP)]
pub struct RunsArgs {
    /// Those of one pipeline.
    pub pipeline: Option<String>,
    /// Only runs for which this holds: NAME=VALUE, or with != < <= > >=.
    #[arg(long, value_name = "TEST")]
    pub filter: Vec<String>,
    /// In the order of this: run, pipeline, state, age, took, a parameter or a metric. Newest first without it.
    #[arg(long, value_name = "NAME")]
    pub sort: Option<String>,
    /// The other way round.
    #[arg(long)]
    pub reverse: bool,
    /// Every parameter and metric, also those that are the same in all.
    #[arg(long)]
    pub all: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A tree for the terminal: each stage below the last that it reads.
    Ascii,
    /// For Graphviz.
    Dot,
    /// For Markdown.
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
    #[arg(long, value_enum, default_value_t = GraphFormat::Ascii)]
    pub format: GraphFormat,
    /// Show every instance of a sweep.
    #[arg(long)]
    pub all: bool,
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
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

const LOGS_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"run\", \"stage\", \"state\": pending|running|ran|cached|failed|skipped|interrupted,
\"log\" (a path, or null), \"text\" (or null)}.";

/// Exit code 1 where the stage has no log.
#[derive(Debug, Args)]
#[command(after_help = LOGS_JSON)]
pub struct LogsArgs {
    /// A stage; `PIPELINE/STAGE` where several pipelines have one of that name.
    pub stage: String,
    /// Go on as long as the stage runs.
    #[arg(short, long)]
    pub follow: bool,
    /// Write JSON to stdout.
    #[arg(long, conflicts_with = "follow")]
    pub json: bool,
}

fn executor(text: &str) -> Result<ExecutorKind, String> {
    text.parse().map_err(|expected| format!("must be {expected}"))
}

/// What to do where a pipeline file is missing.
pub fn helped(mut error: clap::Error) -> clap::Error {
    let lacks_file = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) => {
            missing.iter().any(|name| name.starts_with("<FILE"))
        }
        _ => false,
    };
    if lacks_file {
        let tip = "name a pipeline file; `srpipe init` writes one to begin with".into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// A number from `MIN` to `MAX`, both among them.
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

    /// Every command but those that print nothing else, and those that print the paths of what they wrote.
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
    fn devices_are_read() {
        let read = ["auto", "cpu", "cuda", "cuda:3"].map(|text| device(text).unwrap());
        assert_eq!(read, [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3)]);
        assert!(["gpu", "cuda:", "cuda:x", ""].iter().all(|text| device(text).is_err()));
    }
}
