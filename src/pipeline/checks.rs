//! Checks rules that types and ranges cannot express: relations between parameters of a stage and between stages.

mod claims;
mod command;
mod network;
mod selection;

use std::collections::HashMap;

use super::diagnostics::{Diagnostic, Errors, Span};
use super::draft::Draft;
use super::instances::Instance;
use super::text::{is_invisible, quote};
use super::tree::{Node, Value};
use crate::config::SecretUrl;
use crate::config::StageParams;
use crate::config::names::name_error;
use crate::config::{
    Arm, Cifar10Params, CompareParams, DegradeMethod, DegradeParams, FetchParams, MapsParams, OptimParams,
    PredictionType, SampleParams, TrainParams,
};

pub use network::check_network;

/// The name of bicubic interpolation in tables.
const RESERVED_ARM: &str = "bicubic";

/// Checks all instances.
pub(super) fn check(draft: &Draft, instances: &[Instance], errors: &mut Errors) {
    let by_name = instances.iter().map(|instance| (instance.name.as_str(), instance)).collect();
    let pipeline = Stages { draft, by_name };
    for instance in instances {
        let stage = Stage { draft, instance };
        let mut found = Errors::default();
        match &instance.typed.params {
            StageParams::Fetch(p) => check_fetch(stage, p, &mut found),
            StageParams::Degrade(p) => check_degrade(stage, p, &pipeline, &mut found),
            StageParams::Train(p) => check_train(stage, p, &pipeline, &mut found),
            StageParams::Sample(p) => check_sample(stage, p, &pipeline, &mut found),
            StageParams::Select(p) => selection::check_select(stage, p, &pipeline, &mut found),
            StageParams::Compare(p) => check_compare(stage, p, &pipeline, &mut found),
            StageParams::Command(p) => command::check(stage, p, &mut found),
        }
        // An error about the stage as a whole may be caused by an invalid parameter.
        let in_error = draft.stages[instance.stage].variants[instance.variant].in_error;
        errors.append(found.filter(|span| !in_error || span != stage.key()));
    }
}

/// The instance to check.
#[derive(Clone, Copy)]
struct Stage<'a> {
    draft: &'a Draft,
    instance: &'a Instance,
}

impl<'a> Stage<'a> {
    fn name(self) -> &'a str {
        &self.instance.name
    }

    /// The span of the stage's name in the file.
    fn key(self) -> Span {
        self.draft.stages[self.instance.stage].key
    }

    /// Returns the span of a parameter's value; None if it is not set.
    fn set_span(self, path: &str) -> Option<Span> {
        Some(self.parameter(path)?.1.span)
    }

    /// Returns a parameter with the span of its key; None if it is not set.
    fn parameter(self, path: &str) -> Option<(Span, &'a Node)> {
        self.draft.parameter(self.instance.stage, self.instance.variant, path)
    }

    /// Returns the spans of a parameter's key and value, or of the stage's name if it is not set.
    fn spans(self, path: &str) -> (Span, Span) {
        self.parameter(path).map_or((self.key(), self.key()), |(key, node)| (key, node.span))
    }

    /// Returns the span of a parameter's value, or of the stage's name if it is not set.
    fn span(self, path: &str) -> Span {
        self.spans(path).1
    }

    /// Converts a problem of the stage's network to a diagnostic.
    fn problem(self, problem: network::Problem) -> Diagnostic {
        let set = problem.paths.iter().find_map(|path| self.set_span(path));
        let span = set.unwrap_or_else(|| self.span(problem.paths.last().copied().unwrap_or("")));
        Diagnostic::new(span, problem.message).maybe_help(problem.help)
    }

    /// Returns the span of an item of a list parameter.
    fn item_span(self, path: &str, index: usize) -> Span {
        match self.parameter(path).map(|(_, node)| &node.value) {
            Some(Value::List(items)) => items.get(index).map_or(self.span(path), |item| item.span),
            _ => self.span(path),
        }
    }
}

/// The stages by name. Lookups return None for invalid references, which are reported elsewhere.
struct Stages<'a> {
    draft: &'a Draft,
    by_name: HashMap<&'a str, &'a Instance>,
}

