//! Reads a `matrix`: its axes, the combinations of their values without `exclude`, and those of `include`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::super::aliases;
use super::super::diagnostics::{Diagnostic, Errors, Span};
use super::super::schema;
use super::super::text::{did_you_mean, list, quote};
use super::super::tree::{Entry, Mapping, Node, Number, Value};
use super::{Axis, AxisValue, Combination, MAX_BYTES, MAX_INSTANCES, Scope, overlap};
use crate::config::StageKind;

/// The keys of a matrix that are not axes.
const EXCLUDE: &str = "exclude";
const INCLUDE: &str = "include";

/// The maximum number of axes of a matrix.
const MAX_AXES: usize = 100;
/// The maximum length of a parameter's path.
const MAX_PATH_BYTES: usize = 1000;
/// The maximum number of combinations times different sets of axes in `exclude`: each combination is looked up once per
/// set.
const MAX_LOOKUPS: usize = 10_000_000;

/// A parsed matrix.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Matrix {
    /// The matrix as written, with each value converted to its parameter's type, for the resolved pipeline. None if the
    /// command line sets one of its parameters, because the combinations then differ from the text.
    pub written: Option<Node>,
    /// The indices of its axes.
    pub(super) axes: Vec<usize>,
    /// Never empty: without axes, it contains one empty combination.
    pub combinations: Vec<Combination>,
}

/// Reads the matrix in `entry` and adds its axes to `all`. `kind` is the kind of the swept stages, if the file
/// specifies it. `siblings` are the parameters next to the matrix; the matrix does not sweep those that the command
/// line sets.
pub(in super::super) fn read(
    (scope, kind): (&Scope, Option<StageKind>),
    mut entry: Entry,
    siblings: &Mapping,
    all: &mut Vec<Axis>,
    errors: &mut Errors,
) -> Option<Matrix> {
    let (key, span, found) = (entry.key, entry.node.span, entry.node.describe());
    let is_null = entry.node.is_null();
    let Some(mapping) = entry.node.as_mapping_mut() else {
        if is_null {
            return None;
        }
        let message = format!("`matrix` must be a mapping of parameters to lists of values, found {found}");
        errors.push(Diagnostic::new(span, message).help("such as `matrix: { seed: [0, 1, 2] }`"));
        return None;
    };
    let mut reader = Reader { scope, kind, first: all.len(), all, index: vec![], errors };
    let before = reader.errors.len();
    for (path, axis) in mapping.iter_mut().filter(|(key, _)| !is_keyword(key)) {
        reader.axis(path, axis);
    }
    let listed = reader.all.len();
    let mut combinations = reader.product(key)?;
    let has_include = mapping.contains_key(INCLUDE);
    if let Some(exclude) = mapping.get_mut(EXCLUDE) {
        let excluded = reader.list(exclude, EXCLUDE, |reader, entry| reader.excluded(entry));
        let had_some = !combinations.is_empty();
        if let Err(error) = remove(&mut combinations, &excluded, exclude.key) {
            reader.errors.push(error);
        }
        if had_some && combinations.is_empty() && reader.errors.len() == before && !has_include {
            reader.errors.push(Diagnostic::new(exclude.key, "`exclude` removes every combination"));
        }
    }
    if listed == reader.first {
        // A matrix with only `include` has no combinations besides those.
        combinations.clear();
    }
    if let Some(include) = mapping.get_mut(INCLUDE) {
        let mut spans: Vec<Span> = vec![];
        let included = reader.list(include, INCLUDE, |reader, entry| {
            let combination = reader.included(entry)?;
            spans.push(entry.span);
            Some(combination)
        });
        let mut seen: HashSet<Combination> = combinations.iter().map(sorted).collect();
        for (combination, span) in included.into_iter().zip(spans) {
            match seen.insert(sorted(&combination)) {
                true => combinations.push(combination),
                false => reader.errors.push(Diagnostic::new(span, "this combination is already in the matrix")),
            }
        }
    }
    if reader.errors.len() > before {
        return None;
    }
    let axes: Vec<usize> = (reader.first..reader.all.len()).collect();
    if axes.is_empty() {
        reader.errors.push(Diagnostic::new(key, "`matrix` has no axes").help("such as `seed: [0, 1, 2]`"));
        return None;
    }
    Some(without_set(entry, siblings, axes, combinations, all))
}

