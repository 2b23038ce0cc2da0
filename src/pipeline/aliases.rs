//! Older spellings of keys and values in pipeline files. They are accepted, and hash to the same stage keys as the
//! current ones: preimages contain the older spelling.

use std::borrow::Cow;

use serde_yaml::Value as Yaml;

use super::diagnostics::{Diagnostic, Errors};
use super::tree::Node;
use crate::config::StageKind;
use crate::config::metrics::VAL_LOSS_FIELD;

/// The path of a parameter in its stage, and the older and the current spelling of one of its values.
const VALUES: [(&str, &str, &str); 3] = [
    ("model.attention.kind", "seed", "sagan"),
    ("model.attention.matches", "seed", "sagan"),
    ("model.time_embedding", "seed", "bottleneck_mlp"),
];

/// A parameter with an older name.
struct Renamed {
    kind: StageKind,
    /// The path of the mapping that contains it.
    outer: &'static str,
    older: &'static str,
    current: &'static str,
}

const RENAMED: [Renamed; 2] = [
    Renamed { kind: StageKind::Train, outer: "", older: "heldout", current: "validation" },
    Renamed { kind: StageKind::Train, outer: "optim", older: "accumulate", current: "micro_batches" },
];

impl Renamed {
    fn of(kind: StageKind) -> impl Iterator<Item = &'static Self> {
        RENAMED.iter().filter(move |renamed| renamed.kind == kind)
    }

    fn path(&self, key: &str) -> String {
        if self.outer.is_empty() { key.to_string() } else { format!("{}.{key}", self.outer) }
    }
}

/// Whether `text` is an older spelling of a value of the parameter at `path`.
pub(super) fn is_older_spelling(path: &str, text: &str) -> bool {
    let is_endpoint = path.starts_with("claims.") && path.ends_with(".endpoint");
    current_value(path, text) != text || (is_endpoint && text == VAL_LOSS_FIELD)
}

/// Returns the current spelling of a value of the parameter at `path`.
pub fn current_value<'a>(path: &str, value: &'a str) -> &'a str {
    VALUES.iter().find(|(at, older, _)| *at == path && *older == value).map_or(value, |(.., current)| current)
}

/// Returns the current name of a key in the mapping at the path `outer` of a stage.
pub(super) fn current_key<'a>(kind: StageKind, outer: &str, key: &'a str) -> &'a str {
    Renamed::of(kind).find(|renamed| renamed.outer == outer && renamed.older == key).map_or(key, |r| r.current)
}

/// Returns the path of a parameter with the current names of its keys.
pub fn current_path(kind: StageKind, path: &str) -> Cow<'_, str> {
    replaced(path, Renamed::of(kind).map(|renamed| (renamed.path(renamed.older), renamed.path(renamed.current))))
}

/// Returns the path of a parameter with the older names of its keys, as in preimages.
pub fn older_path(kind: StageKind, path: &str) -> Cow<'_, str> {
    replaced(path, Renamed::of(kind).map(|renamed| (renamed.path(renamed.current), renamed.path(renamed.older))))
}

fn replaced(path: &str, names: impl Iterator<Item = (String, String)>) -> Cow<'_, str> {
    for (from, to) in names {
        if let Some(rest) = path.strip_prefix(from.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('.')) {
            return (to + rest).into();
        }
    }
    path.into()
}

/// Renames the keys with older names in `defaults` and in all stages of a pipeline.
pub(super) fn rename_keys(root: &mut Node, errors: &mut Errors) {
    let Some(top) = root.as_mapping_mut() else { return };
    for (name, entry) in top.get_mut("defaults").and_then(|entry| entry.node.as_mapping_mut()).into_iter().flatten() {
        if let Some(kind) = kind_named(name) {
            rename_keys_of_stage(kind, &mut entry.node, errors);
        }
    }
    for (_, entry) in top.get_mut("stages").and_then(|entry| entry.node.as_mapping_mut()).into_iter().flatten() {
        if let Some(kind) = kind_of(&entry.node) {
            rename_keys_of_stage(kind, &mut entry.node, errors);
        }
    }
}

/// Returns the kind of a stage, if it is valid.
pub(super) fn kind_of(stage: &Node) -> Option<StageKind> {
    kind_named(stage.entry(["kind"])?.node.as_text()?)
}

pub(super) fn kind_named(name: &str) -> Option<StageKind> {
    StageKind::ALL.into_iter().find(|kind| kind.name() == name)
}

/// Renames the keys with older names in the parameters of a stage, except in its matrix: names of instances keep the
/// spelling.
pub(super) fn rename_keys_of_stage(kind: StageKind, stage: &mut Node, errors: &mut Errors) {
    for renamed in Renamed::of(kind) {
        let Some(outer) = inner_node(stage, renamed.outer) else { continue };
        let Some(mapping) = outer.as_mapping_mut() else { continue };
        let Some((index, _, older)) = mapping.get_full(renamed.older) else { continue };
        if let Some(current) = mapping.get(renamed.current) {
            let [older_path, current_path] = [renamed.older, renamed.current].map(|key| renamed.path(key));
            let message = format!("`{older_path}` is an older name for `{current_path}`, which is also set");
            errors.push(Diagnostic::new(older.key, message).related(current.key, "the same parameter"));
            mapping.shift_remove(renamed.older);
        } else if let Some((_, entry)) = mapping.shift_remove_index(index) {
            mapping.shift_insert(index, renamed.current.to_string(), entry);
        }
    }
}

fn inner_node<'a>(node: &'a mut Node, path: &str) -> Option<&'a mut Node> {
    let keys = path.split('.').filter(|key| !key.is_empty());
    keys.into_iter().try_fold(node, |node, key| Some(&mut node.as_mapping_mut()?.get_mut(key)?.node))
}

/// As `rename_keys_of_stage`, for parameters as YAML.
pub fn rename_yaml_keys(kind: StageKind, params: &mut Yaml) {
    for renamed in Renamed::of(kind) {
        let mut keys = renamed.outer.split('.').filter(|key| !key.is_empty());
        let outer = keys.try_fold(&mut *params, |yaml, key| yaml.get_mut(key));
        if let Some(mapping) = outer.and_then(Yaml::as_mapping_mut) {
            let rename = |key: Yaml| if key == renamed.older { renamed.current.into() } else { key };
            *mapping = std::mem::take(mapping).into_iter().map(|(key, value)| (rename(key), value)).collect();
        }
    }
}

/// Renames keys in the default values of a schema, which are serialised with the older names.
pub(super) fn rename_in_schema_defaults(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(members) => {
            if let Some(default) = members.get_mut("default").and_then(serde_json::Value::as_object_mut) {
                for Renamed { older, current, .. } in RENAMED {
                    default.remove(older).map(|value| default.insert(current.to_string(), value));
                }
            }
            members.values_mut().for_each(rename_in_schema_defaults);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(rename_in_schema_defaults),
        _ => {}
    }
}
