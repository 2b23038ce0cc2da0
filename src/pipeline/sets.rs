//! `--set path=value`: values of the command line over those of the file.

use super::diagnostics::{Diagnostic, Errors, Span};
use super::reader::{self, Place};
use super::tree::{Entry, Mapping, Node, Value};
use super::words::{did_you_mean, quote};

/// What stands before the path in the source of a flag.
pub(super) const PREFIX: &str = "--set ";

/// Applies `flag`, which is source `source`: the prefix and then what was typed.
pub(super) fn apply(root: &mut Node, flag: &str, source: u32, errors: &mut Errors) {
    let whole = Span::new(source, PREFIX.len()..flag.len());
    let Some((path, value)) = flag[PREFIX.len()..].split_once('=') else {
        errors.push(
            Diagnostic::new(whole, "`--set` takes `path=value`")
                .help("such as `--set defaults.train.optim.steps=1500`"),
        );
        return;
    };
    if value.len() > reader::MAX_BYTES {
        errors.push(Diagnostic::new(whole, "the value is too large"));
        return;
    }
    let segments = segments(path, source);
    if let Some(empty) = segments.iter().find(|s| s.text.is_empty()) {
        let span = if empty.span.is_empty() { whole } else { empty.span };
        errors.push(Diagnostic::new(span, "a path is keys with dots between them").help("such as `stages.cifar.url`"));
        return;
    }
    let place = Place { source, offset: PREFIX.len() + path.len() + 1 };
    let Some(mut value) = reader::read(value, place, errors) else { return };
    if value.span.is_empty() {
        value.span = whole;
    }
    if let Err(error) = assign(root, path, &segments, value) {
        errors.push(error);
    }
}

struct Segment<'a> {
    text: &'a str,
    /// Where in `path` it begins.
    start: usize,
    span: Span,
}

fn segments(path: &str, source: u32) -> Vec<Segment<'_>> {
    let mut start = 0;
    path.split('.')
        .map(|text| {
            let at = PREFIX.len() + start;
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
            let help = did_you_mean(key, mapping.keys().map(String::as_str));
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
