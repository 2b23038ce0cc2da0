//! `--set path=value` and `--sweep path=a,b`: command-line values that override those of the file.

use super::aliases;
use super::diagnostics::{Diagnostic, Errors, SourceText, Span};
use super::draft::KEYS;
use super::reader::{self, Location};
use super::schema;
use super::sweep;
use super::text::{alternatives, did_you_mean, quote};
use super::tree::{Entry, Mapping, Node, Value};
use crate::config::StageKind;

/// The `--set` and `--sweep` flags. Paths start at the root of the file (`defaults.train.optim.steps`), and values are
/// YAML. Later flags override earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `path=value` arguments.
    pub set: Vec<String>,
    /// `path=a,b` arguments: the parameter takes each of the values.
    pub sweep: Vec<String>,
}

impl Flags {
    /// Returns the flags as errors show them, in the order in which they are applied: sweeps override settings.
    pub(super) fn sources(&self) -> impl Iterator<Item = SourceText> {
        let set = self.set.iter().map(|flag| format!("{SET}{flag}"));
        set.chain(self.sweep.iter().map(|flag| format!("{SWEEP}{flag}"))).map(SourceText::Flag)
    }
}

/// The maximum length of a path, far above that of any parameter.
const MAX_PATH_BYTES: usize = 1000;
const MAX_SEGMENTS: usize = 200;

/// The prefixes of flags in their sources.
const SET: &str = "--set ";
const SWEEP: &str = "--sweep ";

/// Applies a flag to the tree. `flag` includes the name of the flag; `source` is its index among the sources.
pub(super) fn apply(root: &mut Node, flag: &str, source: u32, errors: &mut Errors) {
    let (prefix, usage, example) = match flag.starts_with(SWEEP) {
        true => (SWEEP, "`--sweep` needs `path=value,value`", "such as `--sweep seed=0,1,2`"),
        false => (SET, "`--set` needs `path=value`", "such as `--set defaults.train.optim.steps=1500`"),
    };
    let whole = Span::new(source, prefix.len()..flag.len());
    let Some((path, value)) = flag[prefix.len()..].split_once('=') else {
        errors.push(Diagnostic::new(whole, usage).help(example));
        return;
    };
    if value.len() > reader::MAX_BYTES {
        let message = format!("the value is larger than {} MiB", reader::MAX_BYTES >> 20);
        errors.push(Diagnostic::new(whole, message));
        return;
    }
    if path.len() > MAX_PATH_BYTES || path.matches('.').count() >= MAX_SEGMENTS {
        let message = format!("a path may have at most {MAX_SEGMENTS} keys and {MAX_PATH_BYTES} characters");
        errors.push(Diagnostic::new(whole, message));
        return;
    }
    let segments = segments(path, prefix.len(), source);
    if let Some(empty) = segments.iter().find(|s| s.text.is_empty()) {
        let span = if empty.span.is_empty() { whole } else { empty.span };
        errors.push(
            Diagnostic::new(span, "a path must consist of keys separated by dots").help("such as `stages.cifar.url`"),
        );
        return;
    }
    if let Some(complete) = complete_path(root, path, segments[0].text) {
        let message = format!("a pipeline file has no key {}", quote(segments[0].text));
        errors.push(Diagnostic::new(segments[0].span, message).help(format!("did you mean {complete}?")));
        return;
    }
    let offset = prefix.len() + path.len() + 1;
    let value = match prefix {
        // Brackets make the values a list. The opening bracket replaces the `=`, so offsets stay the same.
        SWEEP => reader::read_argument(&format!("[{value}]"), Location { source, offset: offset - 1 }, errors),
        _ => reader::read_argument(value, Location { source, offset }, errors),
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

/// Completes a path that starts with the name of a stage or of a parameter instead of a key of the file.
fn complete_path(root: &Node, path: &str, first: &str) -> Option<String> {
    if KEYS.contains(&first) {
        return None;
    }
    let is_stage = root.entry(["stages"]).and_then(|e| e.node.as_mapping()).is_some_and(|s| s.contains_key(first));
    if is_stage {
        return Some(quote(&format!("stages.{path}")));
    }
    let has_parameter = |kind: &StageKind| schema::of(*kind)["properties"].get(first).is_some();
    let kinds = StageKind::ALL.into_iter().filter(has_parameter);
    let paths: Vec<String> = kinds.map(|kind| format!("defaults.{}.{path}", kind.name())).collect();
    (!paths.is_empty()).then(|| alternatives(&paths))
}

/// Adds an axis to the matrix of the stage, of the defaults or of the pipeline, depending on the path. Replaces an axis
/// of the same parameter.
fn add_axis(root: &mut Node, path: &str, segments: &[Segment], values: Node) -> Result<(), Diagnostic> {
    let key = Span { end: segments[segments.len() - 1].span.end, ..segments[0].span };
    let invalid = |message: &str| {
        Err(Diagnostic::new(key, message).help("such as `stages.model.optim.lr`, `defaults.train.optim.lr` or `seed`"))
    };
    // The keys from the root to the owner of the matrix, and the number of segments that they take.
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
                    .unwrap_or_else(|| format!("valid stage kinds: {}", alternatives(&kinds)));
                let message = format!("unknown stage kind {}", quote(second.text));
                return Err(Diagnostic::new(second.span, message).help(help));
            }
            (vec!["defaults", second.text], 2)
        }
        (sweep::SEED, None) => (vec![], 0),
        _ => return invalid(&format!("{} cannot be swept", quote(path))),
    };
    let Some(parameter) = segments.get(used) else { return invalid("the path does not lead to a parameter") };
    let parameter = &path[parameter.start..];
    let kind = match outer[..] {
        ["defaults", kind] => aliases::kind_named(kind),
        ["stages", _] => root.entry(outer.iter().copied()).and_then(|entry| aliases::kind_of(&entry.node)),
        _ => None,
    };
    let mut node = root;
    for name in outer.iter().copied().chain(["matrix"]) {
        let missing = || Entry { key, node: Node::null(key) };
        // Treat an empty `defaults:` like a missing one.
        if node.is_null() {
            node.value = Value::Mapping(Mapping::new());
        }
        let found = node.describe();
        let Some(mapping) = node.as_mapping_mut() else {
            return Err(Diagnostic::new(
                key,
                format!("cannot sweep {}: expected a mapping, found {found}", quote(path)),
            ));
        };
        node = &mut mapping.entry(name.to_string()).or_insert_with(missing).node;
    }
    if node.is_null() {
        node.value = Value::Mapping(Mapping::new());
    }
    // A matrix that is not a mapping is reported elsewhere.
    if let Some(matrix) = node.as_mapping_mut() {
        let spellings = kind.map(|kind| [aliases::current_path, aliases::older_path].map(|of| of(kind, parameter)));
        let other = spellings.iter().flatten().filter(|path| *path != parameter);
        let replaced = other.filter_map(|path| matrix.get_index_of(path.as_ref())).next();
        let entry = Entry { key, node: values };
        match replaced.filter(|_| !matrix.contains_key(parameter)) {
            Some(index) => {
                matrix.shift_remove_index(index);
                matrix.shift_insert(index, parameter.to_string(), entry);
            }
            None => drop(matrix.insert(parameter.to_string(), entry)),
        }
    }
    Ok(())
}

