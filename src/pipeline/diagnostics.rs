//! Every error of a pipeline file at once: each with its place, the line, a caret and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::config::{mask, redact};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};

/// After this many errors no more are looked for.
const MAX_ERRORS: usize = 200;
/// Places further apart than this many lines are shown as separate snippets.
const SNIPPET_LINES: usize = 12;

/// A text that errors point into.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// The pipeline file, under the name it has in messages.
    File { name: String, text: String },
    /// A `--set` or `--sweep` as it was typed, the flag included.
    Flag(String),
}

impl Text {
    pub fn text(&self) -> &str {
        match self {
            Self::File { text, .. } | Self::Flag(text) => text,
        }
    }
}

/// Bytes of one of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    /// Index of the source: 0 is the file, the flags follow as they were typed.
    pub source: u32,
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn new(source: u32, bytes: Range<usize>) -> Self {
        Self { source, start: bytes.start as u32, end: bytes.end as u32 }
    }

    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// Where something is said; prints as `file:line:column` or as the flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// In the file; `line` and `column` (in characters) count from 1.
    File { file: String, line: usize, column: usize },
    /// On the command line: the flag as it was typed.
    Flag(String),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

pub(super) fn position(sources: &[Text], span: Span) -> Option<Position> {
    match sources.get(span.source as usize)? {
        Text::Flag(flag) => Some(Position::Flag(flag.clone())),
        Text::File { name, text } => {
            let before = text.get(..span.start as usize)?;
            let line_start = before.rfind('\n').map_or(0, |i| i + 1);
            Some(Position::File {
                file: name.clone(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
            })
        }
    }
}

/// One error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// What to do about it, such as "did you mean `steps`?".
    pub help: Option<String>,
    /// Absent where the error is not in the text, as for a file that cannot be read.
    pub(super) span: Option<Span>,
    /// Other places that belong to the error, each with what it is.
    pub(super) related: Vec<(Span, String)>,
}

impl Diagnostic {
    pub(super) fn new(span: Span, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, span: Some(span), related: vec![] }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Help where there is one to give.
    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    pub(super) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }
}

/// The errors found so far.
#[derive(Debug, Default)]
pub(super) struct Errors {
    found: Vec<Diagnostic>,
}

impl Errors {
    /// The same error at the same place is one error: a default is seen once for every stage it reaches.
    pub fn push(&mut self, error: Diagnostic) {
        if !self.is_full() && !self.found.iter().any(|e| e.span == error.span && e.message == error.message) {
            self.found.push(error);
        }
    }

    /// So many errors that no more are collected; what is costly to find need not be looked for.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MAX_ERRORS
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Returns the message of the first error.
    pub fn first_message(&self) -> Option<&str> {
        self.found.first().map(|error| error.message.as_str())
    }

    /// Those at places of which something is true.
    pub fn filter(mut self, is_so: impl Fn(Span) -> bool) -> Self {
        self.found.retain(|error| error.span.is_none_or(&is_so));
        self
    }

    /// Where they are.
    pub fn places(&self) -> impl Iterator<Item = Span> {
        self.found.iter().filter_map(|error| error.span)
    }

    pub fn append(&mut self, other: Self) {
        other.found.into_iter().for_each(|e| self.push(e));
    }

    /// In the order of the file; those of the command line come last.
    pub fn finish(mut self, sources: Arc<[Text]>) -> Diagnostics {
        self.found.sort_by_key(|e| e.span);
        Diagnostics { sources, errors: self.found }
    }
}

/// All the errors of a pipeline file and of the flags applied to it; never empty.
///
/// Prints in full, without colour; [`Diagnostics::render`] chooses.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    sources: Arc<[Text]>,
    errors: Vec<Diagnostic>,
}

impl Diagnostics {
    /// An error about no place in a text.
    pub(super) fn without_place(message: String, help: Option<String>) -> Self {
        Self { sources: Arc::new([]), errors: vec![Diagnostic { message, help, span: None, related: vec![] }] }
    }

    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// Where an error of [`Diagnostics::errors`] is.
    pub fn position(&self, error: &Diagnostic) -> Option<Position> {
        position(&self.sources, error.span?)
    }

    /// The errors as text for people, a blank line between them, with ANSI colours where asked.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let reports: Vec<String> = self.errors.iter().map(|e| self.render_one(e, &renderer)).collect();
        let mut text = reports.join("\n\n");
        if self.errors.len() >= MAX_ERRORS {
            text += &format!("\n\nerror: there are more errors than these {MAX_ERRORS}");
        }
        text
    }

    fn render_one(&self, error: &Diagnostic, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(error.message.as_str());
        let mut group = Group::with_title(title);
        for places in self.snippets(error) {
            group = group.element(self.snippet(&places));
        }
        if let Some(help) = &error.help {
            // Names are escaped where they enter a message; this is for characters that only look harmless.
            let help = normalize_untrusted_str(&redact(help));
            if error.span.is_some() {
                group = group.element(Level::HELP.message(help));
                return renderer.render(&[group]);
            }
            let help = Group::with_title(Level::HELP.primary_title(help));
            return [renderer.render(&[group]), renderer.render(&[help])].join("\n");
        }
        renderer.render(&[group])
    }

    /// The places of an error, those near each other together.
    fn snippets<'a>(&self, error: &'a Diagnostic) -> Vec<Vec<Place<'a>>> {
        let Some(span) = error.span else { return vec![] };
        let primary = Place { span, kind: AnnotationKind::Primary, label: None };
        let mut snippets = vec![vec![primary]];
        for (span, label) in &error.related {
            let place = Place { span: *span, kind: AnnotationKind::Context, label: Some(label) };
            let near = span.source == error.span.map_or(0, |s| s.source) && {
                let text = self.sources[span.source as usize].text();
                let (a, b) = (span.start.min(snippets[0][0].span.start), span.start.max(snippets[0][0].span.start));
                text[a as usize..b as usize].matches('\n').count() <= SNIPPET_LINES
            };
            if near {
                snippets[0].push(place);
            } else {
                snippets.push(vec![place]);
            }
        }
        snippets
    }

    fn snippet<'a>(&'a self, places: &[Place<'a>]) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let source = &self.sources[places[0].span.source as usize];
        let text = source.text();
        // Only the lines in question are handed over, so that a large file costs nothing.
        let first = places.iter().map(|p| p.span.start as usize).min().unwrap_or(0);
        let last = places.iter().map(|p| p.span.start as usize).max().unwrap_or(0);
        let start = text[..first].rfind('\n').map_or(0, |i| i + 1);
        let end = text[last..].find('\n').map_or(text.len(), |i| last + i);
        // The lines of a file from Windows end in \r as well.
        let end = start + text[start..end].trim_end_matches('\r').len();
        let annotations = places.iter().map(|place| {
            // A value of several lines is marked in its first.
            let (from, to) = (place.span.start as usize, place.span.end as usize);
            let line_end = text[from..].find('\n').map_or(text.len(), |i| from + i);
            let to = from + text[from..to.clamp(from, line_end)].trim_end().len();
            place.kind.span(from - start..to - start).label(place.label.map(normalize_untrusted_str))
        });
        // Mask secrets before long lines are shortened: half a password is a secret too.
        let snippet = Snippet::source(mask(&text[start..end])).annotations(annotations);
        match source {
            Text::Flag(_) => snippet.line_numbering(false),
            Text::File { name, .. } => snippet.path(name.as_str()).line_start(text[..start].matches('\n').count() + 1),
        }
    }
}

struct Place<'a> {
    span: Span,
    kind: AnnotationKind,
    label: Option<&'a str>,
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
