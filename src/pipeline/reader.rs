//! Parses YAML text into a tree, with limits on size, depth and number of values.

use std::collections::HashMap;

use indexmap::map::Entry as Slot;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

use super::diagnostics::{Diagnostic, Errors, Span};
use super::text::{is_odd_space, look_alike, odd_character, quote};
use super::tree::{Entry, Mapping, Node, Value, plain_scalar};

/// The maximum size of a file, in bytes. Parsing time grows with the number of values times the length of their line,
/// so a much larger hostile file could take minutes.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// The maximum nesting depth.
const MAX_DEPTH: usize = 64;
/// The maximum number of values in a document, counting those that aliases repeat.
const MAX_NODES: usize = 200_000;

/// The location of a string in the sources.
#[derive(Clone, Copy)]
pub(super) struct Location {
    pub(super) source: u32,
    /// The byte offset of the text in the source.
    pub(super) offset: usize,
}

/// Parses the single document in `text`. If it is invalid, returns None and adds to `errors`.
pub(super) fn read(text: &str, location: Location, errors: &mut Errors) -> Option<Node> {
    read_with(text, None, location, errors)
}

/// Parses a value from the command line. Here `#` is an ordinary character: comments are useless, and names may contain
/// it.
pub(super) fn read_argument(text: &str, location: Location, errors: &mut Errors) -> Option<Node> {
    // The parser sees a private-use character instead of `#`, one that does not occur in the text.
    let stand_in = ('\u{E000}'..='\u{F8FF}').find(|&c| !text.contains(c));
    read_with(text, stand_in.filter(|_| text.contains('#')), location, errors)
}

fn read_with(text: &str, hash: Option<char>, location: Location, errors: &mut Errors) -> Option<Node> {
    let reader = Reader::new(text, hash, location);
    if let Some((at, c)) = text.char_indices().find(|&(_, c)| is_forbidden(c)) {
        let span = Span::new(location.source, location.offset + at..location.offset + at + c.len_utf8());
        errors.push(
            Diagnostic::new(span, format!("the text contains the control character U+{:04X}", c as u32))
                .help("remove it, or write it as an escape in a double-quoted string"),
        );
        return None;
    }
    match reader.document(errors) {
        Ok(node) => Some(node),
        Err(error) => {
            errors.push(error);
            None
        }
    }
}

/// Whether YAML forbids the character (YAML 1.2, section 5.1, production 1).
fn is_forbidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) || matches!(c, '\u{FFFE}' | '\u{FFFF}')
}

struct Reader<'a> {
    text: &'a str,
    /// The character that replaces `#` for the parser, if `#` does not start a comment.
    hash: Option<char>,
    location: Location,
    /// The byte offset of each character; None for ASCII text, where it equals the index.
    starts: Option<Vec<u32>>,
    open: Vec<Open>,
    /// Complete anchored values, with the number of nodes in them.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

/// A collection whose end event has not been read yet.
struct Open {
    collection: Collection,
    start: Span,
    anchor: usize,
    /// The number of nodes read before it.
    nodes: usize,
}

enum Collection {
    List(Vec<Node>),
    Mapping {
        entries: Mapping,
        /// The key whose value comes next.
        key: Option<(String, Span)>,
        /// The values of `<<`.
        merged: Vec<Node>,
        /// The span of `<<`.
        merge_key: Option<Span>,
    },
}

/// The key that merges mappings into the one that contains it.
const MERGE: &str = "<<";

type Result<T> = std::result::Result<T, Diagnostic>;

/// Hints for parser errors, by a part of the error message: the most likely cause.
const HELP: [(&str, &str); 6] = [
    ("flow", "a `,` between two entries or a closing `}` or `]` is missing, here or earlier"),
    ("simple key", "a key needs a colon followed by a space, here or in the line before: `seed: 0`"),
    (
        "quoted scalar",
        "quotes do not match, here or earlier: close every quote, and write a quote inside a string as '' or \\\"",
    ),
    (
        "did not find expected key",
        "all keys of a mapping must start in the same column: compare this line with the lines before it",
    ),
    (
        "mapping values",
        "write one `key: value` per line with equal indentation, or use braces as in `{ kind: fetch }`; check the line before, too",
    ),
    ("placement of ':'", "a quote or bracket before this is not closed"),
];

impl<'a> Reader<'a> {
    fn new(text: &'a str, hash: Option<char>, location: Location) -> Self {
        let starts = (!text.is_ascii()).then(|| text.char_indices().map(|(i, _)| i as u32).collect());
        Self { text, hash, location, starts, open: vec![], anchors: HashMap::new(), nodes: 0 }
    }

