//! Builds a draft from the tree: validates the top level, merges `defaults`, and validates every stage.

use super::diagnostics::{Diagnostic, Errors, Span};
use super::draft::{Draft, KEYS, StageDraft};
use super::references;
use super::schema;
use super::sweep::{self, Applied, Scope, Sweeps};
use super::text::{alternatives, did_you_mean, is_invisible, list, odd_character, quote};
use super::tree::{Mapping, Node, Number, Value};
use crate::config::names::{pipeline_name_error, stage_name_error};
use crate::config::{Device, ExecutorKind, StageKind};

/// The YAML key of a matrix, which is valid at the top level, in `defaults.KIND` and in a stage.
const MATRIX: &str = "matrix";

/// Builds the draft. Returns None if the top level is not a mapping or has no `stages`.
pub(super) fn resolve(mut root: Node, errors: &mut Errors) -> Option<Draft> {
    let start = Span { end: root.span.start, ..root.span };
    let Some(top) = root.as_mapping_mut() else {
        let message = if root.is_null() { "the file is empty" } else { "a pipeline must be a mapping" };
        errors.push(Diagnostic::new(root.span, message).help("a pipeline needs `name` and `stages`"));
        return None;
    };
    for (key, entry) in top.iter() {
        if !KEYS.contains(&key.as_str()) {
            let help = odd_character(key).or_else(|| did_you_mean(key, KEYS)).unwrap_or_else(|| match key.as_str() {
                key if StageKind::ALL.iter().any(|k| k.name() == key) => {
                    "stages belong under `stages`; set the kind with `kind`".to_string()
                }
                // In docker-compose files, such keys define anchors.
                key if key.starts_with(['x', '.']) && key[1..].starts_with(|c: char| !c.is_ascii_alphanumeric()) => {
                    "put shared parameters under `defaults`, such as `defaults: { train: { … } }`, and define anchors where \
                     a value is first used"
                        .to_string()
                }
                _ => format!("valid keys: {}", list(&KEYS)),
            });
            errors.push(Diagnostic::new(entry.key, format!("unknown key {}", quote(key))).help(help));
        }
    }
    let mut require = |key: &str, errors: &mut Errors| {
        let entry = top.shift_remove(key);
        if entry.is_none() {
            errors.push(Diagnostic::new(start, format!("the pipeline needs `{key}`")));
        }
        entry
    };
    let name = require("name", errors).and_then(|entry| pipeline_name(&entry.node, errors));
    let stages = require("stages", errors);
    let mut sweeps = Sweeps::default();
    if let Some(entry) = top.shift_remove(MATRIX) {
        // Only seeds can be swept at the top level, and seeds have the same type in all kinds.
        let scope = (&Scope::Pipeline, Some(StageKind::Train));
        sweeps.pipeline = sweep::read(scope, entry, top, &mut sweeps.axes, errors);
    }
    let description = top.shift_remove("description").and_then(|entry| description(&entry.node, errors));
    let seed = top.shift_remove("seed").map_or(Some(0), |entry| seed(&entry.node, errors));
    let device = top.shift_remove("device").map_or(Some(Device::Auto), |entry| device(&entry.node, errors));
    let executor = top.shift_remove("executor").and_then(|entry| executor(&entry.node, errors));
    let mut defaults = top.shift_remove("defaults").map(|entry| entry.node);
    if let Some(defaults) = &mut defaults {
        check_defaults(defaults, &mut sweeps, errors);
    }
    let stages = drafts(stages?.node, defaults.as_ref(), &mut sweeps, errors);
    sweeps.check_use(errors);
    // Continue after errors in the top level, so that errors in references are reported too.
    Some(Draft {
        name: name.unwrap_or_default(),
        description,
        seed: seed.unwrap_or(0),
        device: device.unwrap_or_default(),
        executor,
        stages,
        sweeps,
    })
}

fn pipeline_name(node: &Node, errors: &mut Errors) -> Option<String> {
    let Some(name) = node.as_text() else {
        errors.push(Diagnostic::new(node.span, format!("`name` must be a string, found {}", node.describe())));
        return None;
    };
    if let Some(help) = pipeline_name_error(name).map(|why| odd_character(name).unwrap_or(why)) {
        errors.push(Diagnostic::new(node.span, format!("{} is not a valid pipeline name", quote(name))).help(help));
        return None;
    }
    Some(name.to_string())
}