impl<'a> Stages<'a> {
    fn stage(&self, name: &str) -> Option<Stage<'a>> {
        Some(Stage { draft: self.draft, instance: self.by_name.get(name)? })
    }

    fn params(&self, name: &str) -> Option<&StageParams> {
        Some(&self.by_name.get(name)?.typed.params)
    }

    fn fetch(&self, name: &str) -> Option<&FetchParams> {
        match self.params(name)? {
            StageParams::Fetch(p) => Some(p),
            _ => None,
        }
    }

    fn degrade(&self, name: &str) -> Option<&DegradeParams> {
        match self.params(name)? {
            StageParams::Degrade(p) => Some(p),
            _ => None,
        }
    }

    /// Returns the models that a `train` or `select` stage may provide, with the names of their `train` stages.
    fn models(&self, name: &'a str) -> Vec<(&'a str, &TrainParams)> {
        match self.by_name.get(name).map(|instance| &instance.typed.params) {
            Some(StageParams::Train(params)) => vec![(name, params)],
            Some(StageParams::Select(select)) => {
                select.candidates.values().flat_map(|candidate| self.models(&candidate.stage)).collect()
            }
            _ => vec![],
        }
    }
}

fn check_fetch(stage: Stage, params: &FetchParams, errors: &mut Errors) {
    match params {
        FetchParams::Cifar10(p) => check_archive(stage, p, errors),
        FetchParams::Folder(p) if p.path.is_empty() || p.path.contains(is_invisible) => {
            let message = format!("`path` must be a directory, found {}", quote(&p.path));
            errors.push(Diagnostic::new(stage.span("path"), message).help("`.` is the current directory"));
        }
        FetchParams::Maps(p) => check_maps(stage, p, errors),
        FetchParams::Folder(_) | FetchParams::Synthetic(_) => {}
    }
}

fn check_maps(stage: Stage, p: &MapsParams, errors: &mut Errors) {
    if !p.cell.is_multiple_of(4) {
        let message = format!("`cell` must be a multiple of 4, found {}", p.cell);
        let help = "a cell consists of whole blocks of 4×4 pixels, in which the hatching is invisible after reduction";
        errors.push(Diagnostic::new(stage.span("cell"), message).help(help));
    } else if !p.size.is_multiple_of(p.cell) {
        let message = format!("`size` must be a multiple of `cell`, found {} and {}", p.size, p.cell);
        errors.push(Diagnostic::new(stage.span("size"), message));
    } else if 2 * p.colours > p.size / p.cell {
        let message =
            format!("the legend has {} cells, but {} colours need {}", p.size / p.cell, p.colours, 2 * p.colours);
        let help = "reduce `colours` or `cell`, or increase `size`";
        errors.push(Diagnostic::new(stage.span("colours"), message).help(help));
    }
}

fn check_archive(stage: Stage, p: &Cifar10Params, errors: &mut Errors) {
    let is_printable = |url: &str| !url.chars().any(|c| is_invisible(c) || c == ' ');
    let is_web = |url: &str| {
        let host = url.strip_prefix("https://").or(url.strip_prefix("http://"));
        host.is_some_and(|h| !h.is_empty() && !h.starts_with('/')) && is_printable(url)
    };
    if let Some(url) = p.url.as_ref().map(SecretUrl::expose) {
        let span = stage.span("url");
        if is_web(url) {
            if p.sha256.is_none() {
                errors.push(
                    Diagnostic::new(span, "an archive from the web needs `sha256`")
                        .help("set it to the output of `sha256sum`, or remove `url` to download the official archive"),
                );
            }
        } else if !url.strip_prefix("file:").is_some_and(|path| !path.is_empty() && !path.contains(is_invisible)) {
            let message = format!("`url` must be `https://…`, `http://…` or `file:…`, found {}", quote(url));
            let help = match url.contains("://") || url.starts_with("file:") {
                true => None,
                false => Some(format!("for a local file, write {}", quote(&format!("file:{url}")))),
            };
            errors.push(Diagnostic::new(span, message).maybe_help(help));
        }
    }
    for (index, url) in p.mirrors.iter().map(SecretUrl::expose).enumerate().filter(|(_, url)| !is_web(url)) {
        let message = format!("a mirror must be `https://…` or `http://…`, found {}", quote(url));
        errors.push(Diagnostic::new(stage.item_span("mirrors", index), message));
    }
    if let Some(digest) = &p.sha256
        && !(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        let message = format!("`sha256` must be 64 hexadecimal digits, found {}", quote(digest));
        errors.push(Diagnostic::new(stage.span("sha256"), message));
    }
}

fn check_degrade(stage: Stage, params: &DegradeParams, stages: &Stages, errors: &mut Errors) {
    let Some(size) = stages.fetch(&params.input).map(FetchParams::image_size) else { return };
    if let Some(message) = scale_error(size, params.scale) {
        errors.push(Diagnostic::new(stage.span("scale"), message));
    }
}

