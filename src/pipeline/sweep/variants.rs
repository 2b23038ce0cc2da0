//! The variants of a stage: the combinations of the matrices that apply to it, with typed parameters.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::aliases;
use super::super::diagnostics::{Diagnostic, Errors, Span};
use super::super::schema;
use super::super::text::quote;
use super::super::tree::{Entry, Mapping, Node, Value};
use super::matrix::too_many;
use super::names::value_label;
use super::{Axis, Combination, MAX_INSTANCES, Matrix, SEED, Scope, overlap};
use crate::config::CommonParams;
use crate::config::command::has_seed;
use crate::config::{Resources, Retry, Site, StageKind, StageParams};

/// The axes of all matrices, and the matrices that are shared by several stages.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Sweeps {
    pub axes: Vec<Axis>,
    pub pipeline: Option<Matrix>,
    pub kinds: BTreeMap<StageKind, Matrix>,
    /// The axes that apply to at least one stage.
    used: BTreeSet<usize>,
    /// The weight of the `defaults` of each kind.
    pub defaults: BTreeMap<StageKind, u64>,
    /// The total weight of the defaults in all stages that they were merged into.
    pub merged: u64,
    /// The memory that the parameters of all variants take, in bytes.
    pub weight: u64,
}

/// The matrices that apply to a stage.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Applied {
    /// The stage's own matrix.
    pub own: Option<Matrix>,
    /// The combinations of its kind's matrix and of the pipeline's, without the parameters that the stage sets.
    shared: Vec<Vec<Combination>>,
    /// The axes of all these matrices.
    pub axes: Vec<usize>,
}

impl Applied {
    /// Returns the number of variants that they create of a stage.
    pub fn count(&self) -> u64 {
        let own = self.own.as_ref().map_or(1, |own| own.combinations.len() as u64);
        self.shared.iter().fold(own, |count, shared| count.saturating_mul(shared.len() as u64))
    }
}

/// A combination of axis values and the resulting parameters.
#[derive(Debug, Clone)]
pub(in super::super) struct Variant {
    pub combination: Combination,
    /// Invalid parameters have their default values here; None if one has no default.
    pub typed: Option<Typed>,
    /// Whether a parameter is invalid.
    pub in_error: bool,
}

/// The parameters of a stage, including those that all kinds have.
#[derive(Debug, Clone)]
pub(in super::super) struct Typed {
    pub params: StageParams,
    pub resources: Resources,
    pub site: Site,
    pub retry: Retry,
}

impl Sweeps {
    /// Returns the matrices that apply to a stage of `kind`. `own` is its own matrix, `given` are the parameters that
    /// the stage sets itself, and `merged` are these merged with the defaults.
    pub(in crate::pipeline) fn applied(
        &mut self,
        kind: StageKind,
        own: Option<Matrix>,
        given: &Node,
        merged: &Mapping,
    ) -> Applied {
        let mut axes: Vec<usize> = own.iter().flat_map(|matrix| matrix.axes.iter().copied()).collect();
        let mut shared = vec![];
        if let Some(matrix) = self.kinds.get(&kind) {
            let open = |axis: &Axis, own: &[usize]| {
                given.entry_at(&axis.parameter).is_none()
                    && !own.iter().any(|&o| overlap(&self.axes[o].parameter, &axis.parameter))
            };
            let open: Vec<usize> = matrix.axes.iter().copied().filter(|&a| open(&self.axes[a], &axes)).collect();
            shared.push(only(&matrix.combinations, &open));
            axes.extend(open);
        }
        let has_seed = match kind {
            // A command that does not use `{seed}` gives the same result for every seed.
            StageKind::Command => {
                let given = merged.values().map(|entry| &entry.node);
                let swept = axes.iter().flat_map(|&axis| &self.axes[axis].values).map(|value| &value.node);
                given.chain(swept).any(has_seed_below)
            }
            _ => schema::of(kind)["properties"][SEED].is_object(),
        };
        let is_open = merged.get(SEED).is_none_or(|entry| entry.node.is_null());
        if let Some(matrix) = &self.pipeline
            && has_seed
            && is_open
            && !axes.iter().any(|&axis| self.axes[axis].path == SEED)
        {
            shared.push(matrix.combinations.clone());
            axes.extend(&matrix.axes);
        }
        self.used.extend(&axes);
        Applied { own, shared, axes }
    }

