//! Names of axes, axis values and instances.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::super::text::is_invisible;
use super::super::tree::{Node, Number, Value};
use super::{Axis, Combination, Scope};
use crate::config::redact_value;

/// The maximum length of an instance name. It is used as a directory name, which may have at most 255 bytes.
const MAX_BYTES: usize = 200;

/// Returns the name of every axis: the shortest suffix of its path that is unique. If an instance has two axes of the
/// same parameter, the name of the stage or kind comes first. `combinations` contains the axis values of each instance.
pub(in super::super) fn axis_names<'a>(
    axes: &[Axis],
    combinations: impl IntoIterator<Item = &'a Combination>,
) -> Vec<String> {
    let paths: BTreeSet<&str> = axes.iter().map(|axis| axis.path.as_str()).collect();
    // The number of paths that end in each suffix.
    let mut endings: BTreeMap<&str, usize> = BTreeMap::new();
    for path in &paths {
        suffixes(path).for_each(|suffix| *endings.entry(suffix).or_default() += 1);
    }
    let mut ambiguous: BTreeSet<&str> = BTreeSet::new();
    for combination in combinations {
        let mut seen: Vec<&str> = combination.iter().map(|&(axis, _)| axes[axis].path.as_str()).collect();
        seen.sort_unstable();
        ambiguous.extend(seen.windows(2).filter(|pair| pair[0] == pair[1]).filter_map(|pair| paths.get(pair[0])));
    }
    let name = |axis: &Axis| {
        let suffix = suffixes(&axis.path).find(|suffix| endings[suffix] == 1).unwrap_or(&axis.path);
        match &axis.scope {
            Scope::Stage(stage) if ambiguous.contains(axis.path.as_str()) => format!("{stage}.{suffix}"),
            Scope::Kind(kind) if ambiguous.contains(axis.path.as_str()) => format!("{}.{suffix}", kind.name()),
            _ => suffix.to_string(),
        }
    };
    axes.iter().map(name).collect()
}

/// Returns `c`, `b.c`, `a.b.c` for `a.b.c`.
fn suffixes(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('.').map(|(dot, _)| &path[dot + 1..]).chain([path])
}

/// Returns a valid value as it appears in instance names: numbers in a canonical spelling, and characters escaped that
/// are not allowed in file names or would end the value.
pub(super) fn value_label(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Number { number: Number::Integer(i), .. } => i.to_string(),
        Value::Number { number: Number::Real(x), .. } => real(*x),
        Value::Text(text) => redact_value(text).chars().map(escape).collect(),
        Value::List(items) => format!("({})", items.iter().map(value_label).collect::<Vec<_>>().join(" ")),
        Value::Mapping(mapping) => {
            let entries = mapping.iter().map(|(key, entry)| format!("{key}:{}", value_label(&entry.node)));
            format!("({})", entries.collect::<Vec<_>>().join(" "))
        }
    }
}

/// Formats a number as `0.001` or `1e-3`, whichever is shorter.
fn real(x: f64) -> String {
    let (plain, scientific) = (x.to_string(), format!("{x:e}"));
    if scientific.len() < plain.len() { scientific } else { plain }
}

/// Percent-encodes special characters, as in URLs.
fn escape(c: char) -> String {
    if "/\\%[],=()".contains(c) || is_invisible(c) {
        let mut bytes = [0; 4];
        c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect()
    } else {
        c.to_string()
    }
}

/// Returns an instance name such as `baseline[base_channels=16,seed=0]`.
pub(in super::super) fn with_labels<'a>(base: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let labels: Vec<String> = labels.into_iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    if labels.is_empty() {
        return base.to_string();
    }
    let name = format!("{base}[{}]", labels.join(","));
    if name.len() <= MAX_BYTES {
        return name;
    }
    // A hash of the full name keeps truncated names distinct.
    let digest: String = Sha256::digest(&name).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let end = (0..=MAX_BYTES - 16).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    format!("{}…{digest}]", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::super::super::diagnostics::Span;
    use super::super::super::tree::plain_scalar;
    use super::*;

    const NOWHERE: Span = Span { source: 0, start: 0, end: 0 };

    fn axis(scope: Scope, path: &str) -> Axis {
        Axis { scope, path: path.to_string(), parameter: path.to_string(), key: NOWHERE, values: vec![] }
    }

    #[test]
    fn axes_have_the_shortest_unique_name() {
        let stage = |name: &str| Scope::Stage(name.to_string());
        let axes = [
            axis(stage("a"), "model.base_channels"),
            axis(stage("b"), "model.base_channels"),
            axis(stage("a"), "optim.steps"),
            axis(stage("c"), "sampler.steps"),
            axis(stage("pairs"), "scale"),
            axis(stage("others"), "scale"),
            axis(Scope::Pipeline, "seed"),
        ];
        let combination = vec![(0, 0), (2, 0), (4, 0), (5, 0), (6, 0)];
        let names = axis_names(&axes, [&combination]);
        assert_eq!(
            names,
            ["base_channels", "base_channels", "optim.steps", "sampler.steps", "pairs.scale", "others.scale", "seed"]
        );
    }

    #[test]
    fn labels_are_canonical_and_safe_as_file_names() {
        let label = |text: &str| value_label(&Node { value: plain_scalar(text), span: NOWHERE });
        for (text, expected) in [
            ("16", "16"),
            ("1e-4", "1e-4"),
            ("0.0001", "1e-4"),
            ("0.02", "0.02"),
            ("true", "true"),
            ("~", "null"),
            ("linear", "linear"),
            ("file:/data/a,b=c.gz", "file:%2Fdata%2Fa%2Cb%3Dc.gz"),
            ("..", ".."),
            ("a\u{1b}b", "a%1Bb"),
            ("größe", "größe"),
        ] {
            assert_eq!(label(text), expected);
        }
    }

    #[test]
    fn long_names_are_truncated_and_stay_distinct() {
        let long = "ü".repeat(200);
        let (a, b) = (with_labels("x", [("y", long.as_str())]), with_labels("x", [("z", long.as_str())]));
        assert!(a.len() <= MAX_BYTES && b.len() <= MAX_BYTES, "{a}");
        let (c, d) = (with_labels("x", [("y", &*(long.clone() + "1"))]), with_labels("x", [("y", &*(long + "2"))]));
        assert!(a != c && c != d && a != b);
        assert_eq!(with_labels("x", []), "x");
        assert_eq!(with_labels("x", [("a", "1"), ("b", "2")]), "x[a=1,b=2]");
    }
}
