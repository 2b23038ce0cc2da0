//! What types and ranges don't say: sizes that must divide, values that must fit each other, within a stage and
//! between stages.

mod claims;
mod command;
mod network;

use std::collections::HashMap;

use super::diagnostics::{Diagnostic, Errors, Span};
use super::resolve::Draft;
use super::sweep::Instance;
use super::tree::{Node, Value};
use super::words::{is_invisible, quote};
use crate::config::SecretUrl;
use crate::config::StageParams;
use crate::config::names::name_error;
use crate::config::*;

pub use network::{MAX_IMAGE_SIZE, check_network};

/// The name that tables give bicubic enlargement.
const RESERVED_ARM: &str = "bicubic";

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
            StageParams::Compare(p) => check_compare(stage, p, &pipeline, &mut found),
            StageParams::Command(p) => command::check(stage, p, &mut found),
        }
        // What is said of the stage as a whole may come of a parameter that is in error and was left out.
        let in_error = draft.stages[instance.stage].variants[instance.variant].in_error;
        errors.append(found.filter(|place| !in_error || place != stage.key()));
    }
}

/// A stage that is checked.
#[derive(Clone, Copy)]
struct Stage<'a> {
    draft: &'a Draft,
    instance: &'a Instance,
}

impl<'a> Stage<'a> {
    fn name(self) -> &'a str {
        &self.instance.name
    }

    /// Where its name stands.
    fn key(self) -> Span {
        self.draft.stages[self.instance.stage].key
    }

    /// The value of a parameter that is given.
    fn given(self, path: &str) -> Option<Span> {
        Some(self.node(path)?.1.span)
    }

    fn node(self, path: &str) -> Option<(Span, &'a Node)> {
        self.draft.place(self.instance.stage, self.instance.variant, path)
    }

    /// Key and value of a parameter.
    fn entry(self, path: &str) -> (Span, Span) {
        self.node(path).map_or((self.key(), self.key()), |(key, node)| (key, node.span))
    }

    /// The value of a parameter, or the stage's name where the parameter is left to its default.
    fn place(self, path: &str) -> Span {
        self.entry(path).1
    }

    /// Converts a problem with the stage's network to a diagnostic.
    fn problem(self, problem: network::Problem) -> Diagnostic {
        let given = problem.paths.iter().find_map(|path| self.given(path));
        let span = given.unwrap_or_else(|| self.place(problem.paths.last().copied().unwrap_or("")));
        Diagnostic::new(span, problem.message).maybe_help(problem.help)
    }

    /// A value of a parameter that is a list.
    fn item(self, path: &str, index: usize) -> Span {
        match self.node(path).map(|(_, node)| &node.value) {
            Some(Value::List(items)) => items.get(index).map_or(self.place(path), |item| item.span),
            _ => self.place(path),
        }
    }
}

/// The stages by name. Looks up what can be known; a reference in error is reported elsewhere.
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

    fn train(&self, name: &str) -> Option<&TrainParams> {
        match self.params(name)? {
            StageParams::Train(p) => Some(p),
            _ => None,
        }
    }
}

fn check_fetch(stage: Stage, params: &FetchParams, errors: &mut Errors) {
    match params {
        FetchParams::Cifar10(p) => check_archive(stage, p, errors),
        FetchParams::Folder(p) if p.path.is_empty() || p.path.contains(is_invisible) => {
            let message = format!("`path` must name a folder, found {}", quote(&p.path));
            errors.push(Diagnostic::new(stage.place("path"), message).help("`.` is the folder srpipe is started in"));
        }
        FetchParams::Folder(_) | FetchParams::Synthetic(_) => {}
    }
}

fn check_archive(stage: Stage, p: &Cifar10Params, errors: &mut Errors) {
    let printable = |url: &str| !url.chars().any(|c| is_invisible(c) || c == ' ');
    let is_web = |url: &str| {
        let host = url.strip_prefix("https://").or(url.strip_prefix("http://"));
        host.is_some_and(|h| !h.is_empty() && !h.starts_with('/')) && printable(url)
    };
    if let Some(url) = p.url.as_ref().map(SecretUrl::expose) {
        let span = stage.place("url");
        if is_web(url) {
            if p.sha256.is_none() {
                errors.push(
                    Diagnostic::new(span, "an archive from the web needs `sha256`").help(
                        "what `sha256sum` prints of the right archive; without `url` the official one is fetched",
                    ),
                );
            }
        } else if !url.strip_prefix("file:").is_some_and(|path| !path.is_empty() && !path.contains(is_invisible)) {
            let message = format!("`url` must be `https://…`, `http://…` or `file:…`, found {}", quote(url));
            let help = match url.contains("://") || url.starts_with("file:") {
                true => None,
                false => Some(format!("for a file of this machine write {}", quote(&format!("file:{url}")))),
            };
            errors.push(Diagnostic::new(span, message).maybe_help(help));
        }
    }
    for (index, url) in p.mirrors.iter().map(SecretUrl::expose).enumerate().filter(|(_, url)| !is_web(url)) {
        let message = format!("a mirror must be `https://…` or `http://…`, found {}", quote(url));
        errors.push(Diagnostic::new(stage.item("mirrors", index), message));
    }
    if let Some(digest) = &p.sha256
        && !(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        let message = format!("`sha256` must be 64 hexadecimal digits, found {}", quote(digest));
        errors.push(Diagnostic::new(stage.place("sha256"), message));
    }
}

