//! Writes the resolved pipeline as YAML, which is stored with each run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value as Yaml};

use super::aliases;
use super::draft::{Draft, StageDraft};
use super::sweep::{Axis, Matrix};
use crate::config::redact_value;

/// Returns the pipeline as YAML with defaults and flags filled in. Parsing it gives the same pipeline.
pub(super) fn to_yaml(draft: &Draft) -> Result<String, serde_yaml::Error> {
    let axes = &draft.sweeps.axes;
    let mut root = Mapping::new();
    root.insert("name".into(), draft.name.as_str().into());
    if let Some(description) = &draft.description {
        root.insert("description".into(), description.as_str().into());
    }
    root.insert("seed".into(), draft.seed.into());
    root.insert("device".into(), draft.device.to_string().into());
    if let Some(executor) = draft.executor {
        root.insert("executor".into(), executor.name().into());
    }
    if let Some(matrix) = draft.sweeps.pipeline.as_ref().and_then(|matrix| written(matrix, axes)) {
        root.insert("matrix".into(), matrix);
    }
    let kinds = draft.sweeps.kinds.iter().filter_map(|(kind, matrix)| Some((kind, written(matrix, axes)?)));
    let defaults: Mapping = kinds
        .map(|(kind, matrix)| (kind.name().into(), Mapping::from_iter([("matrix".into(), matrix)]).into()))
        .collect();
    if !defaults.is_empty() {
        root.insert("defaults".into(), defaults.into());
    }
    let mut stages = Mapping::new();
    for stage in &draft.stages {
        stages.insert(stage.name.as_str().into(), stage_to_yaml(stage, axes)?);
    }
    root.insert("stages".into(), stages.into());
    let mut root = Yaml::Mapping(root);
    redact_all(&mut root);
    serde_yaml::to_string(&root)
}

/// Redacts secrets, because the file is stored with the run and shared with others.
fn redact_all(yaml: &mut Yaml) {
    match yaml {
        Yaml::String(text) => {
            if let Cow::Owned(redacted) = redact_value(text) {
                *text = redacted;
            }
        }
        Yaml::Sequence(items) => items.iter_mut().for_each(redact_all),
        Yaml::Mapping(mapping) => mapping.values_mut().for_each(redact_all),
        _ => {}
    }
}

fn stage_to_yaml(stage: &StageDraft, axes: &[Axis]) -> Result<Yaml, serde_yaml::Error> {
    let mut params = stage.node.to_yaml();
    // Leave out defaults that depend on a swept parameter: some exist for one dataset only.
    let mut common: Option<Yaml> = None;
    for params in stage.params() {
        let mut typed = serde_yaml::to_value(params)?;
        aliases::rename_yaml_keys(params.kind(), &mut typed);
        common = Some(match common {
            Some(common) => intersection(common, &typed),
            None => typed,
        });
    }
    fill(&mut params, common.unwrap_or_default());
    // Leave out swept parameters: a matrix in `defaults` does not apply to parameters that the stage sets.
    for &axis in &stage.applied.axes {
        remove(&mut params, &axes[axis].parameter);
    }
    let mut written = Mapping::new();
    if let Some(kind) = stage.kind {
        written.insert("kind".into(), kind.name().into());
    }
    if let Some(matrix) = stage.applied.own.as_ref().and_then(|matrix| self::written(matrix, axes)) {
        written.insert("matrix".into(), matrix);
    }
    written.extend(params.as_mapping().cloned().unwrap_or_default());
    Ok(written.into())
}

/// Returns a matrix as written, or as a list of its remaining combinations; None if there are none.
fn written(matrix: &Matrix, axes: &[Axis]) -> Option<Yaml> {
    if let Some(node) = &matrix.written {
        return Some(node.to_yaml());
    }
    let combination = |combination: &Vec<(usize, usize)>| -> Yaml {
        let value = |&(axis, value): &(usize, usize)| {
            let axis = &axes[axis];
            (axis.path.as_str().into(), axis.values[value].node.to_yaml())
        };
        combination.iter().map(value).collect::<Mapping>().into()
    };
    let remaining: Vec<Yaml> = matrix.combinations.iter().filter(|c| !c.is_empty()).map(combination).collect();
    (!remaining.is_empty()).then(|| Mapping::from_iter([("include".into(), Yaml::Sequence(remaining))]).into())
}

/// Returns the common part of two values, comparing mappings key by key.
fn intersection(a: Yaml, b: &Yaml) -> Yaml {
    match (a, b) {
        (Yaml::Mapping(a), Yaml::Mapping(b)) => {
            let both = a.into_iter().filter_map(|(key, a)| {
                let b = b.get(&key)?;
                let is_mapping = a.is_mapping() && b.is_mapping();
                (is_mapping || a == *b).then(|| (key, if is_mapping { intersection(a, b) } else { a }))
            });
            Yaml::Mapping(both.collect())
        }
        (a, b) if a == *b => a,
        _ => Yaml::Null,
    }
}

/// Adds the values of `typed` that are missing in `written`: the defaults.
fn fill(written: &mut Yaml, typed: Yaml) {
    if let (Yaml::Mapping(written), Yaml::Mapping(typed)) = (written, typed) {
        for (key, value) in typed {
            match written.get_mut(&key) {
                Some(inner) => fill(inner, value),
                None if value.is_null() => {}
                None => {
                    // Recurse to leave out null values inside.
                    let mut own = if value.is_mapping() { Mapping::new().into() } else { value.clone() };
                    fill(&mut own, value);
                    written.insert(key, own);
                }
            }
        }
    }
}

/// Removes the value at a dotted path.
fn remove(yaml: &mut Yaml, path: &str) {
    let Yaml::Mapping(mapping) = yaml else { return };
    if mapping.remove(path).is_none() {
        let dots: BTreeMap<usize, &str> = path.match_indices('.').map(|(dot, _)| (dot, &path[..dot])).collect();
        for (dot, key) in dots.into_iter().rev() {
            if let Some(inner) = mapping.get_mut(key) {
                return remove(inner, &path[dot + 1..]);
            }
        }
    }
}