fn description(node: &Node, errors: &mut Errors) -> Option<String> {
    if node.as_text().is_none() && !node.is_null() {
        let message = format!("`description` must be a string, found {}", node.describe());
        errors.push(Diagnostic::new(node.span, message));
    }
    // The description is printed to terminals, where control characters move the cursor.
    if node.as_text().is_some_and(|t| t.chars().any(|c| is_invisible(c) && c != '\n')) {
        errors.push(Diagnostic::new(node.span, "the description contains control characters"));
    }
    node.as_text().map(str::to_string)
}

fn seed(node: &Node, errors: &mut Errors) -> Option<u64> {
    let seed = match node.value {
        Value::Number { number: Number::Integer(i), .. } => u64::try_from(i).ok(),
        Value::Number { number: Number::Real(x), .. } if x.fract() == 0.0 && (0.0..=2f64.powi(53)).contains(&x) => {
            Some(x as u64)
        }
        _ => None,
    };
    if seed.is_none() {
        let message = format!("`seed` must be an integer from 0 to {}, found {}", u64::MAX, node.describe());
        errors.push(Diagnostic::new(node.span, message).maybe_help(schema::number_help(node)));
    }
    seed
}

fn device(node: &Node, errors: &mut Errors) -> Option<Device> {
    let text = node.as_text().unwrap_or_default();
    match text.parse() {
        Ok(device) => Some(device),
        Err(expected) => {
            let message = format!("`device` must be {expected}, found {}", node.describe());
            let help = match text {
                "gpu" | "GPU" => Some("did you mean `cuda`?".to_string()),
                _ => odd_character(text).or_else(|| did_you_mean(text, ["auto", "cpu", "cuda"])),
            };
            errors.push(Diagnostic::new(node.span, message).maybe_help(help));
            None
        }
    }
}

fn executor(node: &Node, errors: &mut Errors) -> Option<ExecutorKind> {
    let text = node.as_text().unwrap_or_default();
    text.parse()
        .inspect_err(|expected| {
            let message = format!("`executor` must be {expected}, found {}", node.describe());
            let help = odd_character(text).or_else(|| did_you_mean(text, ExecutorKind::names()));
            errors.push(Diagnostic::new(node.span, message).maybe_help(help));
        })
        .ok()
}

fn kind_names() -> [&'static str; StageKind::ALL.len()] {
    StageKind::ALL.map(StageKind::name)
}

fn check_defaults(defaults: &mut Node, sweeps: &mut Sweeps, errors: &mut Errors) {
    // `defaults:` with its content commented out.
    if defaults.is_null() {
        return;
    }
    let found = defaults.describe();
    let span = defaults.span;
    let Some(mapping) = defaults.as_mapping_mut() else {
        errors.push(Diagnostic::new(span, format!("`defaults` must be a mapping of stage kinds, found {found}")));
        return;
    };
    for (key, entry) in mapping.iter_mut() {
        match kind_names().iter().position(|k| k == key) {
            Some(kind) if !entry.node.is_null() => {
                let kind = StageKind::ALL[kind];
                if let Some(mapping) = entry.node.as_mapping_mut()
                    && let Some(matrix) = mapping.shift_remove(MATRIX)
                {
                    let read = sweep::read((&Scope::Kind(kind), Some(kind)), matrix, mapping, &mut sweeps.axes, errors);
                    sweeps.kinds.extend(read.map(|read| (kind, read)));
                }
                schema::validate_defaults(kind, &mut entry.node, errors);
            }
            Some(_) => {}
            None => {
                let help = odd_character(key)
                    .or_else(|| did_you_mean(key, kind_names()))
                    .unwrap_or_else(|| format!("valid stage kinds: {}", alternatives(&kind_names())));
                errors.push(Diagnostic::new(entry.key, format!("unknown stage kind {}", quote(key))).help(help));
            }
        }
    }
}

fn drafts(stages: Node, defaults: Option<&Node>, sweeps: &mut Sweeps, errors: &mut Errors) -> Vec<StageDraft> {
    let (span, found) = (stages.span, stages.describe());
    let Value::Mapping(stages) = stages.value else {
        let message = format!("`stages` must be a mapping of names to stages, found {found}");
        errors.push(Diagnostic::new(span, message).help("such as `pairs: { kind: degrade, input: photos }`"));
        return vec![];
    };
    if stages.is_empty() {
        errors.push(Diagnostic::new(span, "the pipeline has no stages"));
    }
    stages.into_iter().map(|(name, entry)| draft(name, entry.key, entry.node, defaults, sweeps, errors)).collect()
}

