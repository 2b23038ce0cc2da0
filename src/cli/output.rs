//! Output to stdout and stderr: safe text, colours and tables.
//!
//! Names, messages and logs come from untrusted files, archives, servers and programs. Untrusted text reaches a
//! terminal only through [`print`], [`note`] and [`print_json`], which show control characters as symbols and redact
//! secrets in URLs. srpipe's own colours pass; [`visible`] removes colours from untrusted text before it is inserted
//! into a message.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use console::measure_text_width;

use crate::config::redact;

/// Whether a write to stdout failed.
static LOST: AtomicBool = AtomicBool::new(false);
/// Whether the reader of stdout has closed it.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Writes to stdout. A closed reader (`| head`) is not an error; any other failure is reported once.
pub fn print(text: &str) {
    write_out(&shown(text, Paint::stdout().colours));
}

/// Writes a value as indented JSON to stdout.
pub fn print_json(value: &serde_json::Value) {
    write_out(&json(value));
}

/// Returns a value as indented JSON, in the form that [`print_json`] writes.
pub fn json(value: &serde_json::Value) -> String {
    json_text(&format!("{value:#}\n")).into_owned()
}

/// Writes a value as one line of JSON to stdout.
pub fn print_json_line(value: &serde_json::Value) {
    write_out(&format!("{}\n", json_text(&value.to_string())));
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    drop(out);
    check(written);
}

/// Reports a failed write to stdout.
pub fn check(written: std::io::Result<()>) {
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
pub fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Whether all output was written, or its reader closed stdout.
pub fn is_written() -> bool {
    !LOST.load(Ordering::Relaxed)
}

/// Writes to stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", shown(text, Paint::stderr().colours));
}

/// Makes untrusted text safe to display: control characters other than line feeds and tabs become symbols.
pub fn visible(text: &str) -> Cow<'_, str> {
    filtered(text, false)
}

/// As [`visible`], for single-line text: line feeds and tabs become symbols too.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    match visible(text) {
        text if text.contains(['\n', '\t']) => text.replace('\n', "\u{240a}").replace('\t', "\u{2409}").into(),
        text => text,
    }
}

/// Returns text that is safe to write to a terminal. With `colours`, colour sequences pass.
pub fn shown(text: &str, colours: bool) -> Cow<'_, str> {
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

/// Returns the length of the colour sequence at the start of a text, or 0 if there is none.
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
pub enum Look {
    Good,
    Bad,
    Attention,
    Dim,
    Plain,
}

/// Adds colours to words if colours are enabled.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    colours: bool,
}

impl Paint {
    pub fn stdout() -> Self {
        Self { colours: wanted() && std::io::stdout().is_terminal() }
    }

    pub fn stderr() -> Self {
        Self { colours: wanted() && std::io::stderr().is_terminal() }
    }

    #[cfg(test)]
    pub fn none() -> Self {
        Self { colours: false }
    }

    pub fn has_colours(self) -> bool {
        self.colours
    }

