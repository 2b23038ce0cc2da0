//! The arguments of `init` and `upscale`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{device, integer};
use crate::config::Device;

const INIT_EXAMPLES: &str = "\
Examples:
  srpipe init                         write quickstart.yaml to this folder
  srpipe init --template folder       train on your own images
  srpipe init study --template sweep  create the folder `study` and write there

With --json: {\"schema\": 1, \"files\": [paths of the written files]}.";

/// The arguments of `srpipe init`.
#[derive(Debug, Args)]
#[command(after_help = INIT_EXAMPLES)]
pub struct InitArgs {
    /// The folder to write to.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The pipeline to write.
    #[arg(long, value_enum, default_value_t = Template::Quickstart)]
    pub template: Template,
    /// Overwrite existing files.
    #[arg(long)]
    pub force: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

/// A pipeline that `srpipe init` can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Three models on generated images; takes two minutes, no download.
    Quickstart,
    /// Models with and without attention on CIFAR-10, with claims to test.
    Ablation,
    /// A sweep over widths and noise schedules.
    Sweep,
    /// A model trained on a folder of your own images.
    Folder,
    /// The experiment of the tutorial.
    #[value(alias = "seed")]
    Tutorial,
}

const UPSCALE_EXAMPLES: &str = "\
Examples:
  srpipe upscale photo.png --model attention -o out.png            a stage of the latest run
  srpipe upscale photo.jpg --model ablation/attention -o out.png   a stage of a pipeline
  srpipe upscale photo.png --model ema.safetensors -o out.png --samples 3 --bicubic
                                       out-1.png, out-2.png, out-3.png and out-bicubic.png

The model sets the scale: 4 if it was trained on pairs with a factor of 4. It adds detail like that of its training
images: a model trained on CIFAR-10 suits photographs, a model trained on generated images does not. Time and memory
grow with the area; memory is up to 90 bytes per pixel of the result.

With --json: {\"schema\": 1, \"images\": [paths], \"bicubic\": a path or null, \"width\", \"height\", \"seconds\"}.";

/// The arguments of `srpipe upscale`.
#[derive(Debug, Args)]
#[command(after_help = UPSCALE_EXAMPLES)]
pub struct UpscaleArgs {
    /// A PNG, JPEG or WebP file of any size.
    pub image: PathBuf,
    /// A `train` stage of the latest run, or a checkpoint file.
    #[arg(long, value_name = "STAGE|FILE")]
    pub model: String,
    /// The output file: .png, .jpg or .webp.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Write K different samples to numbered files.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = integer::<u64, 1, 256>)]
    pub samples: u64,
    /// The seed of all noise.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = integer::<u64, 0, { u64::MAX }>)]
    pub seed: u64,
    /// The number of DDIM steps; more steps take longer and approximate the model more closely.
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = integer::<u64, 1, 100_000>)]
    pub steps: u64,
    /// Also write the bicubic interpolation.
    #[arg(long)]
    pub bicubic: bool,
    /// Run the network on this device: auto, cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device)]
    pub device: Device,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}