fn draft(
    name: String,
    key: Span,
    node: Node,
    defaults: Option<&Node>,
    sweeps: &mut Sweeps,
    errors: &mut Errors,
) -> StageDraft {
    if let Some(help) = stage_name_error(&name).map(|why| odd_character(&name).unwrap_or(why)) {
        errors.push(Diagnostic::new(key, format!("{} is not a valid stage name", quote(&name))).help(help));
    }
    let mut draft =
        StageDraft { name, key, kind: None, node, applied: Applied::default(), variants: vec![], references: vec![] };
    let (name, found) = (&draft.name, draft.node.describe());
    let Some(mapping) = draft.node.as_mapping_mut() else {
        let message = format!("stage {} must be a mapping, found {found}", quote(name));
        errors.push(Diagnostic::new(draft.node.span, message).help("such as `{ kind: degrade, input: photos }`"));
        return draft;
    };
    draft.kind = stage_kind(name, key, mapping, errors);
    let matrix = mapping.shift_remove(MATRIX);
    let scope = Scope::Stage(name.clone());
    let own = matrix.and_then(|entry| sweep::read((&scope, draft.kind), entry, mapping, &mut sweeps.axes, errors));
    let Some(kind) = draft.kind else { return draft };
    // Values in the resolved pipeline must have the type of their parameter.
    schema::type_stage(kind, &mut draft.node);
    let given = draft.node.clone();
    let defaults = defaults.and_then(|d| d.entry([kind.name()]));
    let weight = sweeps.defaults.entry(kind).or_insert_with(|| defaults.map_or(0, |entry| entry.node.weight()));
    // In the tree, a value takes more memory than as a parameter.
    let merged = sweeps.merged + 12 * *weight;
    if merged > sweep::MAX_BYTES {
        if sweeps.merged <= sweep::MAX_BYTES {
            errors.push(sweep::too_large(key, name));
        }
        sweeps.merged = merged;
        return draft;
    }
    sweeps.merged = merged;
    let Some(mapping) = draft.node.as_mapping_mut() else { return draft };
    if let Some(defaults) = defaults.and_then(|e| e.node.as_mapping()) {
        merge(mapping, defaults);
    }
    draft.applied = sweeps.applied(kind, own, &given, mapping);
    sweeps.weight = sweeps.weight.saturating_add(draft.node.weight().saturating_mul(draft.applied.count()));
    if draft.applied.count() <= sweep::MAX_INSTANCES as u64 && sweeps.weight > sweep::MAX_BYTES {
        errors.push(sweep::too_large(key, name));
        return draft;
    }
    let mut found = indexmap::IndexSet::new();
    let see = |node: &Node| found.extend(references::references(kind, node));
    let (node, applied) = (&draft.node, &draft.applied);
    draft.variants = sweep::variants(kind, (name, key), node, applied, &mut sweeps.axes, errors, see);
    draft.references = found.into_iter().collect();
    draft
}

fn stage_kind(name: &str, key: Span, mapping: &mut Mapping, errors: &mut Errors) -> Option<StageKind> {
    let kinds = alternatives(&kind_names());
    let Some(entry) = mapping.shift_remove("kind") else {
        let help = match mapping.keys().find(|k| kind_names().contains(&k.as_str())) {
            Some(k) => format!("did you mean `kind: {k}`?"),
            None => format!("one of {kinds}"),
        };
        errors.push(Diagnostic::new(key, format!("stage {} needs `kind`", quote(name))).help(help));
        return None;
    };
    let text = entry.node.as_text().unwrap_or_default();
    let kind = StageKind::ALL.into_iter().find(|k| k.name() == text);
    if kind.is_none() {
        let help = odd_character(text).or_else(|| did_you_mean(text, kind_names()));
        let message = format!("`kind` must be {kinds}, found {}", entry.node.describe());
        errors.push(Diagnostic::new(entry.node.span, message).maybe_help(help));
    }
    kind
}

/// Merges `defaults` into `mapping`: mappings key by key; for all else, the stage's own value wins.
fn merge(mapping: &mut Mapping, defaults: &Mapping) {
    // Of `steps`, `epochs` and `budget`, the stage's own wins. Check before adding anything.
    let own = |key: &str| mapping.get(key).is_some_and(|e| !e.node.is_null());
    let skipped: Vec<bool> =
        defaults.keys().map(|key| schema::exclusive_with(key).iter().any(|other| own(other))).collect();
    for ((key, default), skipped) in defaults.iter().zip(skipped) {
        match mapping.get_mut(key) {
            Some(entry) => {
                if let (Some(inner), Some(default)) = (entry.node.as_mapping_mut(), default.node.as_mapping()) {
                    merge(inner, default);
                }
            }
            None if skipped => {}
            None => {
                mapping.insert(key.clone(), default.clone());
            }
        }
    }
}
