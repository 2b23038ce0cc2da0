//! A `matrix` as it is written: axes, the combinations of their values, less `exclude`, and `include`.

use super::super::diagnostics::{Diagnostic, Errors, Span};
use super::super::tree::{Entry, Mapping, Node, Number, Value};
use super::super::words::{alternatives, did_you_mean, quote};
use super::{Axis, AxisValue, Combination, MAX_INSTANCES, Scope, overlap};

/// The keys of a matrix that are no axes.
const EXCLUDE: &str = "exclude";
const INCLUDE: &str = "include";

/// What a matrix asks for.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Matrix {
    /// As it is written, for the resolved pipeline; None where the command line has given one of its parameters a value,
    /// so that the combinations are no longer those of the text.
    pub written: Option<Node>,
    /// By index.
    pub axes: Vec<usize>,
    /// Never empty: without axes, one combination of nothing.
    pub combinations: Vec<Combination>,
}

/// Reads the matrix in `entry`, the axes of which are added to `all`. `siblings` are the parameters beside it: one that
/// the command line gives is no longer swept by the file.
pub(in super::super) fn read(
    scope: &Scope,
    entry: &Entry,
    siblings: &Mapping,
    all: &mut Vec<Axis>,
    errors: &mut Errors,
) -> Option<Matrix> {
    let found = entry.node.describe();
    let Some(mapping) = entry.node.as_mapping() else {
        if entry.node.is_null() {
            return None;
        }
        let message = format!("`matrix` must be a mapping of parameters to lists of values, found {found}");
        errors.push(Diagnostic::new(entry.node.span, message).help("such as `matrix: { seed: [0, 1, 2] }`"));
        return None;
    };
    let mut reader = Reader { scope, first: all.len(), all, errors };
    let before = reader.errors.len();
    for (path, axis) in mapping.iter().filter(|(key, _)| !is_word(key)) {
        reader.axis(path, axis);
    }
    let listed = reader.all.len();
    let mut combinations = reader.product(entry.key)?;
    if let Some(exclude) = mapping.get(EXCLUDE) {
        let excluded = reader.list(exclude, EXCLUDE, |reader, entry| reader.excluded(entry));
        let matches = |c: &Combination, e: &Combination| e.iter().all(|pair| c.contains(pair));
        let had_some = !combinations.is_empty();
        combinations.retain(|c| !excluded.iter().any(|e| matches(c, e)));
        if had_some && combinations.is_empty() && reader.errors.len() == before && !mapping.contains_key(INCLUDE) {
            reader.errors.push(Diagnostic::new(exclude.key, "every combination is excluded"));
        }
    }
    if listed == reader.first {
        // A matrix of `include` alone lists its combinations.
        combinations.clear();
    }
    if let Some(include) = mapping.get(INCLUDE) {
        let mut spans: Vec<Span> = vec![];
        let included = reader.list(include, INCLUDE, |reader, entry| {
            let combination = reader.included(entry)?;
            spans.push(entry.span);
            Some(combination)
        });
        let mut known: std::collections::HashSet<Combination> = combinations.iter().map(sorted).collect();
        for (combination, span) in included.into_iter().zip(spans) {
            match known.insert(sorted(&combination)) {
                true => combinations.push(combination),
                false => reader.errors.push(Diagnostic::new(span, "this combination is there already")),
            }
        }
    }
    if reader.errors.len() > before {
        return None;
    }
    let axes: Vec<usize> = (reader.first..reader.all.len()).collect();
    if axes.is_empty() {
        reader.errors.push(Diagnostic::new(entry.key, "`matrix` has no axes").help("such as `seed: [0, 1, 2]`"));
        return None;
    }
    Some(without_those_given(entry, siblings, axes, combinations, all))
}

fn is_word(key: &str) -> bool {
    key == EXCLUDE || key == INCLUDE
}

fn sorted(combination: &Combination) -> Combination {
    let mut sorted = combination.clone();
    sorted.sort_unstable();
    sorted
}