    /// Reports shared axes that apply to no stage.
    pub(in crate::pipeline) fn check_use(&self, errors: &mut Errors) {
        let shared = self.kinds.values().chain(&self.pipeline).flat_map(|matrix| &matrix.axes);
        for axis in shared.filter(|axis| !self.used.contains(axis)).map(|&axis| &self.axes[axis]) {
            let (message, help) = match &axis.scope {
                Scope::Kind(kind) => (
                    format!("the axis {} applies to no {} stage", quote(&axis.path), kind.name()),
                    "a stage that sets the parameter itself ignores axes in `defaults`; put the axis into the stage",
                ),
                _ => (
                    format!("the axis {} applies to no stage", quote(&axis.path)),
                    "a stage that sets `seed` itself ignores the axis at the top level; put the axis into the stage",
                ),
            };
            errors.push(Diagnostic::new(axis.key, message).help(help));
        }
    }
}

/// Projects the combinations to these axes and removes duplicates.
fn only(combinations: &[Combination], axes: &[usize]) -> Vec<Combination> {
    let mut seen = HashSet::new();
    let projected = combinations.iter().map(|c| c.iter().copied().filter(|(axis, _)| axes.contains(axis)).collect());
    projected.filter(|c: &Combination| seen.insert(c.clone())).collect()
}

/// Returns the variants of a stage. `node` contains its parameters, merged with the defaults but without axis values.
/// Each variant is validated as if it were written in the file. Calls `see` with the parameters of each variant.
pub(in super::super) fn variants(
    kind: StageKind,
    (name, key): (&str, Span),
    node: &Node,
    applied: &Applied,
    axes: &mut [Axis],
    errors: &mut Errors,
    mut see: impl FnMut(&Node),
) -> Vec<Variant> {
    let mut combinations = applied.own.as_ref().map_or_else(|| vec![vec![]], |own| own.combinations.clone());
    for shared in &applied.shared {
        let count = combinations.len() as u128 * shared.len() as u128;
        if count > MAX_INSTANCES as u128 {
            errors.push(too_many(key, &format!("stage {} has", quote(name)), count));
            return vec![];
        }
        let longer = |c: Combination| shared.iter().map(move |s| [&c[..], s].concat());
        combinations = combinations.into_iter().flat_map(longer).collect();
    }
    let mut variants = Vec::with_capacity(combinations.len());
    for combination in combinations {
        if errors.is_full() {
            break;
        }
        let mut node = node.clone();
        for &(axis, _) in &combination {
            node.remove_exclusive(&axes[axis].parameter);
        }
        for &(axis, value) in &combination {
            let Axis { parameter, key, values, .. } = &axes[axis];
            // If the path does not exist, validation reports it.
            node.assign(parameter, *key, values[value].node.clone());
        }
        let mut found = Errors::default();
        aliases::rename_keys_of_stage(kind, &mut node, &mut found);
        schema::validate_stage(kind, name, key, &mut node, &mut found);
        let in_error = !found.is_empty();
        let typed = match in_error {
            false => self::typed(kind, (name, key), &node).map_err(|error| found.push(error)).ok(),
            // The valid parameters can still be checked against other stages.
            true => self::typed(kind, (name, key), &without(&node, &found.spans().collect())).ok(),
        };
        for &(axis, value) in &combination {
            let Axis { parameter, values, .. } = &mut axes[axis];
            if values[value].label.is_empty() {
                let written = &values[value].node;
                // Labels of mappings contain their keys as written.
                let valid = match written.as_mapping() {
                    Some(_) => written,
                    None => node.entry_at(parameter).map_or(written, |entry| &entry.node),
                };
                values[value].label = value_label(valid);
            }
        }
        see(&node);
        errors.append(found);
        variants.push(Variant { combination, typed, in_error });
    }
    variants
}

