//! The command `srpipe upscale`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::UpscaleArgs;
use super::lookup::{find_stage, no_runs};
use super::output::{can_draw, note, print, print_json};
use super::{EXIT_DONE, output_file};
use crate::config::InputError;
use crate::config::{Device, StageKind, blobs};
use crate::config::{SamplerMethod, SamplerParams};
use crate::data::picture::{Format, Picture};
use crate::data::{Images, resample};
use crate::format;
use crate::infer::Denoiser;
use crate::infer::TiledSampler;
use crate::model::Checkpoint;
use crate::run::{available_memory, cuda_device};
use crate::runs::StageRecord;
use crate::store::Store;

/// The interval between progress lines if no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

pub(super) fn upscale(args: &UpscaleArgs, runs: &Path) -> Result<u8> {
    let outputs = Outputs::new(args)?;
    let picture = read_picture(&args.image)?;
    let checkpoint = find_model(&args.model, runs)?;
    let device = cuda_device(args.device)?.map_or(Device::Cpu, Device::Cuda);
    let denoiser = Denoiser::open(checkpoint, device)?;
    let sampler = sampler(args, &denoiser)?;

    let image = picture.colours();
    let scale = denoiser.config.scale;
    outputs.check_size(scale * image.width, scale * image.height)?;
    check_memory(&image, &denoiser)?;
    if let Some(kind) = picture.dropped_profile(outputs.format) {
        note(&format!(
            "the picture's colour profile ({kind}) does not match the channels of the result and was dropped: colours may differ"
        ));
    }
    let write = |path: &Path, colours: &Images| {
        let bytes = picture.enlarged(colours, scale).encode(outputs.format);
        output_file::write(path, &bytes.with_context(|| format!("writing {}", path.display()))?)
    };
    if args.bicubic {
        write(&outputs.bicubic(), &resample::enlarge(&image, scale))?;
    }
    let upscaling = TiledSampler::new(&denoiser, &sampler, args.seed, &image);
    let started = Instant::now();
    let mut meter = Meter::new(upscaling.evaluations() as u64 * args.samples);
    for k in 0..args.samples {
        let image = upscaling.sample(k, &mut |evaluations| {
            meter.advance(evaluations as u64);
            Ok(())
        })?;
        write(&outputs.sample(k), &image)?;
    }
    meter.bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let images: Vec<PathBuf> = (0..args.samples).map(|k| outputs.sample(k)).collect();
    let bicubic = args.bicubic.then(|| outputs.bicubic());
    let [width, height] = [image.width, image.height];
    if args.json {
        let size = [scale * width, scale * height];
        let paths = |paths: &[PathBuf]| paths.iter().map(|path| format::path(path)).collect::<Vec<_>>();
        let summary = json!({
            "schema": 1, "images": paths(&images), "bicubic": bicubic.as_deref().map(format::path), "width": size[0], "height": size[1], "seconds": seconds,
        });
        print_json(&summary);
        return Ok(EXIT_DONE);
    }
    print(&images.iter().chain(&bicubic).map(|path| format!("{}\n", path.display())).collect::<String>());
    let time = format::duration(seconds);
    note(&format!("{width}×{height} pixels became {}×{} in {time}", scale * width, scale * height));
    Ok(EXIT_DONE)
}

/// Fails if there is not enough memory. Otherwise the system might kill the process midway.
fn check_memory(image: &Images, denoiser: &Denoiser) -> Result<(), InputError> {
    let needed = TiledSampler::memory(denoiser, image.height, image.width);
    match available_memory() {
        Some(free) if needed > free => Err(InputError(format!(
            "upscaling {}×{} pixels by a factor of {} needs about {} of memory, and only {} is free: shrink or crop the \
             picture first",
            image.width,
            image.height,
            denoiser.config.scale,
            format::size(needed),
            format::size(free)
        ))),
        _ => Ok(()),
    }
}

/// The paths and the format of the output files.
struct Outputs {
    path: PathBuf,
    format: Format,
    samples: u64,
}