/// Removes the combinations that match one of `excluded` on all its axes.
fn remove(combinations: &mut Vec<Combination>, excluded: &[Combination], key: Span) -> Result<(), Diagnostic> {
    let mut by_axes: HashMap<Vec<usize>, HashSet<Combination>> = HashMap::new();
    for combination in excluded.iter().map(sorted) {
        by_axes.entry(combination.iter().map(|&(axis, _)| axis).collect()).or_default().insert(combination);
    }
    if by_axes.len().saturating_mul(combinations.len()) > MAX_LOOKUPS {
        let message =
            format!("`exclude` uses {} different sets of axes, too many for a matrix of this size", by_axes.len());
        return Err(Diagnostic::new(key, message).help("list the combinations to run under `include` instead"));
    }
    // Axes are ordered, and each has one value in a combination.
    let on = |combination: &Combination, axes: &[usize]| -> Combination {
        axes.iter().filter_map(|axis| combination.iter().find(|pair| pair.0 == *axis).copied()).collect()
    };
    combinations.retain(|c| !by_axes.iter().any(|(axes, excluded)| excluded.contains(&on(c, axes))));
    Ok(())
}

fn is_keyword(key: &str) -> bool {
    key == EXCLUDE || key == INCLUDE
}

fn sorted(combination: &Combination) -> Combination {
    let mut sorted = combination.clone();
    sorted.sort_unstable();
    sorted
}

/// Removes the axes of the file whose parameters are set on the command line.
fn without_set(
    entry: Entry,
    siblings: &Mapping,
    axes: Vec<usize>,
    mut combinations: Vec<Combination>,
    all: &[Axis],
) -> Matrix {
    let parameters = Node { value: Value::Mapping(siblings.clone()), span: entry.key };
    let is_set = |axis: &usize| {
        let source = parameters.entry_at(&all[*axis].parameter).map_or(0, |e| e.key.source);
        source != 0 && all[*axis].key.source == 0
    };
    let (set, axes): (Vec<usize>, Vec<usize>) = axes.into_iter().partition(is_set);
    if set.is_empty() {
        return Matrix { written: Some(entry.node), axes, combinations };
    }
    let mut seen = HashSet::new();
    combinations.iter_mut().for_each(|c| c.retain(|(axis, _)| !set.contains(axis)));
    combinations.retain(|c| seen.insert(c.clone()));
    Matrix { written: None, axes, combinations }
}

struct Reader<'a> {
    scope: &'a Scope,
    /// The kind of the swept stages.
    kind: Option<StageKind>,
    /// The index of this matrix's first axis.
    first: usize,
    all: &'a mut Vec<Axis>,
    /// The index of each value by [`identity`], for each axis of this matrix.
    index: Vec<HashMap<String, usize>>,
    errors: &'a mut Errors,
}

