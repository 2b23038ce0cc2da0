//! `--set path=value` and `--sweep path=a,b`: values of the command line over those of the file.

use super::diagnostics::{Diagnostic, Errors, Span, Text};
use super::reader::{self, Place};
use super::sweep;
use super::tree::{Entry, Mapping, Node, Value};
use super::words::{alternatives, did_you_mean, quote};
use crate::config::StageKind;

/// What the command line says of a pipeline. Paths start at the file's root (`defaults.train.optim.steps`), values are
/// YAML, later ones win.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `path=value` each.
    pub set: Vec<String>,
    /// `path=a,b` each: the parameter takes every value.
    pub sweep: Vec<String>,
}

impl Flags {
    /// As errors show them. A sweep is put over what is set.
    pub(super) fn sources(&self) -> impl Iterator<Item = Text> {
        let set = self.set.iter().map(|flag| format!("{SET}{flag}"));
        set.chain(self.sweep.iter().map(|flag| format!("{SWEEP}{flag}"))).map(Text::Flag)
    }
}

/// The maximum length of a path. Paths of parameters are much shorter, including stage names.
const MAX_PATH_BYTES: usize = 1000;
const MAX_SEGMENTS: usize = 200;

/// What stands before the path in the source of a flag.
const SET: &str = "--set ";
const SWEEP: &str = "--sweep ";

/// Applies `flag`, which is source `source`: its name and then what was typed.
pub(super) fn apply(root: &mut Node, flag: &str, source: u32, errors: &mut Errors) {
    let (prefix, takes, example) = match flag.starts_with(SWEEP) {
        true => (SWEEP, "`--sweep` takes `path=value,value`", "such as `--sweep seed=0,1,2`"),
        false => (SET, "`--set` takes `path=value`", "such as `--set defaults.train.optim.steps=1500`"),
    };
    let whole = Span::new(source, prefix.len()..flag.len());
    let Some((path, value)) = flag[prefix.len()..].split_once('=') else {
        errors.push(Diagnostic::new(whole, takes).help(example));
        return;
    };
    if value.len() > reader::MAX_BYTES {
        errors.push(Diagnostic::new(whole, "the value is too large"));
        return;
    }
    if path.len() > MAX_PATH_BYTES || path.matches('.').count() >= MAX_SEGMENTS {
        let message = format!("a path has at most {MAX_SEGMENTS} keys and {MAX_PATH_BYTES} characters");
        errors.push(Diagnostic::new(whole, message));
        return;
    }
    let segments = segments(path, prefix.len(), source);
    if let Some(empty) = segments.iter().find(|s| s.text.is_empty()) {
        let span = if empty.span.is_empty() { whole } else { empty.span };
        errors.push(Diagnostic::new(span, "a path is keys with dots between them").help("such as `stages.cifar.url`"));
        return;
    }
    let offset = prefix.len() + path.len() + 1;
    let value = match prefix {
        // Within brackets the values are a list; the opening one takes the place of the `=`.
        SWEEP => reader::read_argument(&format!("[{value}]"), Place { source, offset: offset - 1 }, errors),
        _ => reader::read_argument(value, Place { source, offset }, errors),
    };
    let Some(mut value) = value else { return };
    if value.span.is_empty() || prefix == SWEEP {
        value.span = whole;
    }
    let applied = match prefix {
        SWEEP => add_axis(root, path, &segments, value),
        _ => assign(root, path, &segments, value),
    };
    if let Err(error) = applied {
        errors.push(error);
    }
}