    fn byte(&self, marker: &Marker) -> usize {
        match &self.starts {
            None => marker.index().min(self.text.len()),
            Some(starts) => starts.get(marker.index()).map_or(self.text.len(), |&b| b as usize),
        }
    }

    fn span(&self, span: &saphyr_parser::Span) -> Span {
        let (start, end) = (self.byte(&span.start), self.byte(&span.end));
        let end = start + self.text.get(start..end).unwrap_or("").trim_end().len();
        Span::new(self.location.source, self.location.offset + start..self.location.offset + end)
    }

    fn syntax_error(&self, error: &ScanError) -> Diagnostic {
        // At a line end there is nothing to point at, so point at the last character before it.
        let at = self.byte(error.marker());
        let before = self.text[..at].trim_end().len();
        let on_blank = self.text[at..].trim_start_matches([' ', '\t', '\r']).starts_with('\n') || at == self.text.len();
        let start = if on_blank { self.text[..before].char_indices().next_back().map_or(0, |(i, _)| i) } else { at };
        let end = self.text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
        let span = Span::new(self.location.source, self.location.offset + start..self.location.offset + end);
        let line = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
        // The parser points at the text before the tab.
        if error.info().contains("tab")
            && let Some(tab) = self.text[line..].find('\t').map(|i| line + i)
        {
            let span = Span::new(self.location.source, self.location.offset + tab..self.location.offset + tab + 1);
            return Diagnostic::new(span, "a tab is used for indentation").help("indent YAML with spaces");
        }
        if let Some(error) = self.odd_indentation(start) {
            return error;
        }
        let diagnostic = Diagnostic::new(span, format!("not valid YAML: {}", error.info()));
        let help = HELP.iter().find(|(part, _)| error.info().contains(part)).map(|(_, help)| help.to_string());
        let hash = self.hash.map(|_| "`#` does not start a comment on the command line".to_string());
        diagnostic.maybe_help(hash.or_else(|| odd_character(self.line_at(start))).or(help))
    }