/// Returns the reason why images of this size cannot be downscaled; None if they can.
fn scale_error(size: usize, scale: usize) -> Option<String> {
    (!size.is_multiple_of(scale))
        .then(|| format!("`scale` must divide the image size, found {scale} for images of {size}×{size} pixels"))
}

fn check_train(stage: Stage, params: &TrainParams, stages: &Stages, errors: &mut Errors) {
    let TrainParams { model, diffusion, optim, .. } = params;
    check_length(stage, optim, errors);
    if !optim.batch_size.is_multiple_of(optim.micro_batches) {
        let message =
            format!("a batch of {} cannot be divided into {} equal parts", optim.batch_size, optim.micro_batches);
        let span = stage.span("optim.micro_batches");
        errors.push(Diagnostic::new(span, message).help("`optim.micro_batches` must divide `optim.batch_size`"));
    }
    network::diffusion_problems(diffusion).into_iter().for_each(|problem| errors.push(stage.problem(problem)));
    let size = stages.degrade(&params.data).and_then(|d| stages.fetch(&d.input)).map(FetchParams::image_size);
    if optim.budget.is_some() && size.is_none() && stages.params(&params.data).is_some() {
        let message = format!(
            "`optim.budget` needs images of a known size, but the file does not define the size of {}",
            quote(&params.data)
        );
        let help = "set `steps` or `epochs` instead, or use the output of a `degrade` stage";
        errors.push(Diagnostic::new(stage.span("optim.budget"), message).help(help));
    }
    if let Some(size) = size {
        match network::unet_error(size, model.channel_mults.len()) {
            Some(message) => errors.push(Diagnostic::new(stage.span("data"), message)),
            None => {
                let problems = network::attention_problems(model, size).into_iter();
                problems.for_each(|problem| errors.push(stage.problem(problem)));
            }
        }
    }
}

/// Checks that exactly one parameter specifies the length of the training.
fn check_length(stage: Stage, optim: &OptimParams, errors: &mut Errors) {
    let lengths =
        [("steps", optim.steps.is_some()), ("epochs", optim.epochs.is_some()), ("budget", optim.budget.is_some())];
    let set: Vec<&str> = lengths.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
    match set[..] {
        [] => errors.push(
            Diagnostic::new(
                stage.key(),
                format!("stage {} needs `optim.steps`, `optim.epochs` or `optim.budget`", quote(stage.name())),
            )
            .help("such as `optim: { steps: 1500 }`, or the same under `defaults.train`"),
        ),
        [_] => {}
        [first, second, ..] => {
            let message = format!("`optim.{first}` and `optim.{second}` are mutually exclusive");
            errors.push(
                Diagnostic::new(stage.span(&format!("optim.{second}")), message)
                    .related(stage.span(&format!("optim.{first}")), "also set")
                    .help("remove one of them"),
            );
        }
    }
    if optim.budget.is_some() && optim.gflops.is_none() {
        let help = "such as `gflops: 200`; measure it with `srpipe bench` on the machine that the budget is meant for";
        let span = stage.span("optim.budget");
        errors.push(Diagnostic::new(span, "`optim.budget` needs `optim.gflops`").help(help));
    }
}

fn check_sample(stage: Stage, params: &SampleParams, stages: &Stages, errors: &mut Errors) {
    for (name, model) in stages.models(&params.model) {
        let before = errors.len();
        check_sample_with_model(stage, params, (name, model), stages, errors);
        if errors.len() > before {
            return;
        }
    }
}

/// Checks a `sample` stage with one of the models that it may use.
fn check_sample_with_model(
    stage: Stage,
    params: &SampleParams,
    (name, model): (&str, &TrainParams),
    stages: &Stages,
    errors: &mut Errors,
) {
    let timesteps = model.diffusion.timesteps;
    if model.diffusion.objective != PredictionType::Regression && params.sampler.steps > timesteps {
        let message = format!(
            "`sampler.steps` is {}, but {} is trained with {timesteps} timesteps",
            params.sampler.steps,
            quote(name)
        );
        errors
            .push(Diagnostic::new(stage.span("sampler.steps"), message).help(format!("use at most {timesteps} steps")));
    }
    if stages.degrade(&params.data).is_some_and(|d| d.method != DegradeMethod::Area) && params.sampler.project_lr {
        let message = "`sampler.project_lr` needs data from a `degrade` stage with `method: area`";
        let mut error = Diagnostic::new(stage.span("sampler.project_lr"), message)
            .help("it corrects block means, and only `area` produces low-resolution images that are block means");
        if let Some(degrade) = stages.stage(&params.data) {
            error = error.related(degrade.span("method"), "not `area`");
        }
        errors.push(error);
    }
    if let (Some(data), Some(trained)) = (stages.degrade(&params.data), stages.degrade(&model.data))
        && data.scale != trained.scale
    {
        let message = format!(
            "{} has scale {}, but {} is trained on {} with scale {}",
            quote(&params.data),
            data.scale,
            quote(name),
            quote(&model.data),
            trained.scale
        );
        let mut error = Diagnostic::new(stage.span("data"), message).help("use data with the scale of the model");
        if let Some(train) = stages.stage(name) {
            error = error.related(train.span("data"), "the training data");
        }
        errors.push(error);
    }
}