    pub fn paint(self, look: Look, text: &str) -> String {
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
pub fn can_draw() -> bool {
    std::io::stderr().is_terminal() && !is_dumb()
}

/// Returns the width of the terminal on stdout; without a terminal, the width is unlimited.
fn width() -> usize {
    console::Term::stdout().size_checked().map_or(usize::MAX, |(_, columns)| columns.into())
}

/// The minimum width of a text column, in characters.
const NARROW: usize = 14;

/// A table with headings. Columns are as wide as their content; numbers are right-aligned.
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<(Look, String)>>,
}

impl Table {
    pub fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(|heading| visible_line(heading).into_owned()).collect(), rows: vec![] }
    }

    /// Adds a row, with one cell per heading.
    pub fn row(&mut self, cells: Vec<(Look, String)>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells.into_iter().map(|(look, text)| (look, visible_line(&text).into_owned())).collect());
    }

    /// Returns the table as text, without empty columns. On a narrow terminal, text wraps within its column; columns that
    /// still do not fit follow in further blocks, each with the first column repeated.
    pub fn render(&self, paint: Paint) -> String {
        self.render_within(paint, width())
    }

    fn render_within(&self, paint: Paint, most: usize) -> String {
        let mut columns = self.columns();
        let least: Vec<usize> = (0..self.headings.len()).map(|c| self.least_width(c)).collect();
        while width_of(&columns) > most {
            let texts = columns.iter_mut().filter(|column| !column.right && column.width > least[column.c]);
            let Some(widest) = texts.max_by_key(|column| column.width) else { return self.blocks(paint, most) };
            widest.width -= 1;
        }
        self.block(&columns, paint)
    }

    /// Returns the width of a column's longest word, which is not broken if the table fits otherwise.
    fn least_width(&self, c: usize) -> usize {
        let words = self.rows.iter().flat_map(|row| words(&row[c].1)).map(|word| word.trim_end());
        words.chain([self.headings[c].as_str()]).map(measure_text_width).max().unwrap_or(0).max(NARROW)
    }

    /// Returns the table in blocks of columns that fit together.
    fn blocks(&self, paint: Paint, most: usize) -> String {
        let mut columns = self.columns();
        // Names take at most half of the width, and other text at most the rest.
        if let Some((first, rest)) = columns.split_first_mut() {
            first.width = first.width.min((most / 2).max(NARROW));
            let room = most.saturating_sub(first.width + 2).max(NARROW);
            rest.iter_mut().filter(|column| !column.right).for_each(|column| column.width = column.width.min(room));
        }
        let Some((first, rest)) = columns.split_first() else { return self.block(&columns, paint) };
        let mut blocks: Vec<Vec<Column>> = vec![];
        let mut room = 0;
        for column in rest {
            if blocks.is_empty() || column.width + 2 > room {
                blocks.push(vec![*first]);
                room = most.saturating_sub(first.width);
            }
            room = room.saturating_sub(column.width + 2);
            blocks.last_mut().expect("one was pushed").push(*column);
        }
        if blocks.is_empty() {
            blocks.push(vec![*first]);
        }
        blocks.iter().map(|block| self.block(block, paint)).collect::<Vec<_>>().join("\n")
    }

    fn columns(&self) -> Vec<Column> {
        let columns = (0..self.headings.len()).filter(|&c| self.rows.iter().any(|row| !row[c].1.is_empty()));
        columns.map(|c| self.column(c)).collect()
    }

    fn column(&self, c: usize) -> Column {
        let cells = || self.rows.iter().map(|row| row[c].1.as_str());
        let width = cells().chain([self.headings[c].as_str()]).map(measure_text_width).max().unwrap_or(0);
        let is_number = |cell: &str| cell.is_empty() || cell.split(" ± ").all(|part| part.parse::<f64>().is_ok());
        Column { c, width, right: cells().all(is_number) }
    }

    fn block(&self, columns: &[Column], paint: Paint) -> String {
        let line = |cell: &dyn Fn(usize) -> (Look, String)| {
            let broken: Vec<Vec<String>> =
                columns.iter().map(|column| broken(&cell(column.c).1, column.width)).collect();
            let height = broken.iter().map(Vec::len).max().unwrap_or(0);
            let nth = |i: usize| {
                let cells = columns.iter().zip(&broken).map(|(&Column { c, width, right }, lines)| {
                    let text = lines.get(i).cloned().unwrap_or_default();
                    let space = " ".repeat(width.saturating_sub(measure_text_width(&text)));
                    let text = if text.is_empty() { text } else { paint.paint(cell(c).0, &text) };
                    if right { space + &text } else { text + &space }
                });
                cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
            };
            (0..height).map(nth).collect::<String>()
        };
        let head = line(&|c| (Look::Dim, self.headings[c].clone()));
        let rows = self.rows.iter().map(|row| line(&|c| row[c].clone()));
        std::iter::once(head).chain(rows).collect()
    }
}

/// Returns the total width of columns with two spaces between them.
fn width_of(columns: &[Column]) -> usize {
    columns.iter().map(|column| column.width + 2).sum::<usize>().saturating_sub(2)
}

/// Splits text into words and parts of names, where a line may break.
fn words(text: &str) -> Vec<&str> {
    let mut rest = text;
    let mut words = vec![];
    let ends = |(before, (_, after)): &(char, (usize, char))| matches!(before, ' ' | ',' | '/') || *after == '[';
    while let Some((_, (end, _))) = rest.chars().zip(rest.char_indices().skip(1)).find(ends) {
        words.push(&rest[..end]);
        rest = &rest[end..];
    }
    words.push(rest);
    words
}

