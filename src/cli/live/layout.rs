//! Lines of a given width: cells that are as wide as there is room.

use unicode_width::UnicodeWidthChar;

use super::painter::width;
use crate::cli::output::{Look, Paint};

/// The columns of a stage's line. What may be cut or be missing stands to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    pub total: usize,
    pub name: usize,
    pub bar: usize,
    /// `300/1500 steps`; 0 where there is no room.
    pub amount: usize,
    pub left: usize,
    pub rate: usize,
    pub loss: usize,
    pub spark: usize,
}

pub const PERCENT: usize = 5;
const GAP: usize = 2;

impl Columns {
    /// The widest that fit; `longest` is the length of the longest name.
    pub fn fit(total: usize, longest: usize) -> Self {
        // bar, amount, left, rate, loss, spark
        const SHAPES: [[usize; 6]; 8] = [
            [24, 18, 11, 14, 12, 24],
            [20, 18, 11, 14, 12, 12],
            [16, 0, 11, 14, 12, 12],
            [8, 0, 11, 12, 11, 8],
            [8, 0, 9, 12, 11, 6],
            [8, 0, 9, 12, 11, 0],
            [8, 0, 9, 0, 11, 0],
            [4, 0, 9, 0, 0, 0],
        ];
        let name = longest.min((total / 3).max(10));
        let columns = SHAPES.map(|[bar, amount, left, rate, loss, spark]| Self {
            total,
            name,
            bar,
            amount,
            left,
            rate,
            loss,
            spark,
        });
        columns.into_iter().find(|columns| columns.width() <= total).unwrap_or(columns[7])
    }

    fn width(&self) -> usize {
        let cells = [self.name, self.work(), self.rate, self.loss];
        let gaps = cells.iter().filter(|&&cell| cell > 0).count() - 1;
        let spark = if self.spark > 0 { 1 + self.spark } else { 0 };
        cells.iter().sum::<usize>() + gaps * GAP + spark
    }

    /// Bar, percentage, amount and time left, or in their place a word on a stage that has none.
    pub fn work(&self) -> usize {
        let amount = if self.amount > 0 { GAP + self.amount } else { 0 };
        self.bar + PERCENT + amount + GAP + self.left
    }
}

/// A line in the making.
pub struct Line {
    paint: Paint,
    text: String,
    width: usize,
    most: usize,
}

impl Line {
    pub fn new(paint: Paint, most: usize) -> Self {
        Self { paint, text: String::new(), width: 0, most }
    }

    /// As much of the text as there is room for.
    pub fn push(&mut self, look: Look, text: &str) {
        let text = cut(text, self.most - self.width);
        self.width += width(&text);
        self.text += &if text.trim().is_empty() { text } else { self.paint.paint(look, &text) };
    }

    /// Spaces up to the column.
    pub fn to(&mut self, column: usize) {
        self.push(Look::Plain, &" ".repeat(column.saturating_sub(self.width)));
    }

    pub fn gap(&mut self) {
        self.push(Look::Plain, &" ".repeat(GAP));
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// What is left.
    pub fn room(&self) -> usize {
        self.most - self.width
    }

    pub fn end(self) -> String {
        self.text.trim_end().to_string()
    }

    /// `━━━━╸───`
    pub fn bar(&mut self, fraction: f64, cells: usize) {
        let halves = (fraction.clamp(0.0, 1.0) * 2.0 * cells as f64).floor() as usize;
        let (full, half) = (halves / 2, halves % 2);
        self.push(Look::Good, &("━".repeat(full) + &"╸".repeat(half)));
        self.push(Look::Dim, &"─".repeat(cells - full - half));
    }
}

/// At most so many columns of a text without control characters; what is cut off is an ellipsis.
pub fn cut(text: &str, most: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if width(&clean) <= most {
        return clean;
    }
    let mut left = most.saturating_sub(1);
    let fits = |c: &char| {
        let fits = c.width().unwrap_or(0) <= left;
        left -= if fits { c.width().unwrap_or(0) } else { left };
        fits
    };
    let mut text: String = clean.chars().take_while(fits).collect();
    if most > 0 {
        text.push('…');
    }
    text
}

/// `0:07`, `12:05`, `2:10 h`.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..3600 => format!("{}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_wherever_a_line_can_say_anything() {
        for total in 40..300 {
            let columns = Columns::fit(total, 30);
            assert!(columns.width() <= total, "{columns:?}");
        }
        // On a terminal of the usual width, everything.
        let usual = Columns::fit(80, "sample_attention".len());
        assert!(usual.rate > 0 && usual.loss > 0 && usual.spark > 0, "{usual:?}");
    }

    #[test]
    fn texts_are_cut_to_columns() {
        assert_eq!(["abcdef", "日本語", "a\tb"].map(|text| cut(text, 4)), ["abc…", "日…", "a b"]);
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn bars_advance_by_halves() {
        let bar = |fraction| {
            let mut line = Line::new(Paint::none(), 80);
            line.bar(fraction, 4);
            line.end()
        };
        assert_eq!([0.0, 0.4, 0.5, 1.0, 2.0].map(bar), ["────", "━╸──", "━━──", "━━━━", "━━━━"]);
    }

    #[test]
    fn times_are_told_by_a_clock() {
        assert_eq!([7.4, 725.0, 7800.0].map(clock), ["0:07", "12:05", "2:10 h"]);
    }
}