    /// Returns the line that contains the byte at `at`.
    fn line_at(&self, at: usize) -> &'a str {
        let start = self.text[..at].rfind('\n').map_or(0, |i| i + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |i| at + i);
        &self.text[start..end]
    }

    /// Reports a character that looks like a space but is not one to YAML, in the indentation of the line at `at` or of
    /// the lines before it.
    fn odd_indentation(&self, at: usize) -> Option<Diagnostic> {
        const LINES: usize = 20;
        let line_end = self.text[at..].find('\n').map_or(self.text.len(), |i| at + i);
        let mut end = line_end;
        for _ in 0..LINES {
            let start = self.text[..end].rfind('\n').map_or(0, |i| i + 1);
            let line = &self.text[start..end];
            let indented = line.char_indices().take_while(|(_, c)| c.is_whitespace() || is_odd_space(*c));
            if let Some((i, c)) = indented.into_iter().find(|(_, c)| is_odd_space(*c)) {
                let at = self.location.offset + start + i;
                let span = Span::new(self.location.source, at..at + c.len_utf8());
                let name = look_alike(c).map_or_else(String::new, |(name, _)| name.to_string());
                let message = format!("the indentation contains {name} (U+{:04X})", c as u32);
                return Some(Diagnostic::new(span, message).help("indent YAML with plain spaces"));
            }
            end = start.checked_sub(1)?;
        }
        None
    }

    fn document(mut self, errors: &mut Errors) -> Result<Node> {
        // Replaces one character with one character, so that positions in characters stay valid.
        let replaced = self.hash.map(|c| self.text.replace('#', c.encode_utf8(&mut [0; 4])));
        let mut parser: Parser<StrInput> = Parser::new_from_str(replaced.as_deref().unwrap_or(self.text));
        let mut root = None;
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|e| self.syntax_error(&e))?;
            let span = self.span(&span);
            let complete = match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(Diagnostic::new(span, "a second document starts here")
                            .help("a pipeline file contains one document; move the other to its own file"));
                    }
                    None
                }
                Event::Alias(id) => Some(self.alias(id, span)?),
                Event::Scalar(text, style, anchor, tag) => {
                    let text = self.hash.map_or_else(|| text.to_string(), |c| text.replace(c, "#"));
                    let is_key = self.awaits_key();
                    let value = match tag {
                        // Keys are strings, including `true` and `null`.
                        None if is_key => Value::Text(text),
                        None if style == ScalarStyle::Plain => plain_scalar(&text),
                        None => Value::Text(text),
                        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Value::Text(text),
                        Some(tag) if tag.is_yaml_core_schema() => plain_scalar(&text),
                        Some(_) => return Err(custom_tag(span)),
                    };
                    self.count(1, span)?;
                    let node = Node { value, span };
                    if anchor != 0 {
                        self.anchors.insert(anchor, (node.clone(), 1));
                    }
                    Some(node)
                }
                Event::SequenceStart(anchor, tag) => {
                    self.open(Collection::List(vec![]), anchor, tag.is_some_and(|t| !t.is_yaml_core_schema()), span)?;
                    None
                }
                Event::MappingStart(anchor, tag) => {
                    let mapping =
                        Collection::Mapping { entries: Mapping::new(), key: None, merged: vec![], merge_key: None };
                    self.open(mapping, anchor, tag.is_some_and(|t| !t.is_yaml_core_schema()), span)?;
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => Some(self.close(span)?),
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => None,
            };
            if let Some(node) = complete {
                match self.open.last_mut() {
                    None => root = Some(node),
                    Some(open) => open.collection.add(node, errors)?,
                }
            }
        }
        let nowhere = Span::new(self.location.source, self.location.offset..self.location.offset);
        Ok(root.unwrap_or_else(|| Node::null(nowhere)))
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { collection: Collection::Mapping { key: None, .. }, .. }))
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<()> {
        self.nodes += nodes;
        match self.nodes <= MAX_NODES {
            true => Ok(()),
            false => Err(Diagnostic::new(span, format!("more than {MAX_NODES} values, counting each use of an alias"))),
        }
    }

    fn open(&mut self, collection: Collection, anchor: usize, has_custom_tag: bool, start: Span) -> Result<()> {
        if has_custom_tag {
            return Err(custom_tag(start));
        }
        if self.awaits_key() {
            return Err(Diagnostic::new(start, "a key must be a string, not a list or mapping"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(Diagnostic::new(start, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.count(1, start)?;
        self.open.push(Open { collection, start, anchor, nodes: self.nodes - 1 });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<Node> {
        // The parser matches starts and ends; if it ever fails to, report an error instead of panicking.
        let Some(open) = self.open.pop() else {
            return Err(Diagnostic::new(end, "not valid YAML: an end without a start"));
        };
        let value = match open.collection {
            Collection::List(items) => Value::List(items),
            Collection::Mapping { mut entries, merged, .. } => {
                for (key, entry) in merged
                    .into_iter()
                    .filter_map(|m| match m.value {
                        Value::Mapping(mapping) => Some(mapping),
                        _ => None,
                    })
                    .flatten()
                {
                    entries.entry(key).or_insert(entry);
                }
                Value::Mapping(entries)
            }
        };
        let span = Span { end: end.end.max(open.start.end), ..open.start };
        let node = Node { value, span };
        if open.anchor != 0 {
            self.anchors.insert(open.anchor, (node.clone(), self.nodes - open.nodes));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Node> {
        if self.awaits_key() {
            return Err(Diagnostic::new(span, "a key must be a string, not an alias"));
        }
        let nodes = match self.anchors.get(&id) {
            Some((_, nodes)) => *nodes,
            None => return Err(Diagnostic::new(span, "this alias refers to a value that contains it")),
        };
        self.count(nodes, span)?;
        Ok(self.anchors[&id].0.clone())
    }
}

fn custom_tag(span: Span) -> Diagnostic {
    Diagnostic::new(span, "custom tags (`!name`) are not supported")
}

impl Collection {
    fn add(&mut self, mut node: Node, errors: &mut Errors) -> Result<()> {
        let (entries, key, merged, merge_key) = match self {
            Self::List(items) => {
                items.push(node);
                return Ok(());
            }
            Self::Mapping { entries, key, merged, merge_key } => (entries, key, merged, merge_key),
        };
        let Some((name, key_span)) = key.take() else {
            *key = Some((node.as_text().unwrap_or_default().to_string(), node.span));
            return Ok(());
        };
        // Report errors in a missing value at its key.
        if node.is_null() && node.span.is_empty() {
            node.span = key_span;
        }
        if name == MERGE {
            if let Some(first) = merge_key.replace(key_span) {
                errors.push(
                    Diagnostic::new(key_span, "duplicate key `<<`")
                        .related(first, "first defined here")
                        .help("merge several mappings with one key: `<<: [*first, *second]`"),
                );
                return Ok(());
            }
            let parts = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            if let Some(part) = parts.iter().find(|p| p.as_mapping().is_none()) {
                return Err(Diagnostic::new(part.span, "`<<` can only merge mappings")
                    .help("use the alias of a mapping: `<<: *name`"));
            }
            merged.extend(parts);
            return Ok(());
        }
        match entries.entry(name) {
            Slot::Vacant(slot) => {
                slot.insert(Entry { key: key_span, node });
            }
            Slot::Occupied(slot) => errors.push(
                Diagnostic::new(key_span, format!("duplicate key {}", quote(slot.key())))
                    .related(slot.get().key, "first defined here"),
            ),
        }
        Ok(())
    }
}
