//! Tables and line breaks.

use console::measure_text_width;

use super::output::{Look, Paint, sanitize_line};

/// Returns the width of the terminal on stdout; without a terminal, the width is unlimited.
fn width() -> usize {
    console::Term::stdout().size_checked().map_or(usize::MAX, |(_, columns)| columns.into())
}

/// The minimum width of a text column, in characters.
const MIN_TEXT_WIDTH: usize = 14;

/// A table with headings. Columns are as wide as their content; numbers are right-aligned.
pub(super) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<(Look, String)>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(|heading| sanitize_line(heading).into_owned()).collect(), rows: vec![] }
    }

    /// Adds a row, with one cell per heading.
    pub(super) fn row(&mut self, cells: Vec<(Look, String)>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells.into_iter().map(|(look, text)| (look, sanitize_line(&text).into_owned())).collect());
    }

    /// Returns the table as text, without empty columns. On a narrow terminal, text wraps within its column; columns
    /// that still do not fit follow in further blocks, each with the first column repeated.
    pub(super) fn render(&self, paint: Paint) -> String {
        self.render_within(paint, width())
    }

    fn render_within(&self, paint: Paint, max_width: usize) -> String {
        let mut columns = self.columns();
        let min_widths: Vec<usize> = (0..self.headings.len()).map(|c| self.min_width(c)).collect();
        while total_width(&columns) > max_width {
            let texts =
                columns.iter_mut().filter(|column| !column.is_right_aligned && column.width > min_widths[column.c]);
            let Some(widest) = texts.max_by_key(|column| column.width) else { return self.blocks(paint, max_width) };
            widest.width -= 1;
        }
        self.block(&columns, paint)
    }

    /// Returns the width of a column's longest word, which is not broken if the table fits otherwise.
    fn min_width(&self, c: usize) -> usize {
        let words = self.rows.iter().flat_map(|row| split_words(&row[c].1)).map(|word| word.trim_end());
        words.chain([self.headings[c].as_str()]).map(measure_text_width).max().unwrap_or(0).max(MIN_TEXT_WIDTH)
    }

    /// Renders the table in blocks of columns that fit next to each other.
    fn blocks(&self, paint: Paint, max_width: usize) -> String {
        let mut columns = self.columns();
        // Names take at most half of the width, and other text at most the remaining width.
        if let Some((first, rest)) = columns.split_first_mut() {
            first.width = first.width.min((max_width / 2).max(MIN_TEXT_WIDTH));
            let available = max_width.saturating_sub(first.width + 2).max(MIN_TEXT_WIDTH);
            rest.iter_mut()
                .filter(|column| !column.is_right_aligned)
                .for_each(|column| column.width = column.width.min(available));
        }
        let Some((first, rest)) = columns.split_first() else { return self.block(&columns, paint) };
        let mut blocks: Vec<Vec<Column>> = vec![];
        let mut available = 0;
        for column in rest {
            if blocks.is_empty() || column.width + 2 > available {
                blocks.push(vec![*first]);
                available = max_width.saturating_sub(first.width);
            }
            available = available.saturating_sub(column.width + 2);
            blocks.last_mut().expect("a block was pushed").push(*column);
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
        Column { c, width, is_right_aligned: cells().all(is_number) }
    }

    /// Renders some columns of the table.
    fn block(&self, columns: &[Column], paint: Paint) -> String {
        let line = |cell: &dyn Fn(usize) -> (Look, String)| {
            let wrapped: Vec<Vec<String>> =
                columns.iter().map(|column| wrap_cell(&cell(column.c).1, column.width)).collect();
            let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
            let nth = |i: usize| {
                let cells = columns.iter().zip(&wrapped).map(|(&Column { c, width, is_right_aligned }, lines)| {
                    let text = lines.get(i).cloned().unwrap_or_default();
                    let space = " ".repeat(width.saturating_sub(measure_text_width(&text)));
                    let text = if text.is_empty() { text } else { paint.paint(cell(c).0, &text) };
                    if is_right_aligned { space + &text } else { text + &space }
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
fn total_width(columns: &[Column]) -> usize {
    columns.iter().map(|column| column.width + 2).sum::<usize>().saturating_sub(2)
}

/// Splits text where a line may break: after words and after parts of names.
fn split_words(text: &str) -> Vec<&str> {
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
fn split_word(word: &str, width: usize) -> Vec<&str> {
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

/// Joins pieces of text into lines of at most `width` columns; longer pieces get their own lines. Lines after the first
/// are indented. Returns at least one line.
pub(super) fn fill<'a>(pieces: impl IntoIterator<Item = &'a str>, indent: usize, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in pieces {
        let line = lines.last_mut().expect("there is at least one line");
        let is_full = measure_text_width(line) + measure_text_width(piece.trim_end()) > width;
        match is_full && !line.trim().is_empty() {
            true => lines.push(" ".repeat(indent) + piece),
            false => line.push_str(piece),
        }
    }
    lines.iter().map(|line| line.trim_end().to_string()).collect()
}

/// Wraps a cell into lines of at most `width` columns, between words or parts of names if possible.
fn wrap_cell(text: &str, width: usize) -> Vec<String> {
    fill(split_words(text).into_iter().flat_map(|word| split_word(word, width)), 0, width)
}

/// A column of a table: its index and its layout.
#[derive(Debug, Clone, Copy)]
struct Column {
    c: usize,
    width: usize,
    is_right_aligned: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_content() {
        let mut table = Table::new(&["arm", "dB", "none"]);
        let cell = |text: &str| (Look::Good, text.to_string());
        for (arm, db) in [("bicubic", "21.17"), ("süß", "9.5")] {
            table.row(vec![cell(arm), cell(db), cell("")]);
        }
        assert_eq!(table.render(Paint::none()), "arm         dB\nbicubic  21.17\nsüß        9.5\n");
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
        assert_eq!(wrap_cell("ab cdefgh", 3), ["ab", "cde", "fgh"]);
        assert_eq!(wrap_cell("names[a=1,b=2]", 9), ["names", "[a=1,b=2]"]);
        assert!(table.render(Paint::with_colours()).contains("\x1b[32msüß\x1b[0m      "));
    }
}
