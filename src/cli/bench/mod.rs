//! The command `srpipe bench`, which measures training and sampling speed.

mod check;

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::EXIT_DONE;
use super::args::{BenchArgs, BenchBackend};
use super::output::{can_draw, note, print, print_json_line};
use crate::config::Device;
use crate::config::InputError;
use crate::config::{AttentionParams, ModelParams};
use crate::format;
use crate::model::unet;
use crate::nn::fused::{Isa, peak_flops};
use crate::nn::{self, CpuBackend, Graph, Network, TrainState};
use crate::run::cuda_device;
use crate::train::{initial_state, measure_speed};

/// The sizes in the estimates: the number of CIFAR-10's training images, and a number of test images with a typical
/// number of sampling steps.
const EPOCH: f64 = 50_000.0;
const SAMPLES: f64 = 1000.0;
const SAMPLING_STEPS: f64 = 50.0;

/// The measurements and their settings.
#[derive(Serialize)]
struct Report {
    schema: u32,
    train_step_ms: f64,
    train_images_per_s: f64,
    forward_images_per_s: f64,
    /// The throughput of training steps, whose operations are counted as direct convolutions.
    gflops: f64,
    /// The measured peak of the threads; None for dfdx's operations.
    peak_gflops: Option<f64>,
    /// The peak memory of the host process; None if the system does not report it.
    peak_rss_mib: Option<f64>,
    threads: usize,
    /// The instruction set; `dfdx` for dfdx's operations, which choose their own.
    simd: &'static str,
    device: String,
    backend: &'static str,
    base_channels: usize,
    attention: AttentionParams,
    batch: usize,
    image_size: usize,
    parameters: usize,
}

pub(super) fn bench(args: &BenchArgs) -> Result<u8> {
    let isa = Isa::from_env().map_err(|error| InputError(error.to_string()))?;
    let target = Target::new(args)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or(0));
    pool.build_global().context("starting the threads")?;
    if args.check {
        return check::check(&target, args.steps, args.json);
    }
    if can_draw() && !args.json {
        note(&format!("measuring for {} ...", format::duration(2.0 * args.seconds)));
    }
    let report = report(args, &target, isa)?;
    match args.json {
        true => print_json_line(&serde_json::to_value(&report)?),
        false => print(&report.text()),
    }
    Ok(EXIT_DONE)
}

/// The device and the backend to measure.
struct Target {
    /// The device, never `auto`.
    device: Device,
    /// The backend on the CPU; `Composed` on a GPU.
    cpu: CpuBackend,
}

impl Target {
    fn new(args: &BenchArgs) -> Result<Self, InputError> {
        let device = cuda_device(args.device)?.map_or(Device::Cpu, Device::Cuda);
        let cpu = match (args.backend, device) {
            (Some(BenchBackend::Fused), Device::Cuda(_)) => {
                return Err(InputError("--backend fused: srpipe's own kernels are for the CPU".into()));
            }
            (Some(BenchBackend::Composed), _) | (None, Device::Cuda(_)) => CpuBackend::Composed,
            _ => CpuBackend::Fused,
        };
        Ok(Self { device, cpu })
    }

    /// Creates a network on the device.
    fn open(&self, graph: Graph, state: &TrainState) -> Result<Box<dyn Network>> {
        match self.device {
            Device::Cuda(_) => nn::create_network(self.device, graph, state),
            _ => nn::create_cpu_network(self.cpu, graph, state),
        }
    }

    /// Returns the name of the backend.
    fn name(&self) -> &'static str {
        match self.cpu {
            CpuBackend::Fused => "fused",
            CpuBackend::Composed => "composed",
        }
    }
}

/// Measures the speed of a network.
fn report(args: &BenchArgs, target: &Target, isa: Isa) -> Result<Report> {
    let mut model = ModelParams::tutorial(args.base_channels, args.attention.kind);
    let sizes: Vec<usize> = (0..model.channel_mults.len()).map(|level| args.image_size >> level).collect();
    if let Some(size) = args.resolutions.iter().find(|size| !sizes.contains(size)) {
        let valid = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        return Err(InputError(format!(
            "--resolutions {size}: the network has no feature maps of this size; its sizes are {valid}"
        ))
        .into());
    }
    model.attention.resolutions = match args.resolutions.is_empty() {
        true => sizes[sizes.len() - 1..].to_vec(),
        false => args.resolutions.clone(),
    };
    let graph = unet(&model, args.image_size, 4);
    let (parameters, flops) = (graph.parameter_count(), graph.training_flops() as f64);
    let state = initial_state(&graph, 0);
    let mut network = target.open(graph, &state)?;
    let speed = measure_speed(network.as_mut(), args.batch, Duration::from_secs_f64(args.seconds))?;
    let per_second = |time: Duration| args.batch as f64 / time.as_secs_f64();
    let train_images_per_s = per_second(speed.train_step);
    let fused = target.cpu == CpuBackend::Fused;
    Ok(Report {
        schema: 1,
        train_step_ms: 1e3 * speed.train_step.as_secs_f64(),
        train_images_per_s,
        forward_images_per_s: per_second(speed.forward),
        gflops: flops * train_images_per_s / 1e9,
        peak_gflops: fused.then(|| peak_flops(isa) / 1e9),
        peak_rss_mib: peak_rss_mib(),
        threads: rayon::current_num_threads(),
        simd: if fused { isa.name() } else { "dfdx" },
        device: target.device.to_string(),
        backend: target.name(),
        base_channels: args.base_channels,
        attention: model.attention,
        batch: args.batch,
        image_size: args.image_size,
        parameters,
    })
}

impl Report {
    /// Returns the report as text.
    fn text(&self) -> String {
        let attention = serde_json::to_value(&self.attention).unwrap_or_default();
        let attention = attention["kind"].as_str().unwrap_or("none");
        let peak = self.peak_gflops.map_or(String::new(), |peak| format!("; the peak is {peak:.0}"));
        let memory = self.peak_rss_mib.map_or("unknown".into(), |mib| format!("{mib:.0} MiB"));
        let epoch = EPOCH / self.train_images_per_s;
        let steps = self.train_step_ms;
        let sampling = SAMPLES * SAMPLING_STEPS / self.forward_images_per_s;
        let row =
            |name: &str, value: &str, rest: &str| format!("  {name:<42}{value:>10}  {rest}").trim_end().to_string();
        [
            format!(
                "U-Net of base {}, attention {attention}, {} parameters; batches of {}, {3}×{3} pixels",
                self.base_channels, self.parameters, self.batch, self.image_size
            ),
            match self.device.as_str() {
                "cpu" => {
                    format!("{} kernels ({}) on {}", self.backend, self.simd, format::count(self.threads, "thread"))
                }
                device => format!("{} kernels ({}) on {device}", self.backend, self.simd),
            },
            String::new(),
            row(
                "training",
                &format!("{:.1} ms", self.train_step_ms),
                &format!("per step; {:.0} images/s, {:.0} GFLOP/s{peak}", self.train_images_per_s, self.gflops),
            ),
            row("forward pass", &format!("{:.0}", self.forward_images_per_s), "images/s"),
            row("peak memory", &memory, ""),
            String::new(),
            "At this speed".into(),
            row("1000 optimiser steps take", &format::duration(steps), ""),
            row("an epoch of 50,000 images", &format::duration(epoch), ""),
            row("sampling 1000 images in 50 steps", &format::duration(sampling), ""),
            String::new(),
        ]
        .join("\n")
    }
}

/// Returns the peak memory of this process in MiB; None if the system does not report it.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