/// Returns the parameters without those at these spans.
fn without(node: &Node, spans: &HashSet<Span>) -> Node {
    let is_invalid = |node: &Node| match &node.value {
        Value::List(items) => items.iter().any(|item| spans.contains(&item.span)),
        _ => false,
    } || spans.contains(&node.span);
    let Some(mapping) = node.as_mapping() else { return node.clone() };
    let valid = mapping.iter().filter(|(_, entry)| !spans.contains(&entry.key) && !is_invalid(&entry.node));
    let entry = |entry: &Entry| Entry { key: entry.key, node: without(&entry.node, spans) };
    Node { value: Value::Mapping(valid.map(|(key, e)| (key.clone(), entry(e))).collect()), span: node.span }
}

/// Converts an error that the schema does not find.
fn type_error(key: Span, name: &str, error: &serde_yaml::Error) -> Diagnostic {
    Diagnostic::new(key, format!("stage {}: {}", quote(name), error.to_string().replace(char::is_control, " ")))
}

/// Converts the parameters to their types.
fn typed(kind: StageKind, (name, key): (&str, Span), node: &Node) -> Result<Typed, Diagnostic> {
    let (params, common) = read(kind, node).map_err(|error| type_error(key, name, &error))?;
    let (resources, site) = common.resources.resolve().map_err(|(field, expected)| {
        let entry = node.entry(["resources", field]);
        let span = entry.map_or(key, |entry| entry.node.span);
        let found = entry.map_or(String::new(), |entry| format!(", found {}", entry.node.describe()));
        Diagnostic::new(span, format!("`resources.{field}` must be {expected}{found}"))
    })?;
    Ok(Typed { params, resources, site, retry: common.retry.into() })
}

fn read(kind: StageKind, node: &Node) -> Result<(StageParams, CommonParams), serde_yaml::Error> {
    let mut own = node.to_yaml();
    let mut common = serde_yaml::Mapping::new();
    if let Some(own) = own.as_mapping_mut() {
        for name in CommonParams::NAMES {
            common.extend(own.shift_remove(name).filter(|v| !v.is_null()).map(|value| (name.into(), value)));
        }
    }
    let mut params = StageParams::from_yaml(kind, own)?;
    params.normalize();
    Ok((params, serde_yaml::from_value(common.into())?))
}

impl Node {
    /// Sets the value at a dotted path in this mapping and creates missing mappings. Does nothing if the path leads
    /// through another kind of value.
    fn assign(&mut self, path: &str, key: Span, value: Node) {
        if self.is_null() {
            self.value = Value::Mapping(Mapping::new());
        }
        let span = self.span;
        let Some(mapping) = self.as_mapping_mut() else { return };
        // Keys may contain dots; the longest existing key wins.
        let dots = path.rmatch_indices('.').map(|(dot, _)| dot).filter(|&dot| mapping.contains_key(&path[..dot]));
        let dot = dots.max().or(path.find('.')).filter(|_| !mapping.contains_key(path));
        match dot {
            None => {
                mapping.insert(path.to_string(), Entry { key, node: value });
            }
            Some(dot) => {
                let missing = || Entry { key, node: Node::null(span) };
                let inner = mapping.entry(path[..dot].to_string()).or_insert_with(missing);
                inner.node.assign(&path[dot + 1..], key, value);
            }
        }
    }

    /// Removes parameters that a swept one excludes, such as `optim.epochs` if `optim.steps` is swept.
    fn remove_exclusive(&mut self, path: &str) {
        let (outer, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut node = self;
        for key in outer.split('.').filter(|key| !key.is_empty()) {
            let Some(inner) = node.as_mapping_mut().and_then(|mapping| mapping.get_mut(key)) else { return };
            node = &mut inner.node;
        }
        if let Some(mapping) = node.as_mapping_mut() {
            for &other in schema::exclusive_with(last) {
                mapping.shift_remove(other);
            }
        }
    }
}

/// Whether a value contains the placeholder `{seed}`.
fn has_seed_below(node: &Node) -> bool {
    match &node.value {
        Value::Text(text) => has_seed(text),
        Value::List(items) => items.iter().any(has_seed_below),
        Value::Mapping(mapping) => mapping.values().any(|entry| has_seed_below(&entry.node)),
        Value::Null | Value::Bool(_) | Value::Number { .. } => false,
    }
}