/// Leaves out the axes of the file whose parameters have a value of the command line.
fn without_those_given(
    entry: &Entry,
    siblings: &Mapping,
    axes: Vec<usize>,
    mut combinations: Vec<Combination>,
    all: &[Axis],
) -> Matrix {
    let parameters = Node { value: Value::Mapping(siblings.clone()), span: entry.key };
    let is_given = |axis: &usize| {
        let given = parameters.entry_at(&all[*axis].path).map_or(0, |e| e.key.source);
        given != 0 && all[*axis].key.source == 0
    };
    let (given, axes): (Vec<usize>, Vec<usize>) = axes.into_iter().partition(is_given);
    if given.is_empty() {
        return Matrix { written: Some(entry.node.clone()), axes, combinations };
    }
    let mut known = std::collections::HashSet::new();
    combinations.iter_mut().for_each(|c| c.retain(|(axis, _)| !given.contains(axis)));
    combinations.retain(|c| known.insert(c.clone()));
    Matrix { written: None, axes, combinations }
}

struct Reader<'a> {
    scope: &'a Scope,
    /// This matrix's axes are those from here on.
    first: usize,
    all: &'a mut Vec<Axis>,
    errors: &'a mut Errors,
}

impl Reader<'_> {
    fn axes(&self) -> &[Axis] {
        &self.all[self.first..]
    }

    fn axis(&mut self, path: &str, entry: &Entry) {
        let shown = quote(path);
        let values = match &entry.node.value {
            Value::List(values) if values.is_empty() => {
                self.errors.push(Diagnostic::new(entry.node.span, format!("axis {shown} has no values")));
                return;
            }
            Value::List(values) => values,
            _ => {
                let message = format!("axis {shown} must be a list of values, found {}", entry.node.describe());
                let help = match entry.node.as_mapping().and_then(|inner| inner.keys().next()) {
                    Some(key) => {
                        format!("an axis has the whole path of its parameter: {}", quote(&format!("{path}.{key}")))
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
        for value in values {
            let axis = self.all.last_mut().expect("one was added");
            if let Some(same) = axis.values.iter().find(|v| same(&v.node, value)) {
                let message = format!("axis {shown} has {} twice", value.describe());
                self.errors
                    .push(Diagnostic::new(value.span, message).related(same.node.span, "the first time is here"));
            } else {
                axis.values.push(AxisValue { node: value.clone(), label: String::new() });
            }
        }
    }

    fn new_axis(&mut self, path: &str, key: Span) -> Result<(), Diagnostic> {
        let error = |message: String| Err(Diagnostic::new(key, message));
        if overlap(path, "kind") || overlap(path, "matrix") || path.split('.').any(str::is_empty) {
            return error(format!("{} is no parameter that can be swept", quote(path)));
        }
        if *self.scope == Scope::Pipeline && path != super::SEED {
            return Err(Diagnostic::new(key, format!("{} cannot be swept here", quote(path)))
                .help("at the top of the file `seed` alone can; other axes belong to a stage or to `defaults`"));
        }
        if let Some(other) = self.axes().iter().find(|axis| overlap(&axis.path, path)) {
            return Err(Diagnostic::new(key, format!("axes {} and {} overlap", quote(&other.path), quote(path)))
                .related(other.key, "the other axis"));
        }
        self.all.push(Axis { scope: self.scope.clone(), path: path.to_string(), key, values: vec![] });
        Ok(())
    }

    /// Every combination of the axes' values, the first axis changing slowest.
    fn product(&mut self, key: Span) -> Option<Vec<Combination>> {
        let count = self.axes().iter().fold(1u128, |n, axis| n.saturating_mul(axis.values.len() as u128));
        if count > MAX_INSTANCES as u128 {
            self.errors.push(too_many(key, "this matrix makes", count));
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

    /// The combinations in a list of mappings.
    fn list(
        &mut self,
        entry: &Entry,
        word: &str,
        mut one: impl FnMut(&mut Self, &Node) -> Option<Combination>,
    ) -> Vec<Combination> {
        let Value::List(items) = &entry.node.value else {
            let message = format!("`{word}` must be a list of combinations, found {}", entry.node.describe());
            self.errors
                .push(Diagnostic::new(entry.node.span, message).help(format!("such as `{word}: [{{ seed: 0 }}]`")));
            return vec![];
        };
        let combinations = items.iter().filter_map(|item| match item.as_mapping() {
            Some(mapping) if !mapping.is_empty() => one(self, item),
            _ => {
                let message =
                    format!("an entry of `{word}` must be a mapping of axes to values, found {}", item.describe());
                self.errors.push(Diagnostic::new(item.span, message).help("such as `{ seed: 0 }`"));
                None
            }
        });
        combinations.collect()
    }

    fn excluded(&mut self, item: &Node) -> Option<Combination> {
        let mut combination = vec![];
        for (key, entry) in item.as_mapping()? {
            let Some(axis) = self.find(key) else {
                let paths: Vec<&str> = self.axes().iter().map(|axis| axis.path.as_str()).collect();
                let help = did_you_mean(key, paths.iter().copied()).unwrap_or_else(|| match paths.is_empty() {
                    true => "this matrix has no axes".to_string(),
                    false => format!("its axes: {}", alternatives(&paths).replace(" or ", ", ")),
                });
                let message = format!("`exclude` names {}, which is no axis of this matrix", quote(key));
                self.errors.push(Diagnostic::new(entry.key, message).help(help));
                return None;
            };
            let values = &self.all[axis].values;
            let Some(value) = values.iter().position(|v| same(&v.node, &entry.node)) else {
                let known: Vec<String> = values.iter().map(|v| v.node.describe()).collect();
                let message = format!(
                    "`exclude` names {}, which is no value of axis {}",
                    entry.node.describe(),
                    quote(&self.all[axis].path)
                );
                let mut shown = known[..known.len().min(12)].join(", ");
                if known.len() > 12 {
                    shown.push_str(", …");
                }
                self.errors.push(Diagnostic::new(entry.node.span, message).help(format!("its values: {shown}")));
                return None;
            };
            combination.push((axis, value));
        }
        Some(combination)
    }

    /// Parameters that are no axis yet become one: a matrix may consist of such combinations alone.
    fn included(&mut self, item: &Node) -> Option<Combination> {
        let mut combination = vec![];
        for (key, entry) in item.as_mapping()? {
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
            let values = &mut self.all[axis].values;
            let value = values.iter().position(|v| same(&v.node, &entry.node)).unwrap_or_else(|| {
                values.push(AxisValue { node: entry.node.clone(), label: String::new() });
                values.len() - 1
            });
            combination.push((axis, value));
        }
        combination.sort_unstable();
        Some(combination)
    }

    /// The axis of this path, or the only one whose path ends with it.
    fn find(&self, key: &str) -> Option<usize> {
        let ends = |axis: &&Axis| axis.path.strip_suffix(key).is_some_and(|rest| rest.ends_with('.'));
        let exact = self.axes().iter().position(|axis| axis.path == key);
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

/// More instances than a pipeline may have.
pub(super) fn too_many(span: Span, what: &str, count: u128) -> Diagnostic {
    let shown = if count == u128::MAX { format!("more than {count}") } else { count.to_string() };
    Diagnostic::new(span, format!("{what} {shown} instances; a pipeline has at most {MAX_INSTANCES}"))
}

/// Whether two values are the same parameter, however they are spelled.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Number { number: Number::Integer(a), .. }, Value::Number { number: Number::Integer(b), .. }) => a == b,
        (Value::Number { number: a, .. }, Value::Number { number: b, .. }) => a.as_f64() == b.as_f64(),
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Mapping(a), Value::Mapping(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(&a.node, &b.node)))
        }
        _ => a.as_text().is_some() && a.as_text() == b.as_text(),
    }
}