/// A part of a dotted path.
struct Segment<'a> {
    text: &'a str,
    /// The byte offset in the path.
    start: usize,
    span: Span,
}

/// Splits a path at its dots. `offset` is the byte offset of the path in the source.
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

/// Sets the value at a path and creates missing mappings.
fn assign(root: &mut Node, path: &str, segments: &[Segment], value: Node) -> Result<(), Diagnostic> {
    let mut node = root;
    let mut rest = segments;
    let mut walked: Vec<&str> = vec![];
    let mut kind = None;
    loop {
        // Treat an empty `model:` like a missing one.
        if node.is_null() {
            node.value = Value::Mapping(Mapping::new());
        }
        let found = node.describe();
        let Some(mapping) = node.as_mapping_mut() else {
            let message = format!("{} must be a mapping to set a key in it, found {found}", quote(&walked.join(".")));
            return Err(Diagnostic::new(rest[0].span, message).help("set a list as a whole: `--set path=[a, b]`"));
        };
        let (key, used) = next_key(mapping, path, rest);
        if let [parent, name] = walked[..] {
            kind = match parent {
                "defaults" => aliases::kind_named(name),
                "stages" => mapping.get("kind").and_then(|entry| aliases::kind_named(entry.node.as_text()?)),
                _ => None,
            };
        }
        let key = kind.map_or(key, |kind| aliases::current_key(kind, &walked[2..].join("."), key));
        let span = Span { end: rest[used - 1].span.end, ..rest[0].span };
        let last = used == rest.len();
        if walked == ["stages"] && !mapping.contains_key(key) {
            let help = stage_help(key, mapping.keys());
            return Err(Diagnostic::new(span, format!("there is no stage {}", quote(key))).maybe_help(help));
        }
        walked.push(key);
        if last {
            remove_exclusive(mapping, key, span.source);
            mapping.insert(key.to_string(), Entry { key: span, node: value });
            return Ok(());
        }
        rest = &rest[used..];
        let missing = || Entry { key: span, node: Node { value: Value::Mapping(Mapping::new()), span } };
        node = &mut mapping.entry(key.to_string()).or_insert_with(missing).node;
    }
}

/// Returns the next key of the path and the number of segments that it takes. Names may contain dots, so the longest
/// existing key wins.
fn next_key<'p>(mapping: &Mapping, path: &'p str, rest: &[Segment]) -> (&'p str, usize) {
    let key = |n: usize| {
        let last = &rest[n - 1];
        &path[rest[0].start..last.start + last.text.len()]
    };
    (1..=rest.len()).rev().map(|n| (key(n), n)).find(|(key, _)| mapping.contains_key(*key)).unwrap_or((key(1), 1))
}

/// Removes parameters of the file that exclude `key`, which a flag sets: `--set …steps=3` replaces `epochs` or
/// `budget`. Keeps those that other flags set, so that the conflict is reported.
fn remove_exclusive(mapping: &mut Mapping, key: &str, source: u32) {
    for &other in super::schema::exclusive_with(key) {
        if source != 0 && mapping.get(other).is_some_and(|e| e.key.source == 0) {
            mapping.shift_remove(other);
        }
    }
}

/// Suggests the closest stage name, or lists the stages.
fn stage_help<'a>(name: &str, stages: impl Iterator<Item = &'a String> + Clone) -> Option<String> {
    const MOST: usize = 20;
    did_you_mean(name, stages.clone().map(String::as_str)).or_else(|| {
        let names: Vec<&String> = stages.take(MOST).collect();
        (!names.is_empty()).then(|| format!("one of {}", alternatives(&names)))
    })
}
