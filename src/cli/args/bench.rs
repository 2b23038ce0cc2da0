//! The arguments of `bench`.

use clap::{Args, ValueEnum};

use super::values::{device, integer};
use crate::config::AttentionParams;
use crate::config::Device;

const BENCH_EXAMPLES: &str = "\
Examples:
  srpipe bench                                       the default network on all cores
  srpipe bench --base-channels 64 --attention sagan  the network of a pipeline file
  srpipe bench --threads 1 --json                    for scripts
  SRPIPE_SIMD=avx2 srpipe bench                      use another instruction set (avx512, avx2, neon, portable)
  srpipe bench --device cuda --batch 128             run on a GPU
  srpipe bench --device cuda --check                 compare GPU and CPU results; exit with 1 if they differ

With --json: {\"schema\": 1} with these fields:
  train_step_ms, train_images_per_s   median training step: both passes, clipping, Adam, moving average
  forward_images_per_s                median forward pass, as in each sampling step
  gflops                              training step throughput, counted as direct convolutions; the fused backend
                                      needs fewer operations, so this may exceed peak_gflops
  peak_gflops                         measured peak of the threads in registers; fused backend only
  peak_rss_mib                        peak memory of this process in MiB (Linux)
  threads, simd, device, backend, base_channels, attention, batch, image_size, parameters
With --check --json: {\"schema\": 1, \"device\", \"backend\", \"steps\", \"agrees\"} and for each of \"networks\" the
differences of outputs, gradients and losses, and the last losses (CPU, device)";

/// The arguments of `srpipe bench`.
#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    /// The channels at full resolution, as `model.base_channels`.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = integer::<usize, 2, 1024>)]
    pub base_channels: usize,
    /// The batch size, as `optim.batch_size`.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = integer::<usize, 1, 1024>)]
    pub batch: usize,
    /// The kind of attention, as `model.attention.kind`.
    #[arg(long, value_name = "KIND", default_value = "none", value_parser = attention)]
    pub attention: AttentionParams,
    /// The feature map sizes with attention, as `model.attention.resolutions`; default: the bottleneck.
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', value_parser = integer::<usize, 1, 1024>)]
    pub resolutions: Vec<usize>,
    /// The height and width of the images, a multiple of 4.
    #[arg(long, value_name = "PIXELS", default_value_t = 32, value_parser = image_size)]
    pub image_size: usize,
    /// The number of threads; default: the number of cores.
    #[arg(long, value_name = "N", value_parser = integer::<usize, 1, 1024>)]
    pub threads: Option<usize>,
    /// Run the network on this device: auto, cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
    pub device: Device,
    /// The kernels: fused (srpipe's own, for the CPU) or composed (dfdx's operations, for GPUs and as a reference).
    #[arg(long, value_enum)]
    pub backend: Option<BenchBackend>,
    /// Compare outputs, gradients and losses of every kind of network with the CPU kernels instead of measuring speed.
    #[arg(long)]
    pub check: bool,
    /// With --check, the number of training steps per network.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "check", value_parser = integer::<u64, 1, 1_000_000>)]
    pub steps: u64,
    /// The duration of each of the two measurements.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    /// Write one JSON object to stdout.
    #[arg(long)]
    pub json: bool,
}

/// The kernels that `srpipe bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchBackend {
    Fused,
    Composed,
}

/// Parses the size of images.
fn image_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|n: &usize| (4..=4096).contains(n) && n.is_multiple_of(4));
    size.ok_or_else(|| "must be a multiple of 4 from 4 to 4096".into())
}

/// Parses a duration in seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.0..=3600.0).contains(s));
    seconds.ok_or_else(|| "must be a number of seconds from 0 to 3600".into())
}

/// Parses an attention kind as in a pipeline file.
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