impl Reader<'_> {
    fn axes(&self) -> &[Axis] {
        &self.all[self.first..]
    }

    fn current_path<'p>(&self, path: &'p str) -> Cow<'p, str> {
        self.kind.map_or(path.into(), |kind| aliases::current_path(kind, path))
    }

    fn axis(&mut self, path: &str, entry: &mut Entry) {
        let shown = quote(path);
        let values = match &mut entry.node.value {
            Value::List(values) if values.is_empty() => {
                self.errors.push(Diagnostic::new(entry.node.span, format!("axis {shown} has no values")));
                return;
            }
            Value::List(values) => values,
            _ => {
                let message = format!("axis {shown} must be a list of values, found {}", entry.node.describe());
                let help = match entry.node.as_mapping().and_then(|inner| inner.keys().next()) {
                    Some(key) => {
                        format!("give the full path of the parameter: {}", quote(&format!("{path}.{key}")))
                    }
                    None => format!("such as {}", quote(&format!("{path}: [a, b]"))),
                };
                self.errors.push(Diagnostic::new(entry.node.span, message).help(help));
                return;
            }
        };
        if let Err(error) = self.new_axis(path, entry.key) {
            self.errors.push(error);
            return;
        }
        self.type_values(path, values.iter_mut());
        let axis = self.all.len() - 1;
        for value in values {
            if let (existing, false) = self.value(axis, value) {
                let first = &self.all[axis].values[existing].node;
                let message = match (&first.value, &value.value) {
                    (Value::Number { text: a, .. }, Value::Number { text: b, .. }) if a != b => {
                        format!("axis {shown} has {} and {}, which are the same number", quote(a), quote(b))
                    }
                    _ => format!("axis {shown} lists {} twice", value.describe()),
                };
                self.errors.push(Diagnostic::new(value.span, message).related(first.span, "first listed here"));
            }
        }
    }

    /// Converts values to the type of their parameter, if the stage kind is known.
    fn type_values<'n>(&self, path: &str, values: impl IntoIterator<Item = &'n mut Node>) {
        if let Some(kind) = self.kind {
            schema::type_values(kind, &self.current_path(path), values);
        }
    }

    /// Returns the index of a value on an axis, adding the value if it is new, and whether it was new.
    fn value(&mut self, axis: usize, node: &Node) -> (usize, bool) {
        let values = &mut self.all[axis].values;
        match self.index[axis - self.first].entry(identity(node)) {
            std::collections::hash_map::Entry::Occupied(existing) => (*existing.get(), false),
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(values.len());
                values.push(AxisValue { node: node.clone(), label: String::new() });
                (values.len() - 1, true)
            }
        }
    }

    /// Adds an axis to this matrix.
    fn new_axis(&mut self, path: &str, key: Span) -> Result<(), Diagnostic> {
        let error = |message: String| Err(Diagnostic::new(key, message));
        if self.all.len() - self.first >= MAX_AXES {
            return error(format!("a matrix may have at most {MAX_AXES} axes"));
        }
        if path.len() > MAX_PATH_BYTES {
            return error(format!("the path of a parameter may have at most {MAX_PATH_BYTES} characters"));
        }
        if overlap(path, "kind") || overlap(path, "matrix") || path.split('.').any(str::is_empty) {
            return error(format!("{} cannot be swept", quote(path)));
        }
        if *self.scope == Scope::Pipeline && path != super::SEED {
            return Err(Diagnostic::new(key, format!("{} cannot be swept here", quote(path)))
                .help("at the top level only `seed` can be swept; put other axes in a stage or in `defaults`"));
        }
        let parameter = self.current_path(path).into_owned();
        if let Some(other) = self.axes().iter().find(|axis| overlap(&axis.parameter, &parameter)) {
            return Err(Diagnostic::new(key, format!("axes {} and {} overlap", quote(&other.path), quote(path)))
                .related(other.key, "the other axis"));
        }
        self.all.push(Axis { scope: self.scope.clone(), path: path.to_string(), parameter, key, values: vec![] });
        self.index.push(HashMap::new());
        Ok(())
    }

    /// Returns every combination of the axes' values; the first axis varies slowest.
    fn product(&mut self, key: Span) -> Option<Vec<Combination>> {
        let count = self.axes().iter().fold(1u128, |n, axis| n.saturating_mul(axis.values.len() as u128));
        if count > MAX_INSTANCES as u128 {
            self.errors.push(too_many(key, "this matrix creates", count));
            return None;
        }
        let mut combinations = vec![vec![]];
        for (index, axis) in self.all.iter().enumerate().skip(self.first) {
            let longer = |c: Combination| {
                (0..axis.values.len()).map(move |value| c.iter().copied().chain([(index, value)]).collect())
            };
            combinations = combinations.into_iter().flat_map(longer).collect();
        }
        Some(combinations)
    }

    /// Reads the combinations in the list of `keyword`, which is `exclude` or `include`.
    fn list(
        &mut self,
        entry: &mut Entry,
        keyword: &str,
        mut one: impl FnMut(&mut Self, &mut Node) -> Option<Combination>,
    ) -> Vec<Combination> {
        let (span, found) = (entry.node.span, entry.node.describe());
        let Value::List(items) = &mut entry.node.value else {
            let message = format!("`{keyword}` must be a list of combinations, found {found}");
            self.errors.push(Diagnostic::new(span, message).help(format!("such as `{keyword}: [{{ seed: 0 }}]`")));
            return vec![];
        };
        let mut combinations = vec![];
        for item in items {
            match item.as_mapping() {
                _ if self.errors.is_full() => break,
                Some(mapping) if !mapping.is_empty() => combinations.extend(one(self, item)),
                _ => {
                    let message = format!(
                        "an entry of `{keyword}` must be a mapping of axes to values, found {}",
                        item.describe()
                    );
                    self.errors.push(Diagnostic::new(item.span, message).help("such as `{ seed: 0 }`"));
                }
            }
        }
        combinations
    }

    /// Reads a combination of `exclude`.
    fn excluded(&mut self, item: &mut Node) -> Option<Combination> {
        let mut combination = vec![];
        for (key, entry) in item.as_mapping_mut()? {
            let Some(axis) = self.find(key) else {
                let paths: Vec<&str> = self.axes().iter().map(|axis| axis.path.as_str()).collect();
                let help = did_you_mean(key, paths.iter().copied()).unwrap_or_else(|| match paths.is_empty() {
                    true => "this matrix has no axes".to_string(),
                    false => format!("its axes: {}", list(&paths)),
                });
                let message = format!("`exclude` refers to {}, but this matrix has no such axis", quote(key));
                self.errors.push(Diagnostic::new(entry.key, message).help(help));
                return None;
            };
            self.type_values(&self.all[axis].path, [&mut entry.node]);
            let Some(&value) = self.index[axis - self.first].get(&identity(&entry.node)) else {
                let values: Vec<String> = self.all[axis].values.iter().take(13).map(|v| v.node.describe()).collect();
                let message = format!(
                    "`exclude` refers to {}, which is not a value of axis {}",
                    entry.node.describe(),
                    quote(&self.all[axis].path)
                );
                let mut shown = values[..values.len().min(12)].join(", ");
                if values.len() > 12 {
                    shown.push_str(", …");
                }
                self.errors.push(Diagnostic::new(entry.node.span, message).help(format!("its values: {shown}")));
                return None;
            };
            combination.push((axis, value));
        }
        Some(combination)
    }

    /// Reads a combination of `include`. Parameters that are not axes yet become axes.
    fn included(&mut self, item: &mut Node) -> Option<Combination> {
        let mut combination = vec![];
        for (key, entry) in item.as_mapping_mut()? {
            let axis = match self.find(key) {
                Some(axis) => axis,
                None => match self.new_axis(key, entry.key) {
                    Ok(()) => self.all.len() - 1,
                    Err(error) => {
                        self.errors.push(error);
                        return None;
                    }
                },
            };
            self.type_values(&self.all[axis].path, [&mut entry.node]);
            let (value, _) = self.value(axis, &entry.node);
            combination.push((axis, value));
        }
        combination.sort_unstable();
        Some(combination)
    }

    /// Returns the axis with this path, or the only one whose path ends with it.
    fn find(&self, key: &str) -> Option<usize> {
        let ends_in_key = |path: &str| path.strip_suffix(key).is_some_and(|rest| rest.ends_with('.'));
        let ends = |axis: &&Axis| ends_in_key(&axis.path) || ends_in_key(&axis.parameter);
        let parameter = self.current_path(key);
        let exact = self.axes().iter().position(|axis| axis.parameter == parameter);
        let short = || {
            let mut ending = self.axes().iter().enumerate().filter(|(_, axis)| ends(axis));
            match (ending.next(), ending.next()) {
                (Some((only, _)), None) => Some(only),
                _ => None,
            }
        };
        exact.or_else(short).map(|index| self.first + index)
    }
}

