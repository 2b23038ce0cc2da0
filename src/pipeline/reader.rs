//! Text to tree: the events of the YAML parser, with limits that no pipeline of a person reaches.

use std::collections::HashMap;

use indexmap::map::Entry as Slot;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

use super::diagnostics::{Diagnostic, Errors, Span};
use super::tree::{Entry, Mapping, Node, Value, plain_scalar};
use super::words::{is_odd_space, look_alike, odd_character, quote};

/// The largest file that is read. The parser takes time in proportion to values times the length of their line, so that
/// much larger ones could be made to take minutes.
pub(super) const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 64;
/// Values in a document, those that aliases repeat counted every time.
const MAX_NODES: usize = 200_000;

/// Where in which source a text stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub source: u32,
    /// Where in the source the text begins, in bytes.
    pub offset: usize,
}

/// Reads the only document in `text`. Returns None and adds to `errors` if it is invalid.
pub(super) fn read(text: &str, place: Place, errors: &mut Errors) -> Option<Node> {
    read_with(text, None, place, errors)
}

/// Reads a value from the command line. There, comments are useless and names may contain `#`, so `#` is an ordinary
/// character.
pub(super) fn read_argument(text: &str, place: Place, errors: &mut Errors) -> Option<Node> {
    // The parser sees a private-use character instead, one that does not occur in the text.
    let stand_in = ('\u{E000}'..='\u{F8FF}').find(|&c| !text.contains(c));
    read_with(text, stand_in.filter(|_| text.contains('#')), place, errors)
}

