//! What can be typed of beginnings and results: `init`, `upscale`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{device, whole};
use crate::config::Device;

const INIT_EXAMPLES: &str = "\
Examples:
  srpipe init                         quickstart.yaml in this folder
  srpipe init --template folder       to train on images of your own
  srpipe init study --template sweep  in the folder `study`, which is made

With --json: {\"schema\": 1, \"files\": [paths of what was written]}.";

/// What is written is yours to change: the comments say what each value does.
#[derive(Debug, Args)]
#[command(after_help = INIT_EXAMPLES)]
pub struct InitArgs {
    /// Where it is written.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    #[arg(long, value_enum, default_value_t = Template::Quickstart)]
    pub template: Template,
    /// Write over files that are there.
    #[arg(long)]
    pub force: bool,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Three models on generated images, in two minutes: no download.
    Quickstart,
    /// With and without attention on CIFAR-10, with claims that the comparison answers.
    Ablation,
    /// Several widths and noise schedules at once.
    Sweep,
    /// On a folder of your own images.
    Folder,
    /// The tutorial's experiment with the tutorial's settings.
    #[value(alias = "seed")]
    Tutorial,
}

const UPSCALE_EXAMPLES: &str = "\
Examples:
  srpipe upscale photo.png --model attention -o out.png            the stage of the latest run
  srpipe upscale photo.jpg --model ablation/attention -o out.png   of that pipeline's latest run
  srpipe upscale photo.png --model ema.safetensors -o out.png --samples 3 --bicubic
                                       out-1.png, out-2.png, out-3.png and out-bicubic.png

The model says by how much: 4 times, if it has learned from images 4 times smaller. It fills in what it has seen: one
that was trained on CIFAR-10 knows photographs, one that was trained on generated images does not. Time grows with the
area, and so does memory: up to 90 bytes a pixel of the result.

With --json: {\"schema\": 1, \"images\": [paths], \"bicubic\": a path or null, \"width\", \"height\", \"seconds\"}.";

/// The picture is sampled as a whole, in overlapping tiles of the size that the model has learned: the tiles are blended
/// at every step, so that there are no seams. The same seed gives the same picture.
#[derive(Debug, Args)]
#[command(after_help = UPSCALE_EXAMPLES)]
pub struct UpscaleArgs {
    /// A PNG, JPEG or WebP file of any size.
    pub image: PathBuf,
    /// A `train` stage of a latest run, or a checkpoint file.
    #[arg(long, value_name = "STAGE|FILE")]
    pub model: String,
    /// Where the result goes: a .png, .jpg or .webp file.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Several different results, numbered.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = whole::<u64, 1, 256>)]
    pub samples: u64,
    /// All noise follows from it.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64, 0, { u64::MAX }>)]
    pub seed: u64,
    /// Steps of the sampler (DDIM); more take longer, and are closer to what the model has learned.
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = whole::<u64, 1, 100_000>)]
    pub steps: u64,
    /// Also write what bicubic enlargement makes of it.
    #[arg(long)]
    pub bicubic: bool,
    /// Where the network runs: auto, cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device)]
    pub device: Device,
    /// Write JSON to stdout.
    #[arg(long)]
    pub json: bool,
}