impl Outputs {
    /// Checks the output files before sampling, which may take hours.
    fn new(args: &UpscaleArgs) -> Result<Self, InputError> {
        let path = args.output.clone();
        let format = path.extension().and_then(|ending| Format::from_extension(&ending.to_string_lossy()));
        let format = format.ok_or_else(|| {
            InputError(format!("{}: the output file must end in .png, .jpg or .webp", path.display()))
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(InputError(format!(
                "{}: the folder {} does not exist; create it first",
                path.display(),
                folder.display()
            )));
        }
        if let Err(error) = tempfile::tempfile_in(folder) {
            return Err(InputError(format!("{}: cannot be written: {error}", path.display())));
        }
        let outputs = Self { path, format, samples: args.samples };
        let bicubic = args.bicubic.then(|| outputs.bicubic());
        if let Some(path) = (0..args.samples).map(|k| outputs.sample(k)).chain(bicubic).find(|path| path.is_dir()) {
            return Err(InputError(format!("{}: this is a folder; choose another output file", path.display())));
        }
        let is_input =
            |path: &Path| path.canonicalize().is_ok_and(|path| args.image.canonicalize().is_ok_and(|i| i == path));
        if (0..args.samples).any(|k| is_input(&outputs.sample(k))) || args.bicubic && is_input(&outputs.bicubic()) {
            return Err(InputError(format!(
                "{}: the output would overwrite the input image; choose another output file",
                args.image.display()
            )));
        }
        Ok(outputs)
    }

    /// Fails if the format cannot store an image of this size.
    fn check_size(&self, width: usize, height: usize) -> Result<(), InputError> {
        let max_side = self.format.max_side();
        if width.max(height) <= max_side {
            return Ok(());
        }
        Err(InputError(format!(
            "{}: the result has {width}×{height} pixels, but a {} file has at most {max_side}×{max_side}; write a PNG file: -o {}",
            self.path.display(),
            self.format.name(),
            format::shell_word(self.path.with_extension("png"))
        )))
    }

    /// Returns the path of sample `k`.
    fn sample(&self, k: u64) -> PathBuf {
        if self.samples == 1 { self.path.clone() } else { self.named(&(k + 1).to_string()) }
    }

    /// Returns the path of the bicubic interpolation.
    fn bicubic(&self) -> PathBuf {
        self.named("bicubic")
    }

    /// Returns `out-NAME.png` for `out.png`.
    fn named(&self, name: &str) -> PathBuf {
        let mut file = self.path.file_stem().unwrap_or_default().to_os_string();
        file.push(format!("-{name}."));
        file.push(self.path.extension().unwrap_or_default());
        self.path.with_file_name(file)
    }
}

fn read_picture(path: &Path) -> Result<Picture> {
    let input_error = |error: String| InputError(format!("{}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| {
        let what = format::io_error(&error);
        InputError(format!("cannot read {}: {what}; give the path of a PNG, JPEG or WebP image", path.display()))
    })?;
    let picture = Picture::decode(&bytes);
    Ok(picture.map_err(|error| input_error(format!("cannot read this as a PNG, JPEG or WebP image: {error:#}")))?)
}

/// Reads the checkpoint of a file, or the averaged weights of a `train` stage.
fn find_model(model: &str, runs: &Path) -> Result<Checkpoint> {
    let path = Path::new(model);
    let input_error = |error: anyhow::Error| InputError(format!("--model: {model}: {error:#}"));
    let bytes = if path.is_file() {
        return Ok(Checkpoint::read(path).map_err(input_error)?);
    } else if path.extension().is_some_and(|ending| ending == "safetensors") {
        return Err(InputError(format!("--model: cannot read {model}: no such file")).into());
    } else {
        let store = Store::open_records(runs).ok_or_else(|| {
            let InputError(no_runs) = no_runs(runs);
            InputError(format!("--model: cannot read {model}: no such file; and {no_runs}"))
        })?;
        weights_of_stage(&store, model)?
    };
    Ok(Checkpoint::from_bytes(&bytes).map_err(input_error)?)
}

/// Reads the averaged weights of a `train` or `select` stage of the latest run.
fn weights_of_stage(store: &Store, model: &str) -> Result<Vec<u8>> {
    let (run, stage) = find_stage(store, model)?;
    let has_weights = |stage: &StageRecord| matches!(stage.kind, StageKind::Train | StageKind::Select);
    if !has_weights(&stage) {
        let stages = run.record()?.stages;
        let trained = stages.iter().filter(|stage| has_weights(stage)).map(|stage| stage.name.as_str());
        let trained: Vec<&str> = trained.collect();
        let names = if trained.is_empty() { "none".into() } else { trained.join(", ") };
        let kind = stage.kind;
        return Err(InputError(format!(
            "--model: {model} is a `{kind}` stage, expected a `train` stage; the run has {names}"
        ))
        .into());
    }
    let action = stage.key.as_ref().map(|key| store.action(key)).transpose()?.flatten();
    let Some(digest) = action.as_ref().and_then(|action| action.outputs.get(blobs::EMA)) else {
        let file = run.record()?.file.map_or_else(|| "the pipeline".into(), format::shell_word);
        return Err(InputError(format!(
            "--model: {model} has no weights in the latest run ({}); finish it with `srpipe run {file}`",
            run.id()
        ))
        .into());
    };
    store.read(digest).with_context(|| format!("reading the weights of {model}"))
}

/// Returns the sampler's parameters; fails if they do not match the model.
fn sampler(args: &UpscaleArgs, denoiser: &Denoiser) -> Result<SamplerParams, InputError> {
    let timesteps = denoiser.config.diffusion.timesteps;
    let steps = args.steps as usize;
    if denoiser.is_regression() {
        if args.samples > 1 {
            return Err(InputError(format!(
                "--samples {}: {} is a regression model, which has only one result; remove the flag",
                args.samples, args.model
            )));
        }
    } else if steps > timesteps {
        return Err(InputError(format!(
            "--steps {steps}: must be at most {timesteps}, the timesteps of {}",
            args.model
        )));
    }
    Ok(SamplerParams { method: SamplerMethod::Ddim, steps, ..Default::default() })
}

/// Shows progress: a bar on a terminal, otherwise a line at intervals.
struct Meter {
    bar: ProgressBar,
    started: Instant,
    last_line: Instant,
}

impl Meter {
    fn new(total: u64) -> Self {
        let bar = if can_draw() { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let template = "{bar:24} {percent} %  {elapsed}  ETA {eta}";
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        bar.set_style(style.progress_chars("━╸─"));
        bar.set_length(total);
        Self { bar, started: Instant::now(), last_line: Instant::now() }
    }

    fn advance(&mut self, evaluations: u64) {
        self.bar.inc(evaluations);
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let eta = self.started.elapsed().as_secs_f64() / done as f64 * (total - done) as f64;
            note(&format!("{} %  ETA {}", 100 * done / total, format::duration(eta)));
        }
    }
}
