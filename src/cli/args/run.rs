//! The arguments of `run`, `plan` and `why`.

use std::path::PathBuf;

use clap::Args;

use super::values::{device, executor, integer};
use crate::config::{Device, ExecutorKind};
use crate::pipeline::Flags;

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

/// The examples and exit codes, also at the end of `srpipe --help`.
pub(super) const EXAMPLES: &str = examples!();

const RUN_HELP: &str = concat!(
    examples!(),
    "\n
With --json, stdout has one object per line. Within a schema version, fields and events are only added:
  {\"event\": \"run_started\", \"schema\": 1, \"run\": ID, \"pipeline\": NAME, \"stages\": [NAME, ...]}
  {\"event\": \"stage\", \"stage\": NAME, \"state\": pending|running|cached|ran|failed|skipped|interrupted}
      ran: \"seconds\"; failed: \"error\", \"cause\" (failed|lost|out_of_memory|time|
      node_failure|preempted|cancelled), \"log\" (a path);
      skipped: \"because\" (a stage, or null); running: \"waiting\" if another run computes the same result
  {\"event\": \"progress\", \"stage\": NAME, \"done\": N, \"total\": N, \"unit\": TEXT, \"values\": {NAME: NUMBER}}
  {\"event\": \"message\", \"stage\": NAME, \"text\": TEXT}
  {\"event\": \"stopping\", \"jobs_go_on\": true|false}
  {\"event\": \"run_finished\", \"schema\": 1, \"run\": ID, \"state\": ok|failed|interrupted, \"stages\": {NAME: STATE}}"
);

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
    /// Returns the overrides for the pipeline's parser.
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
    /// (more if nothing else can run), and short stages run at the same time.
    #[arg(short, long, value_name = "N", value_parser = integer::<u32, 1, 4096>)]
    pub jobs: Option<u32>,
    /// After a failure, start no more stages; running stages finish.
    #[arg(long)]
    pub fail_fast: bool,
    /// After a failure, continue with stages that do not depend on the failed one (default).
    #[arg(short, long, conflicts_with = "fail_fast")]
    keep_going: bool,
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

const PLAN_JSON: &str = "\
With --json: {\"schema\": 1, \"pipeline\", \"stages\": [{\"name\", \"stage\" (its name in the file), \"kind\", \"state\":
cached|ready|waiting, \"reason\": known|new|lost|forced|waits|changed, \"because\", \"key\", \"nearest\" (the key of the nearest
cached result), \"differences\": [{\"field\", \"before\", \"now\", \"place\": file:line:column}], \"waits_for\", \"seconds\",
\"same_bytes\" (whether a rerun gives identical bytes; only for stages that run a network), \"network\" (the cost of the
network; only for `train` stages)}],
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
    /// Show how many seeds each claim needs, estimated from the latest run, and how long they take.
    #[arg(long, conflicts_with = "all")]
    pub power: bool,
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