/// Puts an axis into the matrix of the stage, of the defaults or of the pipeline that the path leads to, in the place of
/// one of the same parameter.
fn add_axis(root: &mut Node, path: &str, segments: &[Segment], values: Node) -> Result<(), Diagnostic> {
    let key = Span { end: segments[segments.len() - 1].span.end, ..segments[0].span };
    let strange = |message: &str| {
        Err(Diagnostic::new(key, message).help("such as `stages.model.optim.lr`, `defaults.train.optim.lr` or `seed`"))
    };
    // What the matrix belongs to, as keys from the root, and of how many segments they consist.
    let (outer, used): (Vec<&str>, usize) = match (segments[0].text, segments.get(1)) {
        ("stages", Some(second)) => {
            let stages = root.entry(["stages"]).and_then(|e| e.node.as_mapping());
            let Some(stages) = stages else { return Ok(()) };
            let (name, used) = next_key(stages, path, &segments[1..]);
            if !stages.contains_key(name) {
                let help = stage_help(name, stages.keys());
                return Err(Diagnostic::new(second.span, format!("there is no stage {}", quote(name))).maybe_help(help));
            }
            (vec!["stages", name], 1 + used)
        }
        ("defaults", Some(second)) => {
            let kinds = StageKind::ALL.map(StageKind::name);
            if !kinds.contains(&second.text) {
                let help = did_you_mean(second.text, kinds)
                    .unwrap_or_else(|| format!("defaults belong to a stage kind: {}", alternatives(&kinds)));
                let message = format!("unknown stage kind {}", quote(second.text));
                return Err(Diagnostic::new(second.span, message).help(help));
            }
            (vec!["defaults", second.text], 2)
        }
        (sweep::SEED, None) => (vec![], 0),
        _ => return strange(&format!("{} cannot be swept", quote(path))),
    };
    let Some(parameter) = segments.get(used) else { return strange("the path of a parameter goes on") };
    let parameter = &path[parameter.start..];
    let mut node = root;
    for name in outer.iter().copied().chain(["matrix"]) {
        let missing = || Entry { key, node: Node::null(key) };
        // An empty `defaults:` is as good as a missing one.
        if node.is_null() {
            node.value = Value::Mapping(Mapping::new());
        }
        let found = node.describe();
        let Some(mapping) = node.as_mapping_mut() else {
            return Err(Diagnostic::new(key, format!("{} stands in the way: {found}", quote(path))));
        };
        node = &mut mapping.entry(name.to_string()).or_insert_with(missing).node;
    }
    if node.is_null() {
        node.value = Value::Mapping(Mapping::new());
    }
    // A matrix that is none is an error of its own.
    if let Some(matrix) = node.as_mapping_mut() {
        matrix.insert(parameter.to_string(), Entry { key, node: values });
    }
    Ok(())
}

struct Segment<'a> {
    text: &'a str,
    /// Where in `path` it begins.
    start: usize,
    span: Span,
}

/// `offset`: where in the source the path begins.
fn segments(path: &str, offset: usize, source: u32) -> Vec<Segment<'_>> {
    let mut start = 0;
    path.split('.')
        .map(|text| {
            let at = offset + start;
            let segment = Segment { text, start, span: Span::new(source, at..at + text.len()) };
            start += text.len() + 1;
            segment
        })
        .collect()
}

fn assign(root: &mut Node, path: &str, segments: &[Segment], value: Node) -> Result<(), Diagnostic> {
    let mut node = root;
    let mut rest = segments;
    let mut walked: Vec<&str> = vec![];
    loop {
        // An empty `model:` is as good as a missing one.
        if node.is_null() {
            node.value = Value::Mapping(Mapping::new());
        }
        let found = node.describe();
        let Some(mapping) = node.as_mapping_mut() else {
            let message = format!("{} is {found}, there is nothing below it to set", quote(&walked.join(".")));
            return Err(Diagnostic::new(rest[0].span, message).help("a list is set as a whole: `--set path=[a, b]`"));
        };
        let (key, used) = next_key(mapping, path, rest);
        let span = Span { end: rest[used - 1].span.end, ..rest[0].span };
        let last = used == rest.len();
        if walked == ["stages"] && !mapping.contains_key(key) {
            let help = stage_help(key, mapping.keys());
            return Err(Diagnostic::new(span, format!("there is no stage {}", quote(key))).maybe_help(help));
        }
        walked.push(key);
        if last {
            drop_alternative(mapping, key, span.source);
            mapping.insert(key.to_string(), Entry { key: span, node: value });
            return Ok(());
        }
        rest = &rest[used..];
        let missing = || Entry { key: span, node: Node { value: Value::Mapping(Mapping::new()), span } };
        node = &mut mapping.entry(key.to_string()).or_insert_with(missing).node;
    }
}

/// The next key of the path and of how many segments it consists: names may have dots, so the longest key that exists
/// is meant.
fn next_key<'p>(mapping: &Mapping, path: &'p str, rest: &[Segment]) -> (&'p str, usize) {
    let key = |n: usize| {
        let last = &rest[n - 1];
        &path[rest[0].start..last.start + last.text.len()]
    };
    (1..=rest.len()).rev().map(|n| (key(n), n)).find(|(key, _)| mapping.contains_key(*key)).unwrap_or((key(1), 1))
}

/// `steps` of the command line replaces `epochs` or `budget` of the file and the other way round; two flags contradict
/// each other.
fn drop_alternative(mapping: &mut Mapping, key: &str, source: u32) {
    for &other in super::resolve::alternatives_of(key) {
        if source != 0 && mapping.get(other).is_some_and(|e| e.key.source == 0) {
            mapping.shift_remove(other);
        }
    }
}

/// The stage that was meant, or those there are.
fn stage_help<'a>(name: &str, stages: impl Iterator<Item = &'a String> + Clone) -> Option<String> {
    const MOST: usize = 20;
    did_you_mean(name, stages.clone().map(String::as_str)).or_else(|| {
        let names: Vec<&String> = stages.take(MOST).collect();
        (!names.is_empty()).then(|| format!("name one of {}", alternatives(&names)))
    })
}