/// Splits a word that is wider than `width` columns into pieces that are not.
fn cut(word: &str, width: usize) -> Vec<&str> {
    let mut rest = word;
    let mut pieces = vec![];
    while measure_text_width(rest.trim_end()) > width {
        let ends = rest.char_indices().map(|(start, c)| start + c.len_utf8());
        let end = ends.clone().take_while(|&end| measure_text_width(&rest[..end]) <= width).last();
        let (piece, after) = rest.split_at(end.or(ends.min()).unwrap_or(0));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// Joins pieces of text to lines of at most `width` columns; longer pieces have lines of their own. Lines after the first
/// are indented. Returns at least one line.
pub fn fill<'a>(pieces: impl IntoIterator<Item = &'a str>, indent: usize, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in pieces {
        let line = lines.last_mut().expect("there is one");
        let is_full = measure_text_width(line) + measure_text_width(piece.trim_end()) > width;
        match is_full && !line.trim().is_empty() {
            true => lines.push(" ".repeat(indent) + piece),
            false => line.push_str(piece),
        }
    }
    lines.iter().map(|line| line.trim_end().to_string()).collect()
}

/// Breaks a cell into lines of at most `width` columns, between words or parts of names if possible.
fn broken(text: &str, width: usize) -> Vec<String> {
    fill(words(text).into_iter().flat_map(|word| cut(word, width)), 0, width)
}

/// A column of a table: its index and its layout.
#[derive(Debug, Clone, Copy)]
struct Column {
    c: usize,
    width: usize,
    right: bool,
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

    #[test]
    fn a_table_is_as_wide_as_its_content() {
        let mut table = Table::new(&["arm", "dB", "none"]);
        let cell = |text: &str| (Look::Good, text.to_string());
        for (arm, db) in [("bicubic", "21.17"), ("süß", "9.5")] {
            table.row(vec![cell(arm), cell(db), cell("")]);
        }
        assert_eq!(table.render(Paint { colours: false }), "arm         dB\nbicubic  21.17\nsüß        9.5\n");
        let narrow = "arm         dB\nbicubic  21.17\nsüß        9.5\n\narm        SSIM\nbicubic  0.7004\n";
        let mut wide = Table::new(&["arm", "dB", "SSIM"]);
        let cells = |row: [&str; 3]| row.map(|cell| (Look::Plain, cell.to_string())).to_vec();
        wide.row(cells(["bicubic", "21.17", "0.7004"]));
        wide.row(cells(["süß", "9.5", ""]));
        assert_eq!(wide.render_within(Paint::none(), 21), narrow.to_string() + "süß\n");
        assert_eq!(wide.render_within(Paint::none(), 22).lines().count(), 3);
        let mut long = Table::new(&["stage", "state", "took"]);
        long.row(vec![cell("net[kind=none,lr=1e-3,seed=0]"), cell("waits for the result of images"), cell("3.5")]);
        long.row(vec![cell("images"), cell("done"), cell("12")]);
        let expected = "stage             state             took\n\
                        net[kind=none,    waits for the      3.5\n\
                        lr=1e-3,seed=0]   result of images\n\
                        images            done                12\n";
        assert_eq!(long.render_within(Paint::none(), 40), expected);
        let expected = "stage             state\n\
                        net[kind=none,    waits for the\n\
                        lr=1e-3,seed=0]   result of\n\
                        images            done\n\
                        \n\
                        stage             took\n\
                        net[kind=none,     3.5\n\
                        lr=1e-3,seed=0]\n\
                        images              12\n";
        let mut wordy = Table::new(&["stage", "state", "took"]);
        wordy.row(vec![cell("net[kind=none,lr=1e-3,seed=0]"), cell("waits for the result of"), cell("3.5")]);
        wordy.row(vec![cell("images"), cell("done"), cell("12")]);
        assert_eq!(wordy.render_within(Paint::none(), 32), expected);
        assert_eq!(broken("ab cdefgh", 3), ["ab", "cde", "fgh"]);
        assert_eq!(broken("names[a=1,b=2]", 9), ["names", "[a=1,b=2]"]);
        assert!(table.render(Paint { colours: true }).contains("\x1b[32msüß\x1b[0m      "));
    }
}
