//! The way from a file, or its text, to a pipeline.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Diagnostics, Errors, Position, Source, Span, position};
use super::tree::Node;
use super::words::nearest;
use super::{Pipeline, Stage, checks, reader, references, resolve, resolved, sets};

/// Reads and checks a pipeline.
///
/// `sets` are values of the command line, each `path=value` with a path from the file's root
/// (`defaults.train.optim.steps=1500`) and a value in YAML; later ones win.
///
/// # Errors
/// All that is wrong at once; a file that cannot be read is an error too.
pub fn load(path: &Path, sets: &[String]) -> Result<Pipeline, Diagnostics> {
    let name = path.display().to_string();
    let mut bytes = vec![];
    // One byte more than is allowed tells a file that is too large, even if it has no end.
    let limit = reader::MAX_BYTES as u64 + 1;
    if let Err(error) = std::fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)) {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let help = if missing { similar_file(path) } else { None };
        return Err(Diagnostics::without_place(format!("cannot read the pipeline {name}: {error}"), help));
    }
    let mut pipeline = parse(&name, bytes, sets)?;
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
pub fn parse(name: &str, text: impl AsRef<[u8]>, sets: &[String]) -> Result<Pipeline, Diagnostics> {
    let text = match decode(text.as_ref()) {
        Ok(text) => text,
        Err((message, help)) => return Err(Diagnostics::without_place(format!("{name}: {message}"), help)),
    };
    let file = Source::File { name: name.to_string(), text: text.to_string() };
    let flags = sets.iter().map(|set| Source::Flag(format!("{}{set}", sets::PREFIX)));
    let sources: Arc<[Source]> = std::iter::once(file).chain(flags).collect();

    let mut errors = Errors::default();
    let Some(root) = tree(&sources, &mut errors) else { return Err(errors.finish(sources)) };
    let Some(mut draft) = resolve::resolve(root, &mut errors) else { return Err(errors.finish(sources)) };
    draft.stages = references::check_and_sort(draft.stages, &mut errors);
    checks::check(&draft.stages, &mut errors);
    let resolved = if errors.is_empty() { resolved::to_yaml(&draft) } else { Ok(String::new()) };
    let resolved = resolved.unwrap_or_else(|error| {
        errors.push(Diagnostic::new(Span::new(0, 0..0), format!("cannot be written as YAML: {error}")));
        String::new()
    });
    if !errors.is_empty() {
        return Err(errors.finish(sources));
    }

    let mut stages = vec![];
    let mut places = HashMap::new();
    for stage in draft.stages {
        // Without errors every stage has its parameters.
        stages.extend(stage.params.map(|params| Stage {
            name: stage.name.clone(),
            params,
            resources: stage.resources,
            retry: stage.retry,
        }));
        places.insert(stage.name, (stage.key, stage.node));
    }
    Ok(Pipeline {
        file: name.into(),
        name: draft.name,
        description: draft.description,
        seed: draft.seed,
        device: draft.device,
        stages,
        resolved,
        places: Places { sources, stages: Arc::new(places) },
    })
}

/// The text of a file, or what is wrong with it and what to do.
fn decode(bytes: &[u8]) -> Result<&str, (String, Option<String>)> {
    if bytes.len() > reader::MAX_BYTES {
        let message = format!("a pipeline file has at most {} MiB", reader::MAX_BYTES >> 20);
        return Err((message, None));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(("the text is UTF-16".to_string(), Some("save the file as UTF-8".to_string())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        (format!("line {line} is not UTF-8"), Some("save the file as UTF-8".to_string()))
    })?;
    Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text))
}

/// The file's document with the flags applied.
fn tree(sources: &[Source], errors: &mut Errors) -> Option<Node> {
    let mut root = reader::read(sources[0].text(), reader::Place { source: 0, offset: 0 }, errors)?;
    if root.is_null() || root.as_mapping().is_none() {
        return Some(root);
    }
    for (index, flag) in sources.iter().enumerate().skip(1) {
        sets::apply(&mut root, flag.text(), index as u32, errors);
    }
    Some(root)
}

/// Where every parameter is given.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    sources: Arc<[Source]>,
    /// The name of every stage with its parameters.
    stages: Arc<HashMap<String, (Span, Node)>>,
}

impl Places {
    pub fn position(&self, stage: &str, path: &str) -> Option<Position> {
        let (key, node) = self.stages.get(stage)?;
        let span = match path {
            "" => *key,
            _ => node.entry_at(path)?.key,
        };
        position(&self.sources, span)
    }
}
