//! The columns of text about a running stage, as many as fit.

use std::collections::BTreeMap;

use console::{measure_text_width, pad_str};

use super::trail::Trail;
use crate::cli::output::{Look, Paint};
use crate::config::metrics::VAL_LOSS_FIELD;
use crate::format;

/// The separator between columns.
const GAP: usize = 2;

/// The width of the percentage after a bar: ` 100%`.
const PERCENT: usize = 5;

/// A running stage: its progress and latest values.
pub(super) struct Work<'a> {
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) unit: &'a str,
    pub(super) values: &'a BTreeMap<String, f64>,
    /// The estimated remaining seconds.
    pub(super) left: Option<f64>,
    pub(super) losses: &'a Trail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Amount,
    Left,
    Rate,
    Loss,
    Spark,
    ValLoss,
}

/// The columns with their widths, by descending priority.
const BY_WORTH: [(Column, usize); 6] = [
    (Column::Left, 14),
    (Column::Loss, 11),
    (Column::Rate, 13),
    (Column::Spark, 5),
    (Column::Amount, 17),
    (Column::ValLoss, 15),
];

/// The columns from left to right.
const IN_ORDER: [Column; 6] =
    [Column::Amount, Column::Rate, Column::Loss, Column::Spark, Column::ValLoss, Column::Left];

/// The layout of the columns of all running stages, after their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// The width of the bar in characters.
    pub(super) bar: usize,
    columns: Vec<(Column, usize)>,
}

impl Columns {
    /// Returns the columns that fit next to names of `name` characters on a terminal of `width`. Remaining space widens
    /// the bar and the sparkline.
    pub fn fit(width: usize, name: usize) -> Self {
        let mut bar = 5;
        let mut room = width.saturating_sub(name + GAP + bar + PERCENT);
        let mut kept = vec![];
        for (column, width) in BY_WORTH {
            if room < GAP + width {
                break;
            }
            room -= GAP + width;
            kept.push((column, width));
        }
        if let Some((_, spark)) = kept.iter_mut().find(|(column, _)| *column == Column::Spark) {
            let longer = (room / 2).min(19);
            *spark += longer;
            room -= longer;
        }
        bar += room.min(18);
        kept.sort_by_key(|(column, _)| IN_ORDER.iter().position(|other| other == column));
        Self { bar, columns: kept }
    }

    /// Returns the text after the bar. Columns without a value are blank; trailing blanks are removed.
    pub(super) fn text(&self, work: &Work, paint: Paint) -> String {
        let cells = self.columns.iter().map(|&(column, width)| {
            let (look, text) = cell(column, width, work);
            let padded = pad_str(&text, width, console::Alignment::Left, Some("…")).into_owned();
            if text.is_empty() { padded } else { paint.paint(look, &padded) }
        });
        let gap = " ".repeat(GAP);
        let text = cells.map(|cell| gap.clone() + &cell).collect::<String>();
        if measure_text_width(text.trim()) == 0 { String::new() } else { text.trim_end().to_string() }
    }
}

fn cell(column: Column, width: usize, work: &Work) -> (Look, String) {
    let value = |name: &str| work.values.get(name).map(|value| format::figure(*value));
    let said = |text: Option<String>| text.unwrap_or_default();
    match column {
        Column::Amount => (Look::Plain, format::progress(work.done, work.total, work.unit)),
        Column::Rate => (Look::Plain, said(value("images_per_s").map(|rate| format!("{rate} images/s")))),
        Column::Loss => (Look::Plain, said(value("loss").map(|loss| format!("loss {loss}")))),
        Column::Spark => (Look::Dim, work.losses.sparkline(width)),
        Column::ValLoss => (Look::Plain, said(value(VAL_LOSS_FIELD).map(|loss| format!("val loss {loss}")))),
        Column::Left => (Look::Plain, said(work.left.map(|seconds| format!("{} left", format::duration(seconds))))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses() -> Trail {
        let mut trail = Trail::default();
        (1..100).for_each(|step| trail.push(1.0 / f64::from(step)));
        trail
    }

    fn text(width: usize, name: usize) -> (usize, String) {
        let values = [("loss", 0.30125), (VAL_LOSS_FIELD, 0.2841), ("images_per_s", 1234.5)];
        let values = values.map(|(name, value)| (name.to_string(), value)).into();
        let losses = losses();
        let work = Work { done: 300, total: 1500, unit: "steps", values: &values, left: Some(754.2), losses: &losses };
        let columns = Columns::fit(width, name);
        (columns.bar, columns.text(&work, Paint::none()))
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
        let work =
            Work { done: 0, total: 0, unit: "", values: &BTreeMap::new(), left: None, losses: &Trail::default() };
        assert_eq!(Columns::fit(80, 10).text(&work, Paint::none()), "");
        let work = Work { done: 3, total: 9, unit: "images", ..work };
        assert_eq!(Columns::fit(120, 10).text(&work, Paint::none()), "  3/9 images");
    }
}