fn check_degrade(stage: Stage, params: &DegradeParams, stages: &Stages, errors: &mut Errors) {
    let Some(size) = stages.fetch(&params.input).map(FetchParams::image_size) else { return };
    if let Some(message) = scale_error(size, params.scale) {
        errors.push(Diagnostic::new(stage.place("scale"), message));
    }
}

fn scale_error(size: usize, scale: usize) -> Option<String> {
    (!size.is_multiple_of(scale))
        .then(|| format!("images of {size}×{size} pixels cannot be made {scale} times smaller"))
}

fn check_train(stage: Stage, params: &TrainParams, stages: &Stages, errors: &mut Errors) {
    let TrainParams { model, diffusion, optim, .. } = params;
    check_length(stage, optim, errors);
    if !optim.batch_size.is_multiple_of(optim.accumulate) {
        let message = format!("a batch of {} can't be divided into {} parts", optim.batch_size, optim.accumulate);
        let span = stage.place("optim.accumulate");
        errors.push(Diagnostic::new(span, message).help("`optim.accumulate` must divide `optim.batch_size`"));
    }
    network::diffusion_problems(diffusion).into_iter().for_each(|problem| errors.push(stage.problem(problem)));
    let size = stages.degrade(&params.data).and_then(|d| stages.fetch(&d.input)).map(FetchParams::image_size);
    if optim.budget.is_some() && size.is_none() && stages.params(&params.data).is_some() {
        let message = format!(
            "a budget of seconds needs images whose size the file tells, and {} has none that it tells",
            quote(&params.data)
        );
        let help = "give `steps` or `epochs`, or data that `degrade` makes of a `fetch` stage";
        errors.push(Diagnostic::new(stage.place("optim.budget"), message).help(help));
    }
    if let Some(size) = size {
        match network::unet_error(size, model.channel_mults.len()) {
            Some(message) => errors.push(Diagnostic::new(stage.place("data"), message)),
            None => {
                let problems = network::attention_problems(model, size).into_iter();
                problems.for_each(|problem| errors.push(stage.problem(problem)));
            }
        }
    }
}

/// How long a training is: one of three says.
fn check_length(stage: Stage, optim: &OptimParams, errors: &mut Errors) {
    let said =
        [("steps", optim.steps.is_some()), ("epochs", optim.epochs.is_some()), ("budget", optim.budget.is_some())];
    let said: Vec<&str> = said.into_iter().filter(|(_, said)| *said).map(|(name, _)| name).collect();
    match said[..] {
        [] => errors.push(
            Diagnostic::new(
                stage.key(),
                format!("stage {} needs `optim.steps`, `optim.epochs` or `optim.budget`", quote(stage.name())),
            )
            .help("such as `optim: { steps: 1500 }`, or the same under `defaults.train`"),
        ),
        [_] => {}
        [first, second, ..] => {
            let message = format!("`optim.{first}` and `optim.{second}` contradict each other");
            errors.push(
                Diagnostic::new(stage.place(&format!("optim.{second}")), message)
                    .related(stage.place(&format!("optim.{first}")), "also given")
                    .help("leave one of them out"),
            );
        }
    }
    if optim.budget.is_some() && optim.gflops.is_none() {
        let help = "such as `gflops: 200`: what `srpipe bench` measures on the machine that the budget is meant for";
        let span = stage.place("optim.budget");
        errors.push(Diagnostic::new(span, "a budget of seconds needs `optim.gflops`").help(help));
    }
}