fn read_with(text: &str, hash: Option<char>, place: Place, errors: &mut Errors) -> Option<Node> {
    let reader = Reader::new(text, hash, place);
    if let Some((at, c)) = text.char_indices().find(|&(_, c)| is_forbidden(c)) {
        let span = Span::new(place.source, place.offset + at..place.offset + at + c.len_utf8());
        errors.push(
            Diagnostic::new(span, format!("control character U+{:04X} in the text", c as u32))
                .help("YAML is text; within double quotes such a character is written as an escape"),
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

/// YAML 1.2, section 5.1, production 1.
fn is_forbidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) || matches!(c, '\u{FFFE}' | '\u{FFFF}')
}

struct Reader<'a> {
    text: &'a str,
    /// The character that replaces `#` for the parser, if `#` does not start a comment.
    hash: Option<char>,
    place: Place,
    /// The byte at which each character starts, where that is not its index.
    starts: Option<Vec<u32>>,
    open: Vec<Open>,
    /// Complete anchored values, with the number of nodes in them.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

/// A collection whose end is not read yet.
struct Open {
    collection: Collection,
    start: Span,
    anchor: usize,
    /// Nodes read before it.
    nodes: usize,
}

enum Collection {
    List(Vec<Node>),
    Mapping {
        entries: Mapping,
        /// The key whose value comes next.
        key: Option<(String, Span)>,
        /// The values of `<<`, and its position.
        merged: Vec<Node>,
        merge_key: Option<Span>,
    },
}

/// The key that merges mappings into the one that contains it.
const MERGE: &str = "<<";

type Result<T> = std::result::Result<T, Diagnostic>;

/// By parts of what the parser says: what is wrong then, most often.
const HELP: [(&str, &str); 6] = [
    ("flow", "here or before this, a `,` between two entries is missing, or a `}` or `]` at their end"),
    ("simple key", "a key needs a colon and a space behind it, here or in the line before: `seed: 0`"),
    (
        "quoted scalar",
        "quotes do not match, here or before: each that opens has to close, and one within a text is written twice ('') or as \\\"",
    ),
    ("did not find expected key", "keys of one mapping begin in the same column: compare this line with those before"),
    (
        "mapping values",
        "one key to a line, each with its `:`, here and in the line before, indented as its neighbours; or in braces as in `{ kind: fetch }`",
    ),
    ("placement of ':'", "before this, a quote or a bracket has no end"),
];

impl<'a> Reader<'a> {
    fn new(text: &'a str, hash: Option<char>, place: Place) -> Self {
        let starts = (!text.is_ascii()).then(|| text.char_indices().map(|(i, _)| i as u32).collect());
        Self { text, hash, place, starts, open: vec![], anchors: HashMap::new(), nodes: 0 }
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
        Span::new(self.place.source, self.place.offset + start..self.place.offset + end)
    }

    fn syntax_error(&self, error: &ScanError) -> Diagnostic {
        // At the end of the text there is nothing to point at: the last thing written is what lacks its end.
        let at = self.byte(error.marker());
        let before = self.text[..at].trim_end().len();
        let on_blank = self.text[at..].trim_start_matches([' ', '\t', '\r']).starts_with('\n') || at == self.text.len();
        let start = if on_blank { self.text[..before].char_indices().next_back().map_or(0, |(i, _)| i) } else { at };
        let end = self.text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
        let span = Span::new(self.place.source, self.place.offset + start..self.place.offset + end);
        let line = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
        // The parser finds a tab where the line should be indented, and points at what stands before it.
        if error.info().contains("tab")
            && let Some(tab) = self.text[line..].find('\t').map(|i| line + i)
        {
            let span = Span::new(self.place.source, self.place.offset + tab..self.place.offset + tab + 1);
            return Diagnostic::new(span, "a tab").help("YAML is indented with spaces");
        }
        if let Some(error) = self.odd_indentation(start) {
            return error;
        }
        let said = Diagnostic::new(span, format!("not valid YAML: {}", error.info()));
        let help = HELP.iter().find(|(part, _)| error.info().contains(part)).map(|(_, help)| help.to_string());
        let hash = self.hash.map(|_| "`#` does not start a comment on the command line".to_string());
        said.maybe_help(hash.or_else(|| odd_character(self.line_at(start))).or(help))
    }

    /// Returns the line that contains a byte position.
    fn line_at(&self, at: usize) -> &'a str {
        let start = self.text[..at].rfind('\n').map_or(0, |i| i + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |i| at + i);
        &self.text[start..end]
    }

    /// Finds a character in the indentation at or before `at` that looks like a space but is not one to YAML, which
    /// then misjudges the indentation.
    fn odd_indentation(&self, at: usize) -> Option<Diagnostic> {
        const LINES: usize = 20;
        let line_end = self.text[at..].find('\n').map_or(self.text.len(), |i| at + i);
        let mut end = line_end;
        for _ in 0..LINES {
            let start = self.text[..end].rfind('\n').map_or(0, |i| i + 1);
            let line = &self.text[start..end];
            let indented = line.char_indices().take_while(|(_, c)| c.is_whitespace() || is_odd_space(*c));
            if let Some((i, c)) = indented.into_iter().find(|(_, c)| is_odd_space(*c)) {
                let at = self.place.offset + start + i;
                let span = Span::new(self.place.source, at..at + c.len_utf8());
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
                            .help("a pipeline file holds one; write the other to a file of its own"));
                    }
                    None
                }
                Event::Alias(id) => Some(self.alias(id, span)?),
                Event::Scalar(text, style, anchor, tag) => {
                    let text = self.hash.map_or_else(|| text.to_string(), |c| text.replace(c, "#"));
                    let is_key = self.awaits_key();
                    let value = match tag {
                        // `true` and `null` are names as good as others.
                        None if is_key => Value::Text(text),
                        None if style == ScalarStyle::Plain => plain_scalar(&text),
                        None => Value::Text(text),
                        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Value::Text(text),
                        Some(tag) if tag.is_yaml_core_schema() => plain_scalar(&text),
                        Some(_) => return Err(no_tags(span)),
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
        let nowhere = Span::new(self.place.source, self.place.offset..self.place.offset);
        Ok(root.unwrap_or_else(|| Node::null(nowhere)))
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { collection: Collection::Mapping { key: None, .. }, .. }))
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<()> {
        self.nodes += nodes;
        match self.nodes <= MAX_NODES {
            true => Ok(()),
            false => {
                Err(Diagnostic::new(span, format!("more than {MAX_NODES} values, those that aliases repeat counted")))
            }
        }
    }

    fn open(&mut self, collection: Collection, anchor: usize, strange_tag: bool, start: Span) -> Result<()> {
        if strange_tag {
            return Err(no_tags(start));
        }
        if self.awaits_key() {
            return Err(Diagnostic::new(start, "a key must be a word, not a list or a mapping"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(Diagnostic::new(start, format!("nested more than {MAX_DEPTH} deep")));
        }
        self.count(1, start)?;
        self.open.push(Open { collection, start, anchor, nodes: self.nodes - 1 });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<Node> {
        // The parser pairs starts and ends; should it ever not, that is its error and no reason to stop the program.
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
            return Err(Diagnostic::new(span, "a key must be a word, not an alias"));
        }
        let nodes = match self.anchors.get(&id) {
            Some((_, nodes)) => *nodes,
            None => return Err(Diagnostic::new(span, "this alias stands within the very value that it names")),
        };
        self.count(nodes, span)?;
        Ok(self.anchors[&id].0.clone())
    }
}

fn no_tags(span: Span) -> Diagnostic {
    Diagnostic::new(span, "tags of one's own (`!name`) have no meaning in a pipeline")
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
        // A value that is not there is shown at its key.
        if node.is_null() && node.span.is_empty() {
            node.span = key_span;
        }
        if name == MERGE {
            if let Some(first) = merge_key.replace(key_span) {
                errors.push(
                    Diagnostic::new(key_span, "`<<` is given twice")
                        .related(first, "the first time is here")
                        .help("merge several mappings with one key: `<<: [*first, *second]`"),
                );
                return Ok(());
            }
            let parts = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            if let Some(part) = parts.iter().find(|p| p.as_mapping().is_none()) {
                return Err(
                    Diagnostic::new(part.span, "`<<` merges mappings").help("name one by its alias: `<<: *name`")
                );
            }
            merged.extend(parts);
            return Ok(());
        }
        match entries.entry(name) {
            Slot::Vacant(slot) => {
                slot.insert(Entry { key: key_span, node });
            }
            Slot::Occupied(slot) => errors.push(
                Diagnostic::new(key_span, format!("{} is given twice", quote(slot.key())))
                    .related(slot.get().key, "the first time is here"),
            ),
        }
        Ok(())
    }
}
