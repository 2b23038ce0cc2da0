//! Output to stdout and stderr: safe text and colours. Tables are in `layout`.
//!
//! Names, messages and logs come from untrusted files, archives, servers and programs. Untrusted text reaches a
//! terminal only through [`print`], [`note`] and [`print_json`], which show control characters as symbols and redact
//! secrets in URLs. srpipe's own colours pass; [`sanitize`] removes colours from untrusted text before it is inserted
//! into a message.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::redact;

/// Whether a write to stdout failed.
static WRITE_FAILED: AtomicBool = AtomicBool::new(false);
/// Whether the reader of stdout has closed it.
static READER_CLOSED: AtomicBool = AtomicBool::new(false);

/// Writes to stdout. A closed reader (`| head`) is not an error; any other failure is reported once.
pub(super) fn print(text: &str) {
    write_out(&terminal_text(text, Paint::stdout().colours));
}

/// Writes a value as indented JSON to stdout.
pub(super) fn print_json(value: &serde_json::Value) {
    write_out(&json(value));
}

/// Returns a value as indented JSON, in the form that [`print_json`] writes.
pub(super) fn json(value: &serde_json::Value) -> String {
    escape_json(&format!("{value:#}\n")).into_owned()
}

/// Writes a value as one line of JSON to stdout.
pub(super) fn print_json_line(value: &serde_json::Value) {
    write_out(&format!("{}\n", escape_json(&value.to_string())));
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    drop(out);
    report_write_error(written);
}

/// Reports a failed write to stdout.
pub(super) fn report_write_error(written: std::io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => READER_CLOSED.store(true, Ordering::Relaxed),
        Err(error) => {
            if !WRITE_FAILED.swap(true, Ordering::Relaxed) {
                note(&format!("error: cannot write the output: {error}"));
            }
        }
    }
}

/// Whether the reader of stdout has closed it, so that further output is pointless.
pub(super) fn is_stdout_closed() -> bool {
    READER_CLOSED.load(Ordering::Relaxed)
}

/// Whether all output was written, or its reader closed stdout.
pub(super) fn is_output_complete() -> bool {
    !WRITE_FAILED.load(Ordering::Relaxed)
}

/// Writes to stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", terminal_text(text, Paint::stderr().colours));
}

/// Makes untrusted text safe to display: control characters other than line feeds and tabs become symbols.
pub(super) fn sanitize(text: &str) -> Cow<'_, str> {
    replace_unsafe(text, false)
}

/// Like [`sanitize`], for single-line text: line feeds and tabs become symbols too.
pub(super) fn sanitize_line(text: &str) -> Cow<'_, str> {
    match sanitize(text) {
        text if text.contains(['\n', '\t']) => text.replace('\n', "\u{240a}").replace('\t', "\u{2409}").into(),
        text => text,
    }
}

/// Redacts secrets in text and makes it safe to write to a terminal. With `colours`, colour sequences pass.
pub(super) fn terminal_text(text: &str, colours: bool) -> Cow<'_, str> {
    match redact(text) {
        Cow::Borrowed(text) => replace_unsafe(text, colours),
        Cow::Owned(text) => replace_unsafe(&text, colours).into_owned().into(),
    }
}

/// Replaces unsafe characters by symbols or escapes. With `colours`, colour sequences pass.
fn replace_unsafe(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(is_unsafe) {
        safe += &rest[..at];
        rest = &rest[at..];
        let colour = if colours { colour_sequence_len(rest) } else { 0 };
        if colour > 0 {
            safe += &rest[..colour];
            rest = &rest[colour..];
            continue;
        }
        let c = rest.chars().next().expect("`at` is the position of a character");
        rest = &rest[c.len_utf8()..];
        match c {
            '\r' if rest.starts_with('\n') => {}
            // Unicode has symbols for these control characters.
            '\0'..' ' => safe.extend(char::from_u32(0x2400 + u32::from(c))),
            '\x7f' => safe.push('\u{2421}'),
            c => safe.extend(c.escape_unicode()),
        }
    }
    (safe + rest).into()
}

