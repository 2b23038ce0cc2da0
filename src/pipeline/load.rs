//! Loads a pipeline from a file or a string.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use super::diagnostics::{Diagnostics, Errors, Position, SourceText, position};
use super::draft::Draft;
use super::text::nearest;
use super::tree::Node;
use super::{
    Flags, Pipeline, Stage, aliases, checks, flags, instances, order, reader, resolve, resolved_yaml, trainings,
};
use crate::config::StageParams;
use crate::format::io_error;

/// Reads and validates a pipeline file. Values in `flags` override those of the file.
///
/// # Errors
/// Returns all errors at once. Fails if the file cannot be read.
pub fn load(path: &Path, flags: &Flags) -> Result<Pipeline, Diagnostics> {
    let name = path.display().to_string();
    let mut bytes = vec![];
    // One byte more than the limit, to detect files that are too large or endless.
    let limit = reader::MAX_BYTES as u64 + 1;
    if let Err(error) = std::fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)) {
        let help = match error.kind() {
            ErrorKind::NotFound => similar_file(path).or(Some("create one with `srpipe init`".into())),
            ErrorKind::IsADirectory => Some("give a file in this directory".into()),
            _ => None,
        };
        return Err(Diagnostics::without_position(
            format!("cannot read the pipeline {name}: {}", io_error(&error)),
            help,
        ));
    }
    let mut pipeline = parse(&name, bytes, flags)?;
    pipeline.file = path.to_path_buf();
    Ok(pipeline)
}

/// Suggests a file in the same directory with a similar name.
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

/// Like [`load`], for the text of a file. Messages show `name` as the name of the file.
///
/// # Errors
/// Returns all errors at once.
pub fn parse(name: &str, text: impl AsRef<[u8]>, flags: &Flags) -> Result<Pipeline, Diagnostics> {
    let text = match decode(text.as_ref()) {
        Ok(text) => text,
        Err((message, help)) => return Err(Diagnostics::without_position(format!("{name}: {message}"), help)),
    };
    let file = SourceText::File { name: name.to_string(), text: text.to_string() };
    let sources: Arc<[SourceText]> = std::iter::once(file).chain(flags.sources()).collect();

    let mut errors = Errors::default();
    let Some(root) = tree(&sources, &mut errors) else { return Err(errors.finish(sources)) };
    let Some(mut draft) = resolve::resolve(root, &mut errors) else { return Err(errors.finish(sources)) };
    draft.stages = order::check_and_sort(draft.stages, &mut errors);
    let mut instances = instances::expand(&draft.stages, &draft.sweeps.axes, &mut errors);
    count_claims(&mut instances);
    trainings::number(&mut instances, draft.seed);
    checks::check(&draft, &instances, &mut errors);
    if !errors.is_empty() {
        return Err(errors.finish(sources));
    }
    let stage = |instance: instances::Instance| Stage {
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
        source: Arc::new(Source { texts: sources, draft }),
    })
}

/// Sets the number of claims in the family of each comparison, and whether the file has other families.
fn count_claims(instances: &mut [instances::Instance]) {
    let mut families: BTreeMap<Option<String>, usize> = BTreeMap::new();
    let comparisons = |instance: &instances::Instance| match &instance.typed.params {
        StageParams::Compare(params) => Some((params.family.clone(), params.claims.len())),
        _ => None,
    };
    for (family, claims) in instances.iter().filter_map(comparisons).filter(|(_, claims)| *claims > 0) {
        *families.entry(family).or_default() += claims;
    }
    for instance in instances {
        if let StageParams::Compare(params) = &mut instance.typed.params {
            let in_family = families.get(&params.family).copied().unwrap_or_default();
            params.claims_in_family = if params.claims.is_empty() { 0 } else { in_family };
            params.has_other_families = !params.claims.is_empty() && families.len() > 1;
        }
    }
}

/// Decodes the text of a file. On failure, returns a message and a hint.
fn decode(bytes: &[u8]) -> Result<&str, (String, Option<String>)> {
    if bytes.len() > reader::MAX_BYTES {
        let message = format!(
            "the file is larger than {} MiB, the limit for a pipeline file (line {})",
            reader::MAX_BYTES >> 20,
            line_of(bytes, reader::MAX_BYTES)
        );
        return Err((message, Some("merge stages that differ in a few values into one stage with a `matrix`".into())));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(("the file is encoded as UTF-16".to_string(), Some("save the file as UTF-8".to_string())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_of(bytes, error.valid_up_to());
        (format!("line {line} is not valid UTF-8"), Some("save the file as UTF-8".to_string()))
    })?;
    Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text))
}

/// Returns the line number of the byte at `offset`, counted from 1.
fn line_of(bytes: &[u8], offset: usize) -> usize {
    bytes[..offset].iter().filter(|&&b| b == b'\n').count() + 1
}

/// Parses the file and applies the flags.
fn tree(sources: &[SourceText], errors: &mut Errors) -> Option<Node> {
    let mut root = reader::read(sources[0].text(), reader::Location { source: 0, offset: 0 }, errors)?;
    if root.is_null() || root.as_mapping().is_none() {
        return Some(root);
    }
    aliases::rename_keys(&mut root, errors);
    for (index, flag) in sources.iter().enumerate().skip(1) {
        flags::apply(&mut root, flag.text(), index as u32, errors);
    }
    // Again, for mappings that flags set.
    aliases::rename_keys(&mut root, errors);
    Some(root)
}

/// The sources of a pipeline and its draft.
#[derive(Debug, Default)]
pub(super) struct Source {
    texts: Arc<[SourceText]>,
    draft: Draft,
}

impl Source {
    pub(super) fn resolved(&self) -> String {
        resolved_yaml::to_yaml(&self.draft).expect("the draft consists of YAML values")
    }

    /// Returns where a parameter of a stage is set; see [`Pipeline::position`].
    pub(super) fn position(&self, stage: &Stage, path: &str) -> Option<Position> {
        let (base, variant) = stage.origin;
        let span = match path {
            "" => self.draft.stages.get(base)?.key,
            _ => self.draft.parameter(base, variant, path)?.0,
        };
        position(&self.texts, span)
    }
}