fn check_compare(stage: Stage, params: &CompareParams, stages: &Stages, errors: &mut Errors) {
    let mut first: Option<(&str, String, Span)> = None;
    let spans = |arm: &Arm| stage.spans(&format!("arms.{}", arm.of));
    let mut arms: Vec<_> = params.arms.iter().collect();
    arms.sort_by_key(|(_, arm)| spans(arm).0);
    for &(name, arm) in &arms {
        let (key, span) = spans(arm);
        if arm.of == RESERVED_ARM {
            let message = format!("the arm name {} is reserved", quote(&arm.of));
            errors.push(
                Diagnostic::new(key, message).help("every comparison includes bicubic interpolation under this name"),
            );
        } else if let Some(help) = name_error(&arm.of) {
            errors.push(Diagnostic::new(key, format!("{} is not a valid arm name", quote(&arm.of))).help(help));
        }
        for run in &arm.runs {
            let Some(StageParams::Sample(sample)) = stages.params(&run.stage) else { continue };
            match &first {
                None => first = Some((name, sample.data.clone(), span)),
                Some((other, data, other_span)) if *data != sample.data => {
                    let message = format!(
                        "arms must use the same data, but {} samples from {} and {} samples from {}",
                        quote(name),
                        quote(&sample.data),
                        quote(other),
                        quote(data)
                    );
                    let mut error =
                        Diagnostic::new(span, message).help("set the same `data` in the `sample` stages of all arms");
                    if *other_span != span {
                        error = error.related(*other_span, format!("samples from {}", quote(data)));
                    }
                    errors.push(error);
                }
                Some(_) => {}
            }
        }
    }
    selection::check_arms(stage, params, errors);
    check_counts(stage, &arms, stages, errors);
    claims::check_claims(stage, params, stages, errors);
    claims::check_control(stage, params, errors);
}

/// Checks that all arms have the same number of images, because they are compared image by image. `arms` must be
/// in the order of the file.
fn check_counts(stage: Stage, arms: &[(&String, &Arm)], stages: &Stages, errors: &mut Errors) {
    let mut first: Option<(&str, usize, Option<Span>)> = None;
    for (name, arm) in arms {
        for run in &arm.runs {
            let (Some(of), Some(StageParams::Sample(sample))) = (stages.stage(&run.stage), stages.params(&run.stage))
            else {
                continue;
            };
            let fetch = stages.degrade(&sample.data).and_then(|d| stages.fetch(&d.input));
            let images = sample
                .limit
                .unwrap_or(usize::MAX)
                .min(fetch.map_or(usize::MAX, |fetch| fetch.max_images(sample.split)));
            let span = of.set_span("limit");
            match first {
                None => first = Some((name, images, span)),
                Some((other, others, other_span)) if images != others => {
                    let count = |images| match images {
                        usize::MAX => "all".to_string(),
                        images => images.to_string(),
                    };
                    let message = format!(
                        "arms must have the same {} images, but {} has {} and {} has {}",
                        sample.split,
                        quote(name),
                        count(images),
                        quote(other),
                        count(others)
                    );
                    let span = span.or(other_span).unwrap_or(stage.key());
                    let mut error = Diagnostic::new(span, message).help(
                        "set the same `limit` in the `sample` stages of all arms, for example in `defaults.sample`",
                    );
                    if let Some(other_span) = other_span.filter(|&other| other != span) {
                        error = error.related(other_span, format!("the limit of {}", quote(other)));
                    }
                    errors.push(error);
                    return;
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_must_divide_the_image_size() {
        assert_eq!(scale_error(32, 8), None);
        assert!(scale_error(36, 8).unwrap().contains("36×36"));
    }
}