/// Returns the length of the colour sequence at the start of a string, or 0 if there is none.
fn colour_sequence_len(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\x1b[") else { return 0 };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(rest.len());
    if rest[end..].starts_with('m') { "\x1b[".len() + end + 1 } else { 0 }
}

/// Whether a character is a control character other than a line feed or tab, or an invisible one that reorders the text
/// around it.
fn is_unsafe(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes the characters in JSON strings that are unsafe on a terminal; the values stay the same.
fn escape_json(json: &str) -> Cow<'_, str> {
    let json = redact(json);
    // Unsafe characters occur only inside strings.
    if !json.contains(|c| c != '\n' && is_unsafe(c)) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match is_unsafe(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| safe += &format!("\\u{unit:04x}")),
            false => safe.push(c),
        }
    }
    safe.into()
}

/// The style of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Good,
    Bad,
    Attention,
    Dim,
    Plain,
}

/// Adds colours to words if colours are enabled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    colours: bool,
}

impl Paint {
    /// Returns the painter for stdout: without colours if it is not a terminal, or if the environment disables them.
    pub(super) fn stdout() -> Self {
        Self { colours: allows_colours() && std::io::stdout().is_terminal() }
    }

    /// Returns the painter for stderr, by the same rules.
    pub(super) fn stderr() -> Self {
        Self { colours: allows_colours() && std::io::stderr().is_terminal() }
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { colours: false }
    }

    #[cfg(test)]
    pub(super) fn with_colours() -> Self {
        Self { colours: true }
    }

    pub(super) fn has_colours(self) -> bool {
        self.colours
    }

    /// Returns the text in a style.
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        let code = match look {
            Look::Good => 32,
            Look::Bad => 31,
            Look::Attention => 33,
            Look::Dim => 2,
            Look::Plain => 0,
        };
        if self.colours && code > 0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Whether the environment allows colours: `NO_COLOR` is unset or empty (<https://no-color.org>), and the terminal is
/// not dumb.
fn allows_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && !is_dumb()
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether stderr is a terminal that can redraw lines.
pub(super) fn can_draw() -> bool {
    std::io::stderr().is_terminal() && !is_dumb()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_symbols() {
        for (text, expected) in [
            ("a\x1b]0;T\x07b", "a␛]0;T␇b"),
            ("a\tb\nc\r\nd\re", "a\tb\nc\nd␍e"),
            ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
            ("\u{9b}2J\x7f", "\\u{9b}2J␡"),
            ("file\u{202e}gpj.exe\u{e0041}", "file\\u{202e}gpj.exe\\u{e0041}"),
            ("süß → 画", "süß → 画"),
        ] {
            assert_eq!(sanitize(text), expected);
            assert!(!sanitize(text).contains(is_unsafe));
        }
        assert_eq!(sanitize_line("a\nb\tc"), "a␊b␉c");
        // Only colours pass, and only if colours are enabled.
        let painted = Paint { colours: true }.paint(Look::Bad, "x");
        assert_eq!(terminal_text(&painted, true), painted);
        assert_eq!(terminal_text(&painted, false), "␛[31mx␛[0m");
        assert_eq!(terminal_text("\x1b[1;31mx\x1b[2J\x1b[3\x1b", true), "\x1b[1;31mx␛[2J␛[3␛");
        assert_eq!(terminal_text("http://u:SECRET@h\x07", false), "http://***@h␇");
    }

    #[test]
    fn escaped_json_parses_to_the_same_value() {
        let text = "\x1b[31m \u{9b}2J \u{202e} \u{e0041} \x7f \\ \" süß\n";
        let value = serde_json::json!({text: [text, "http://u:SECRET@h/\"?sig=x"]});
        let text_of_value = value.to_string();
        let written = escape_json(&text_of_value);
        assert!(!written.contains(is_unsafe) && !written.contains("SECRET"), "{written}");
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read[text][0], value[text][0]);
    }
}
