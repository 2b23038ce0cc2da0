//! The columns of text about a running stage, as many as fit on the terminal.

use std::collections::BTreeMap;

use console::{measure_text_width, pad_str};

use super::sparkline::Sparkline;
use crate::cli::output::{Look, Paint};
use crate::config::metrics::VAL_LOSS_FIELD;
use crate::format;

/// The separator between columns.
const GAP: usize = 2;

/// The width of the percentage after a bar: ` 100%`.
const PERCENT: usize = 5;

/// The progress and the latest values of a running stage.
pub(super) struct StageProgress<'a> {
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) unit: &'a str,
    pub(super) values: &'a BTreeMap<String, f64>,
    /// The estimated remaining seconds.
    pub(super) eta: Option<f64>,
    pub(super) losses: &'a Sparkline,
}

/// A kind of text about a running stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Amount,
    Eta,
    Rate,
    Loss,
    Sparkline,
    ValLoss,
}

/// The columns with their widths, by descending priority.
const BY_PRIORITY: [(Column, usize); 6] = [
    (Column::Eta, 14),
    (Column::Loss, 11),
    (Column::Rate, 13),
    (Column::Sparkline, 5),
    (Column::Amount, 17),
    (Column::ValLoss, 15),
];

/// The columns from left to right.
const LEFT_TO_RIGHT: [Column; 6] =
    [Column::Amount, Column::Rate, Column::Loss, Column::Sparkline, Column::ValLoss, Column::Eta];

/// The layout of the columns of all running stages, after their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// The width of the bar in characters.
    pub(super) bar: usize,
    columns: Vec<(Column, usize)>,
}

impl Columns {
    /// Returns the columns that fit next to names of `name` characters on a terminal that is `width` characters wide.
    /// Remaining space widens the bar and the sparkline.
    pub fn fit(width: usize, name: usize) -> Self {
        let mut bar = 5;
        let mut available = width.saturating_sub(name + GAP + bar + PERCENT);
        let mut columns = vec![];
        for (column, width) in BY_PRIORITY {
            if available < GAP + width {
                break;
            }
            available -= GAP + width;
            columns.push((column, width));
        }
        if let Some((_, sparkline_width)) = columns.iter_mut().find(|(column, _)| *column == Column::Sparkline) {
            let extra = (available / 2).min(19);
            *sparkline_width += extra;
            available -= extra;
        }
        bar += available.min(18);
        columns.sort_by_key(|(column, _)| LEFT_TO_RIGHT.iter().position(|other| other == column));
        Self { bar, columns }
    }

    /// Returns the text after the bar. Columns without a value are blank; trailing blanks are removed.
    pub(super) fn text(&self, progress: &StageProgress, paint: Paint) -> String {
        let cells = self.columns.iter().map(|&(column, width)| {
            let (look, text) = cell(column, width, progress);
            let padded = pad_str(&text, width, console::Alignment::Left, Some("…")).into_owned();
            if text.is_empty() { padded } else { paint.paint(look, &padded) }
        });
        let gap = " ".repeat(GAP);
        let text = cells.map(|cell| gap.clone() + &cell).collect::<String>();
        if measure_text_width(text.trim()) == 0 { String::new() } else { text.trim_end().to_string() }
    }
}

/// Returns the style and text of a column, empty if the stage has no such value.
fn cell(column: Column, width: usize, progress: &StageProgress) -> (Look, String) {
    let value = |name: &str| progress.values.get(name).map(|value| format::number(*value));
    let or_empty = |text: Option<String>| text.unwrap_or_default();
    match column {
        Column::Amount => (Look::Plain, format::progress(progress.done, progress.total, progress.unit)),
        Column::Rate => (Look::Plain, or_empty(value("images_per_s").map(|rate| format!("{rate} images/s")))),
        Column::Loss => (Look::Plain, or_empty(value("loss").map(|loss| format!("loss {loss}")))),
        Column::Sparkline => (Look::Dim, progress.losses.render(width)),
        Column::ValLoss => (Look::Plain, or_empty(value(VAL_LOSS_FIELD).map(|loss| format!("val loss {loss}")))),
        Column::Eta => {
            (Look::Plain, or_empty(progress.eta.map(|seconds| format!("{} left", format::duration(seconds)))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses() -> Sparkline {
        let mut losses = Sparkline::default();
        (1..100).for_each(|step| losses.push(1.0 / f64::from(step)));
        losses
    }

    fn text(width: usize, name: usize) -> (usize, String) {
        let values = [("loss", 0.30125), (VAL_LOSS_FIELD, 0.2841), ("images_per_s", 1234.5)];
        let values = values.map(|(name, value)| (name.to_string(), value)).into();
        let losses = losses();
        let progress =
            StageProgress { done: 300, total: 1500, unit: "steps", values: &values, eta: Some(754.2), losses: &losses };
        let columns = Columns::fit(width, name);
        (columns.bar, columns.text(&progress, Paint::none()))
    }

    #[test]
    fn a_wide_terminal_shows_every_column() {
        let (bar, text) = text(160, 16);
        let expected = "  300/1500 steps     1234 images/s  loss 0.3013  █▆▅▄▄▄▃▃▃▃▂▂▂▂▂▂▂▂▁▁▁▁▁▁  val loss 0.2841  12:34 min left";
        assert_eq!((bar, text.as_str()), (23, expected));
    }

    #[test]
    fn eighty_columns_show_what_matters() {
        let (bar, text) = text(80, 16);
        assert_eq!((bar, text.as_str()), (6, "  1234 images/s  loss 0.3013  █▄▂▂▁  12:34 min left"));
        assert_eq!(Columns::fit(40, 16), Columns { bar: 17, columns: vec![] });
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 40..200 {
            for name in 0..17 {
                let (bar, text) = text(width, name);
                let all = name + GAP + bar + PERCENT + measure_text_width(&text);
                assert!(all <= width, "{all} on {width}: {text}");
            }
        }
    }

    #[test]
    fn unknown_values_are_omitted() {
        let progress = StageProgress {
            done: 0,
            total: 0,
            unit: "",
            values: &BTreeMap::new(),
            eta: None,
            losses: &Sparkline::default(),
        };
        assert_eq!(Columns::fit(80, 10).text(&progress, Paint::none()), "");
        let progress = StageProgress { done: 3, total: 9, unit: "images", ..progress };
        assert_eq!(Columns::fit(120, 10).text(&progress, Paint::none()), "  3/9 images");
    }
}
