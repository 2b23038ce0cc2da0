//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::pipeline::{Device, Flags};

const EXAMPLES: &str = "\
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
  130  interrupted; what ran has saved its progress";

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
    /// Run one stage, as ordered on stdin.
    #[command(hide = true)]
    Exec,
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

/// Stages that fail leave those running that do not need them. Ctrl-C asks running stages to save their progress; run
/// again to go on. A run that is killed loses what was done since the last checkpoint, and goes on the same way.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The pipeline file.
    pub file: PathBuf,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Stages at once, which then share the cores. Without it networks run one after the other, each on up to 8 cores or
    /// more if there is nothing else to run, and short stages beside.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub jobs: Option<u32>,
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
pub struct StatusArgs {
    /// A pipeline file, a run's id or a pipeline's name; without it, every pipeline's latest run.
    pub what: Option<String>,
    #[command(flatten)]
    pub flags: FlagArgs,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Pipeline files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub flags: FlagArgs,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// A stage; `PIPELINE/STAGE` where several pipelines have one of that name.
    pub stage: String,
    /// Go on as long as the stage runs.
    #[arg(short, long)]
    pub follow: bool,
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