/// The error for more instances than a pipeline may have.
pub(in super::super) fn too_many(span: Span, what: &str, count: u128) -> Diagnostic {
    let shown = if count == u128::MAX { format!("more than {count}") } else { count.to_string() };
    Diagnostic::new(span, format!("{what} {shown} instances; a pipeline may have at most {MAX_INSTANCES}"))
}

/// The error for parameters that take more memory than a pipeline may use.
pub(in super::super) fn too_large(span: Span, stage: &str) -> Diagnostic {
    let message =
        format!("with stage {}, the parameters of all instances take more than {} MiB", quote(stage), MAX_BYTES >> 20);
    Diagnostic::new(span, message).help("put long strings and lists into a file, such as a script in `files`")
}

/// Returns a string that is equal for equal parameter values, whatever their spelling.
fn identity(node: &Node) -> String {
    /// All integers below this are exact in f64.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match &node.value {
        Value::Null => "null".to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Number { number: Number::Integer(i), .. } => i.to_string(),
        Value::Number { number: Number::Real(x), .. } if x.fract() == 0.0 && x.abs() < EXACT => (*x as i64).to_string(),
        Value::Number { number: Number::Real(x), .. } => format!("{x:e}"),
        // Quoted, so that a string never equals another kind of value.
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => format!("[{}]", items.iter().map(identity).collect::<Vec<_>>().join(",")),
        Value::Mapping(mapping) => {
            let mut entries: Vec<String> =
                mapping.iter().map(|(key, entry)| format!("{key:?}:{}", identity(&entry.node))).collect();
            entries.sort_unstable();
            format!("{{{}}}", entries.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tree::plain_scalar;
    use super::*;

    fn of(value: Value) -> String {
        identity(&Node { value, span: Span { source: 0, start: 0, end: 0 } })
    }

    #[test]
    fn the_identity_of_a_value_ignores_its_spelling() {
        let plain = |text: &str| of(plain_scalar(text));
        for (a, b) in [("1", "1.0"), ("1000", "1e3"), ("0.1", "1e-1"), ("0x10", "16"), ("~", "null"), ("-0.0", "0")] {
            assert_eq!(plain(a), plain(b), "{a} {b}");
        }
        for (a, b) in [("1", "2"), ("1", "true"), ("null", "nul"), ("9007199254740993", "9007199254740992.0")] {
            assert_ne!(plain(a), plain(b), "{a} {b}");
        }
        assert_ne!(plain("1"), of(Value::Text("1".into())));
        assert_ne!(of(Value::Text("a\",\"b".into())), of(Value::Text("a".into())));
    }

    #[test]
    fn combinations_are_excluded_by_any_set_of_axes() {
        let nowhere = Span { source: 0, start: 0, end: 0 };
        let mut all: Vec<Combination> = (0..3).flat_map(|a| (0..3).map(move |b| vec![(7, a), (8, b)])).collect();
        remove(&mut all, &[vec![(8, 1)], vec![(8, 0), (7, 2)]], nowhere).unwrap();
        assert_eq!(all, [[(7, 0), (8, 0)], [(7, 0), (8, 2)], [(7, 1), (8, 0)], [(7, 1), (8, 2)], [(7, 2), (8, 2)]]);
    }
}
