//! The way from a file, or its text, to a pipeline.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use super::diagnostics::{Diagnostics, Errors, Position, Text, position};
use super::resolve::Draft;
use super::tree::Node;
use super::words::nearest;
use super::{Flags, Pipeline, Stage, checks, flags, reader, references, resolve, resolved, sweep};

/// Reads and checks a pipeline, with the values of the command line in the place of the file's.
///
/// # Errors
/// All that is wrong at once; a file that cannot be read is an error too.
pub fn load(path: &Path, flags: &Flags) -> Result<Pipeline, Diagnostics> {
    let name = path.display().to_string();
    let mut bytes = vec![];
    // One byte more than is allowed tells a file that is too large, even if it has no end.
    let limit = reader::MAX_BYTES as u64 + 1;
    if let Err(error) = std::fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)) {
        let help = match error.kind() {
            ErrorKind::NotFound => similar_file(path).or(Some("`srpipe init` writes one to start from".into())),
            ErrorKind::IsADirectory => Some("name a file in it".into()),
            _ => None,
        };
        return Err(Diagnostics::without_place(format!("cannot read the pipeline {name}: {error}"), help));
    }
    let mut pipeline = parse(&name, bytes, flags)?;
    pipeline.file = path.to_path_buf();
    Ok(pipeline)
}

/// A file beside it with nearly this name.
fn similar_file(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.filter(|n| n.ends_with(".yaml") || n.ends_with(".yml")).collect();
    names.sort();
    let wanted = path.file_name()?.to_str()?;
    let stem = |name: &str| name.trim_end_matches(".yaml").trim_end_matches(".yml").to_string();
    let found = names.iter().find(|n| stem(n) == stem(wanted)).map(String::as_str);
    let found = found.or_else(|| nearest(wanted, names.iter().map(String::as_str)))?;
    Some(format!("did you mean `{}`?", path.with_file_name(found).display()))
}

/// As [`load`], for a text; `name` is what messages call it.
///
/// # Errors
/// All that is wrong at once.
pub fn parse(name: &str, text: impl AsRef<[u8]>, flags: &Flags) -> Result<Pipeline, Diagnostics> {
    let text = match decode(text.as_ref()) {
        Ok(text) => text,
        Err((message, help)) => return Err(Diagnostics::without_place(format!("{name}: {message}"), help)),
    };
    let file = Text::File { name: name.to_string(), text: text.to_string() };
    let sources: Arc<[Text]> = std::iter::once(file).chain(flags.sources()).collect();

    let mut errors = Errors::default();
    let Some(root) = tree(&sources, &mut errors) else { return Err(errors.finish(sources)) };
    let Some(mut draft) = resolve::resolve(root, &mut errors) else { return Err(errors.finish(sources)) };
    draft.stages = references::check_and_sort(draft.stages, &mut errors);
    let instances = sweep::expand(&draft.stages, &draft.sweeps.axes, &mut errors);
    checks::check(&draft, &instances, &mut errors);
    if !errors.is_empty() {
        return Err(errors.finish(sources));
    }
    let stage = |instance: sweep::Instance| Stage {
        name: instance.name,
        base: draft.stages[instance.stage].name.clone(),
        labels: instance.labels,
        params: instance.typed.params,
        resources: instance.typed.resources,
        site: instance.typed.site,
        retry: instance.typed.retry,
        origin: (instance.stage, instance.variant),
    };
    Ok(Pipeline {
        file: name.into(),
        name: draft.name.clone(),
        description: draft.description.clone(),
        seed: draft.seed,
        device: draft.device,
        executor: draft.executor,
        stages: instances.into_iter().map(stage).collect(),
        draft: Arc::new(Source { texts: sources, draft }),
    })
}

/// The text of a file, or what is wrong with it and what to do.
fn decode(bytes: &[u8]) -> Result<&str, (String, Option<String>)> {
    if bytes.len() > reader::MAX_BYTES {
        let message = format!(
            "line {} is beyond {} MiB, the most that a pipeline file has",
            line_of(bytes, reader::MAX_BYTES),
            reader::MAX_BYTES >> 20
        );
        return Err((message, Some("stages that differ in a few values are one stage with a `matrix`".to_string())));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(("the text is UTF-16".to_string(), Some("save the file as UTF-8".to_string())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_of(bytes, error.valid_up_to());
        (format!("line {line} is not UTF-8"), Some("save the file as UTF-8".to_string()))
    })?;
    Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text))
}

/// The line, counted from 1, in which the byte at `offset` stands.
fn line_of(bytes: &[u8], offset: usize) -> usize {
    bytes[..offset].iter().filter(|&&b| b == b'\n').count() + 1
}

/// The file's document with the flags applied.
fn tree(sources: &[Text], errors: &mut Errors) -> Option<Node> {
    let mut root = reader::read(sources[0].text(), reader::Place { source: 0, offset: 0 }, errors)?;
    if root.is_null() || root.as_mapping().is_none() {
        return Some(root);
    }
    for (index, flag) in sources.iter().enumerate().skip(1) {
        flags::apply(&mut root, flag.text(), index as u32, errors);
    }
    Some(root)
}

/// What a pipeline was read from.
#[derive(Debug, Default)]
pub(super) struct Source {
    texts: Arc<[Text]>,
    draft: Draft,
}

impl Source {
    pub fn resolved(&self) -> String {
        resolved::to_yaml(&self.draft).expect("numbers, texts, lists and mappings are YAML")
    }

    /// Where a stage's parameter is given.
    pub fn position(&self, stage: &Stage, path: &str) -> Option<Position> {
        let (base, variant) = stage.origin;
        let span = match path {
            "" => self.draft.stages.get(base)?.key,
            _ => self.draft.place(base, variant, path)?.0,
        };
        position(&self.texts, span)
    }
}
