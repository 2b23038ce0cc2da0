//! The errors of a pipeline file, with positions, source lines, carets and hints.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::config::{mask, redact};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};

/// The maximum number of errors to collect.
const MAX_ERRORS: usize = 200;
/// Spans that are more lines apart than this are shown as separate snippets.
const SNIPPET_LINES: usize = 12;

/// A source that errors can point into.
#[derive(Debug, Clone)]
pub(super) enum SourceText {
    /// The pipeline file. `name` is shown in messages.
    File { name: String, text: String },
    /// A `--set` or `--sweep` argument, including the flag itself.
    Flag(String),
}

impl SourceText {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::File { text, .. } | Self::Flag(text) => text,
        }
    }
}

/// A byte range of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    /// The index of the source: 0 for the file, then the flags in the order of the command line.
    pub(super) source: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) fn new(source: u32, bytes: Range<usize>) -> Self {
        Self { source, start: bytes.start as u32, end: bytes.end as u32 }
    }

    pub(super) fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// The position of a value in the sources; displayed as `file:line:column` or as the flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// `line` and `column` (in characters) are counted from 1.
    File { file: String, line: usize, column: usize },
    /// A command-line flag as typed.
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

/// Returns the position of the start of a span.
pub(super) fn position(sources: &[SourceText], span: Span) -> Option<Position> {
    match sources.get(span.source as usize)? {
        SourceText::Flag(flag) => Some(Position::Flag(flag.clone())),
        SourceText::File { name, text } => {
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

/// An error in a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub message: String,
    /// How to fix it, such as "did you mean `steps`?".
    pub help: Option<String>,
    /// None if the error does not belong to a source, for example if the file cannot be read.
    span: Option<Span>,
    /// Other spans that belong to the error, with labels.
    related: Vec<(Span, String)>,
}

impl Diagnostic {
    pub(super) fn new(span: Span, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, span: Some(span), related: vec![] }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the help text, unless `help` is None.
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
pub struct Errors {
    found: Vec<Diagnostic>,
}

impl Errors {
    /// Adds an error unless it was added before: defaults are validated once per stage that they apply to.
    pub(super) fn push(&mut self, error: Diagnostic) {
        if !self.is_full() && !self.found.iter().any(|e| e.span == error.span && e.message == error.message) {
            self.found.push(error);
        }
    }

    /// Whether the maximum number of errors is reached. Expensive checks can then be skipped.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MAX_ERRORS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Returns the message of the first error.
    pub(super) fn first_message(&self) -> Option<&str> {
        self.found.first().map(|error| error.message.as_str())
    }

    /// Keeps the errors whose span satisfies `is_kept`, and those without a span.
    pub(super) fn filter(mut self, is_kept: impl Fn(Span) -> bool) -> Self {
        self.found.retain(|error| error.span.is_none_or(&is_kept));
        self
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        self.found.iter().filter_map(|error| error.span)
    }

    pub(super) fn append(&mut self, other: Self) {
        other.found.into_iter().for_each(|e| self.push(e));
    }

    /// Sorts the errors by position; those in flags come last.
    pub(super) fn finish(mut self, sources: Arc<[SourceText]>) -> Diagnostics {
        self.found.sort_by_key(|e| e.span);
        Diagnostics { sources, errors: self.found }
    }
}

/// The errors of a pipeline file and its flags; never empty.
///
/// Displayed without colour; use [`Diagnostics::render`] for coloured output.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    sources: Arc<[SourceText]>,
    errors: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Creates a single error that does not belong to a source.
    pub(super) fn without_position(message: String, help: Option<String>) -> Self {
        Self { sources: Arc::new([]), errors: vec![Diagnostic { message, help, span: None, related: vec![] }] }
    }

    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// Returns the position of one of [`Diagnostics::errors`].
    pub fn position(&self, error: &Diagnostic) -> Option<Position> {
        position(&self.sources, error.span?)
    }

    /// Renders the errors with source lines and carets, separated by blank lines.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let reports: Vec<String> = self.errors.iter().map(|e| self.render_one(e, &renderer)).collect();
        let mut text = reports.join("\n\n");
        if self.errors.len() >= MAX_ERRORS {
            text += &format!("\n\nerror: too many errors; only the first {MAX_ERRORS} are shown");
        }
        text
    }

    fn render_one(&self, error: &Diagnostic, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(error.message.as_str());
        let mut group = Group::with_title(title);
        for highlights in self.snippets(error) {
            group = group.element(self.snippet(&highlights));
        }
        if let Some(help) = &error.help {
            // Names in messages are escaped already; this handles characters that only look harmless.
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

    /// Groups the spans of an error into snippets of nearby lines.
    fn snippets<'a>(&self, error: &'a Diagnostic) -> Vec<Vec<Highlight<'a>>> {
        let Some(span) = error.span else { return vec![] };
        let primary = Highlight { span, kind: AnnotationKind::Primary, label: None };
        let mut snippets = vec![vec![primary]];
        for (span, label) in &error.related {
            let highlight = Highlight { span: *span, kind: AnnotationKind::Context, label: Some(label) };
            let near = span.source == error.span.map_or(0, |s| s.source) && {
                let text = self.sources[span.source as usize].text();
                let (a, b) = (span.start.min(snippets[0][0].span.start), span.start.max(snippets[0][0].span.start));
                text[a as usize..b as usize].matches('\n').count() <= SNIPPET_LINES
            };
            if near {
                snippets[0].push(highlight);
            } else {
                snippets.push(vec![highlight]);
            }
        }
        snippets
    }

    fn snippet<'a>(&'a self, highlights: &[Highlight<'a>]) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let source = &self.sources[highlights[0].span.source as usize];
        let text = source.text();
        // Pass only the relevant lines to the renderer, so that large files are fast.
        let first = highlights.iter().map(|h| h.span.start as usize).min().unwrap_or(0);
        let last = highlights.iter().map(|h| h.span.start as usize).max().unwrap_or(0);
        let start = text[..first].rfind('\n').map_or(0, |i| i + 1);
        let end = text[last..].find('\n').map_or(text.len(), |i| last + i);
        // Lines of Windows files end in \r\n.
        let end = start + text[start..end].trim_end_matches('\r').len();
        let annotations = highlights.iter().map(|highlight| {
            // Mark only the first line of a multi-line value.
            let (from, to) = (highlight.span.start as usize, highlight.span.end as usize);
            let line_end = text[from..].find('\n').map_or(text.len(), |i| from + i);
            let to = from + text[from..to.clamp(from, line_end)].trim_end().len();
            highlight.kind.span(from - start..to - start).label(highlight.label.map(normalize_untrusted_str))
        });
        // Mask secrets before long lines are shortened: half a password is a secret too.
        let snippet = Snippet::source(mask(&text[start..end])).annotations(annotations);
        match source {
            SourceText::Flag(_) => snippet.line_numbering(false),
            SourceText::File { name, .. } => {
                snippet.path(name.as_str()).line_start(text[..start].matches('\n').count() + 1)
            }
        }
    }
}

/// A span to mark in a snippet.
struct Highlight<'a> {
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