fn check_sample(stage: Stage, params: &SampleParams, stages: &Stages, errors: &mut Errors) {
    let Some(model) = stages.train(&params.model) else { return };
    let timesteps = model.diffusion.timesteps;
    if model.diffusion.objective != Objective::Regression && params.sampler.steps > timesteps {
        let message = format!(
            "`sampler.steps` is {}, but {} is trained with {timesteps} timesteps",
            params.sampler.steps,
            quote(&params.model)
        );
        errors.push(Diagnostic::new(stage.place("sampler.steps"), message).help(format!("at most {timesteps}")));
    }
    if stages.degrade(&params.data).is_some_and(|d| d.method != DegradeMethod::Area) && params.sampler.project_lr {
        let message =
            "`sampler.project_lr` makes the means of blocks right, and these low-resolution images are others";
        let mut error = Diagnostic::new(stage.place("sampler.project_lr"), message).help("it goes with `method: area`");
        if let Some(degrade) = stages.stage(&params.data) {
            error = error.related(degrade.place("method"), "not the mean of each block");
        }
        errors.push(error);
    }
    if let (Some(data), Some(learned)) = (stages.degrade(&params.data), stages.degrade(&model.data))
        && data.scale != learned.scale
    {
        let message = format!(
            "{} is {} times smaller, but {} is trained on {}, {} times smaller",
            quote(&params.data),
            data.scale,
            quote(&params.model),
            quote(&model.data),
            learned.scale
        );
        let mut error = Diagnostic::new(stage.place("data"), message).help("sample from data of the model's scale");
        if let Some(train) = stages.stage(&params.model) {
            error = error.related(train.place("data"), "the model's data");
        }
        errors.push(error);
    }
}

fn check_compare(stage: Stage, params: &CompareParams, stages: &Stages, errors: &mut Errors) {
    let mut first: Option<(&str, String, Span)> = None;
    let place = |arm: &Arm| stage.entry(&format!("arms.{}", arm.of));
    let mut arms: Vec<_> = params.arms.iter().collect();
    arms.sort_by_key(|(_, arm)| place(arm).0);
    for &(name, arm) in &arms {
        let (key, span) = place(arm);
        if arm.of == RESERVED_ARM {
            let message = format!("an arm cannot be called {}", quote(&arm.of));
            errors.push(Diagnostic::new(key, message).help("bicubic enlargement is measured in every comparison"));
        } else if let Some(help) = name_error(&arm.of) {
            errors.push(Diagnostic::new(key, format!("{} cannot be the name of an arm", quote(&arm.of))).help(help));
        }
        for run in &arm.runs {
            let Some(StageParams::Sample(sample)) = stages.params(&run.stage) else { continue };
            match &first {
                None => first = Some((name, sample.data.clone(), span)),
                Some((other, data, other_span)) if *data != sample.data => {
                    let message = format!(
                        "arm {} samples {}, arm {} samples {}: their images cannot be compared",
                        quote(name),
                        quote(&sample.data),
                        quote(other),
                        quote(data)
                    );
                    let mut error =
                        Diagnostic::new(span, message).help("give the `sample` stages of all arms the same `data`");
                    if *other_span != span {
                        error = error.related(*other_span, format!("samples {}", quote(data)));
                    }
                    errors.push(error);
                }
                Some(_) => {}
            }
        }
    }
    check_counts(stage, &arms, stages, errors);
    claims::check_claims(stage, params, stages, errors);
}

/// Images are compared one by one: every arm needs the same. `arms` come in the order of the file.
fn check_counts(stage: Stage, arms: &[(&String, &Arm)], stages: &Stages, errors: &mut Errors) {
    let mut first: Option<(&str, usize, Option<Span>)> = None;
    for (name, arm) in arms {
        for run in &arm.runs {
            let (Some(of), Some(StageParams::Sample(sample))) = (stages.stage(&run.stage), stages.params(&run.stage))
            else {
                continue;
            };
            let fetch = stages.degrade(&sample.data).and_then(|d| stages.fetch(&d.input));
            let images = sample.limit.unwrap_or(usize::MAX).min(fetch.map_or(usize::MAX, FetchParams::most_tests));
            let place = of.given("limit");
            match first {
                None => first = Some((name, images, place)),
                Some((other, others, other_place)) if images != others => {
                    let count = |images| match images {
                        usize::MAX => "all".to_string(),
                        images => images.to_string(),
                    };
                    let message = format!(
                        "arm {} has {} test images, arm {} {}: they are compared image by image",
                        quote(name),
                        count(images),
                        quote(other),
                        count(others)
                    );
                    let span = place.or(other_place).unwrap_or(stage.key());
                    let mut error = Diagnostic::new(span, message)
                        .help("give the `sample` stages of all arms the same `limit`, best under `defaults.sample`");
                    if let Some(other_place) = other_place.filter(|&p| p != span) {
                        error = error.related(other_place, format!("of arm {}", quote(other)));
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
    fn sizes_must_divide() {
        assert_eq!(scale_error(32, 8), None);
        assert!(scale_error(36, 8).unwrap().contains("36×36"));
    }
}
