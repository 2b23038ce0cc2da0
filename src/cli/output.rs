//! Output to stdout and stderr: safe text and colours. Tables are in `layout`.
//!
//! Names, messages and logs come from untrusted files, archives, servers and programs. Untrusted text reaches a
//! terminal only through [`print`], [`note`] and [`print_json`], which show control characters as symbols and redact
//! secrets in URLs. srpipe's own colours pass; [`visible`] removes colours from untrusted text before it is inserted
//! into a message.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::redact;

/// Whether a write to stdout failed.
static LOST: AtomicBool = AtomicBool::new(false);
/// Whether the reader of stdout has closed it.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Writes to stdout. A closed reader (`| head`) is not an error; any other failure is reported once.
pub(super) fn print(text: &str) {
    write_out(&shown(text, Paint::stdout().colours));
}

/// Writes a value as indented JSON to stdout.
pub(super) fn print_json(value: &serde_json::Value) {
    write_out(&json(value));
}

/// Returns a value as indented JSON, in the form that [`print_json`] writes.
pub(super) fn json(value: &serde_json::Value) -> String {
    json_text(&format!("{value:#}\n")).into_owned()
}

/// Writes a value as one line of JSON to stdout.
pub(super) fn print_json_line(value: &serde_json::Value) {
    write_out(&format!("{}\n", json_text(&value.to_string())));
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    drop(out);
    check(written);
}

/// Reports a failed write to stdout.
pub(super) fn check(written: std::io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => CLOSED.store(true, Ordering::Relaxed),
        Err(error) => {
            if !LOST.swap(true, Ordering::Relaxed) {
                note(&format!("error: cannot write the output: {error}"));
            }
        }
    }
}

/// Whether the reader of stdout has closed it, so that further output is pointless.
pub(super) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Whether all output was written, or its reader closed stdout.
pub(super) fn is_written() -> bool {
    !LOST.load(Ordering::Relaxed)
}

/// Writes to stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", shown(text, Paint::stderr().colours));
}

/// Makes untrusted text safe to display: control characters other than line feeds and tabs become symbols.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    filtered(text, false)
}

/// As [`visible`], for single-line text: line feeds and tabs become symbols too.
pub(super) fn visible_line(text: &str) -> Cow<'_, str> {
    match visible(text) {
        text if text.contains(['\n', '\t']) => text.replace('\n', "\u{240a}").replace('\t', "\u{2409}").into(),
        text => text,
    }
}

/// Returns text that is safe to write to a terminal. With `colours`, colour sequences pass.
pub(super) fn shown(text: &str, colours: bool) -> Cow<'_, str> {
    match redact(text) {
        Cow::Borrowed(text) => filtered(text, colours),
        Cow::Owned(text) => filtered(&text, colours).into_owned().into(),
    }
}

fn filtered(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(is_unsafe) {
        safe += &rest[..at];
        rest = &rest[at..];
        let colour = if colours { colour_at(rest) } else { 0 };
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
fn colour_at(text: &str) -> usize {
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
fn json_text(json: &str) -> Cow<'_, str> {
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
    pub(super) fn stdout() -> Self {
        Self { colours: wanted() && std::io::stdout().is_terminal() }
    }

    pub(super) fn stderr() -> Self {
        Self { colours: wanted() && std::io::stderr().is_terminal() }
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

/// Whether `NO_COLOR` is unset or empty (<https://no-color.org>).
fn wanted() -> bool {
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
            assert_eq!(visible(text), expected);
            assert!(!visible(text).contains(is_unsafe));
        }
        assert_eq!(visible_line("a\nb\tc"), "a␊b␉c");
        // Only colours pass, and only if colours are enabled.
        let painted = Paint { colours: true }.paint(Look::Bad, "x");
        assert_eq!(shown(&painted, true), painted);
        assert_eq!(shown(&painted, false), "␛[31mx␛[0m");
        assert_eq!(shown("\x1b[1;31mx\x1b[2J\x1b[3\x1b", true), "\x1b[1;31mx␛[2J␛[3␛");
        assert_eq!(shown("http://u:SECRET@h\x07", false), "http://***@h␇");
    }

    #[test]
    fn escaped_json_parses_to_the_same_value() {
        let text = "\x1b[31m \u{9b}2J \u{202e} \u{e0041} \x7f \\ \" süß\n";
        let value = serde_json::json!({text: [text, "http://u:SECRET@h/\"?sig=x"]});
        let text_of_value = value.to_string();
        let written = json_text(&text_of_value);
        assert!(!written.contains(is_unsafe) && !written.contains("SECRET"), "{written}");
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read[text][0], value[text][0]);
    }
}
