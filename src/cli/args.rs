//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::pipeline::Device;
use crate::pipeline::params::AttentionParams;

const EXAMPLES: &str = "\
Examples:
  srpipe run pipelines/quickstart.yaml         runs what is not known yet; run it again after any interruption
  srpipe run pipelines/ablation.yaml --set stages.cifar.url=file:cifar-10-binary.tar.gz
  srpipe run pipelines/ablation.yaml --set defaults.train.model.base_channels=16 --dry-run
  srpipe status                                the latest run of every pipeline
  srpipe status pipelines/ablation.yaml        every stage of one
  srpipe logs baseline -f                      what a stage says while it runs
  srpipe bench                                 how fast this machine trains and samples

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
    /// Measure how fast a network trains and samples on this machine's CPU.
    Bench(BenchArgs),
    /// Run one stage, as ordered on stdin.
    #[command(hide = true)]
    Exec,
}

/// Stages that fail leave those running that do not need them. Ctrl-C asks running stages to save their progress; run
/// again to go on. A run that is killed loses what was done since the last checkpoint, and goes on the same way.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
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
    /// Set a value of the file, as for `run`.
    #[arg(long, value_name = "PATH=VALUE", requires = "what")]
    pub set: Vec<String>,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Pipeline files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Set a value of the files, as for `run`.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// A stage; `PIPELINE/STAGE` where several pipelines have one of that name.
    pub stage: String,
    /// Go on as long as the stage runs.
    #[arg(short, long)]
    pub follow: bool,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  srpipe bench                                       the default network, on all cores
  srpipe bench --base-channels 64 --attention seed   the network of a pipeline file
  srpipe bench --threads 1 --json                    for scripts
  SRPIPE_SIMD=avx2 srpipe bench                      with an older instruction set (avx512, avx2, neon, portable)

Fields of the JSON object:
  train_step_ms, train_images_per_s   a training step: both passes, clipping, Adam, moving average; the median
  forward_images_per_s                a forward pass, as sampling makes one for every step; the median
  gflops                              arithmetic of the training step, as direct convolutions would do it; the fused
                                      backend needs less, so that this may lie above peak_gflops
  peak_gflops                         what the threads do in registers, measured; fused backend only
  peak_rss_mib                        the most memory this process had, in MiB (Linux)
  threads, simd, backend, base_channels, attention, batch, image_size, parameters";

/// Trains the U-Net on noise for a few seconds, then runs it forward. Real trainings and samplings on the CPU go as
/// fast. Measure on an idle machine.
#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    /// Channels at full resolution, as `model.base_channels`.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least::<2>)]
    pub base_channels: usize,
    /// Images at a time, as `optim.batch_size`.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least::<1>)]
    pub batch: usize,
    /// Attention, as `model.attention.kind`.
    #[arg(long, value_name = "KIND", default_value = "none", value_parser = attention)]
    pub attention: AttentionParams,
    /// Sizes of the maps that have attention, as `model.attention.resolutions`; without it the bottleneck's.
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', value_parser = at_least::<1>)]
    pub resolutions: Vec<usize>,
    /// Height and width of the images, a multiple of 4.
    #[arg(long, value_name = "PIXELS", default_value_t = 32, value_parser = image_size)]
    pub image_size: usize,
    /// Threads; without it as many as there are cores.
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub threads: Option<usize>,
    /// The kernels: srpipe's own, which pipelines use, or the reference composed of dfdx's operations.
    #[arg(long, value_enum, default_value = "fused")]
    pub backend: BenchBackend,
    /// How long each of the two measurements goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    /// Write one JSON object to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchBackend {
    Fused,
    Composed,
}

fn at_least<const MIN: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (MIN..=65_536).contains(n));
    number.ok_or_else(|| format!("must be a whole number of at least {MIN}"))
}

fn image_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|n: &usize| (4..=4096).contains(n) && n.is_multiple_of(4));
    size.ok_or_else(|| "must be a multiple of 4".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.0..=3600.0).contains(s));
    seconds.ok_or_else(|| "must be a number of seconds".into())
}

/// As the pipeline file has it.
fn attention(text: &str) -> Result<AttentionParams, String> {
    serde_json::from_value(serde_json::json!({ "kind": text })).map_err(|error| error.to_string())
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

    #[test]
    fn attention_kinds_are_those_of_pipeline_files() {
        assert_eq!(attention("none").unwrap(), AttentionParams::default());
        assert_ne!(attention("seed").unwrap(), AttentionParams::default());
        assert!(attention("sede").unwrap_err().contains("`seed`"));
    }
}
