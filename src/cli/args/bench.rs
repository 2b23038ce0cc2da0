//! What can be measured.

use clap::{Args, ValueEnum};

use super::{device, whole};
use crate::config::AttentionParams;
use crate::config::Device;

const BENCH_EXAMPLES: &str = "\
Examples:
  srpipe bench                                       the default network, on all cores
  srpipe bench --base-channels 64 --attention seed   the network of a pipeline file
  srpipe bench --threads 1 --json                    for scripts
  SRPIPE_SIMD=avx2 srpipe bench                      with an older instruction set (avx512, avx2, neon, portable)
  srpipe bench --device cuda --batch 128             on a GPU
  srpipe bench --device cuda --check                 whether that computes the same; exits with 1 where it does not

With --json: {\"schema\": 1} with these fields:
  train_step_ms, train_images_per_s   a training step: both passes, clipping, Adam, moving average; the median
  forward_images_per_s                a forward pass, as sampling makes one for every step; the median
  gflops                              arithmetic of the training step, as direct convolutions would do it; the fused
                                      backend needs less, so that this may lie above peak_gflops
  peak_gflops                         what the threads do in registers, measured; fused backend only
  peak_rss_mib                        the most memory this process had, in MiB (Linux)
  threads, simd, device, backend, base_channels, attention, batch, image_size, parameters
With --check --json: {\"schema\": 1, \"device\", \"backend\", \"steps\", \"agrees\"} and for each of \"networks\" how far
apart outputs, gradients and losses are, and the last losses (of the CPU, of the device)";

/// Trains the U-Net on noise for a few seconds, then runs it forward. Real trainings and samplings on the CPU go as
/// fast. Measure on an idle machine.
#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    /// Channels at full resolution, as `model.base_channels`.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<usize, 2, 1024>)]
    pub base_channels: usize,
    /// Images at a time, as `optim.batch_size`.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<usize, 1, 1024>)]
    pub batch: usize,
    /// Attention, as `model.attention.kind`.
    #[arg(long, value_name = "KIND", default_value = "none", value_parser = attention)]
    pub attention: AttentionParams,
    /// Sizes of the maps that have attention, as `model.attention.resolutions`; without it the bottleneck's.
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', value_parser = whole::<usize, 1, 1024>)]
    pub resolutions: Vec<usize>,
    /// Height and width of the images, a multiple of 4.
    #[arg(long, value_name = "PIXELS", default_value_t = 32, value_parser = image_size)]
    pub image_size: usize,
    /// Threads; without it as many as there are cores.
    #[arg(long, value_name = "N", value_parser = whole::<usize, 1, 1024>)]
    pub threads: Option<usize>,
    /// Where the network runs: auto, cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
    pub device: Device,
    /// The kernels: srpipe's own, which pipelines use on the CPU, or those composed of dfdx's operations, on a GPU and
    /// for reference.
    #[arg(long, value_enum)]
    pub backend: Option<BenchBackend>,
    /// Measure no speed, but hold the device against the CPU's kernels: outputs, gradients and losses of every kind of
    /// network.
    #[arg(long)]
    pub check: bool,
    /// With --check, the steps of each training.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "check", value_parser = whole::<u64, 1, 1_000_000>)]
    pub steps: u64,
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

fn image_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|n: &usize| (4..=4096).contains(n) && n.is_multiple_of(4));
    size.ok_or_else(|| "must be a multiple of 4 from 4 to 4096".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.0..=3600.0).contains(s));
    seconds.ok_or_else(|| "must be a number of seconds from 0 to 3600".into())
}

/// As the pipeline file has it.
fn attention(text: &str) -> Result<AttentionParams, String> {
    serde_json::from_value(serde_json::json!({ "kind": text })).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_kinds_are_those_of_pipeline_files() {
        assert_eq!(attention("none").unwrap(), AttentionParams::default());
        assert_ne!(attention("seed").unwrap(), AttentionParams::default());
        assert!(attention("sede").unwrap_err().contains("`seed`"));
    }
}
