//! `comparison.png`: test images down, the ways to enlarge them across.

use anyhow::ensure;

use super::canvas::{Canvas, Color};
use super::text::{Align, Style};
use crate::data::Images;

/// A column of pictures.
pub struct Column<'a> {
    /// Above the pictures.
    pub head: String,
    /// Under the head: which sample, which size.
    pub note: String,
    pub images: &'a Images,
    /// Under each picture.
    pub captions: Vec<String>,
}

/// Enlarged images are about this wide and high, or half of it where there are many columns.
const CELL: usize = 160;
const MANY_COLUMNS: usize = 12;

const MARGIN: usize = 24;
const GAP: usize = 12;
const HEAD_LINES: usize = 3;
const INK: Color = Color([20, 20, 20]);
const GREY: Color = Color([110, 110, 110]);
const HEAD: Style = Style::bold(17.0, INK);
const NOTE: Style = Style::regular(14.0, GREY);
const CAPTION: Style = Style::regular(15.0, INK);
const HEAD_LINE: usize = 21;
const NOTE_LINE: usize = 24;
/// From the bottom of a picture to the top of the next, with the caption between.
const ROW_GAP: usize = 38;

/// The first `rows` images of every column as a PNG. Pictures are enlarged by whole factors without smoothing, those
/// of lower resolution by more, so that all are as large.
///
/// Fails where columns have too few images or captions, or their sizes are not whole fractions of the first column's.
pub fn comparison(columns: &[Column], rows: usize) -> anyhow::Result<Vec<u8>> {
    ensure!(!columns.is_empty() && rows > 0, "a comparison needs a column and a row");
    let (height, width) = (columns[0].images.height, columns[0].images.width);
    for c in columns {
        let (h, w) = (c.images.height, c.images.width);
        let fits = h > 0 && w > 0 && height % h == 0 && width % w == 0 && height / h == width / w;
        ensure!(fits, "`{}` has images of {w}×{h}, no whole fraction of {width}×{height}", c.head);
        ensure!(c.images.count >= rows && c.captions.len() >= rows, "`{}` has fewer than {rows} images", c.head);
    }
    let cell = if columns.len() > MANY_COLUMNS { CELL / 2 } else { CELL };
    let factor = (cell / height.max(width)).max(1);
    let (cell_height, cell_width) = (height * factor, width * factor);
    // A column is wide enough for words under a small picture.
    let pitch = cell_width.max(cell) + GAP;

    let heads: Vec<Vec<String>> = columns.iter().map(|c| HEAD.wrap(&c.head, (pitch - 4) as f32, HEAD_LINES)).collect();
    let head_lines = heads.iter().map(Vec::len).max().unwrap_or(1);
    let top = MARGIN + head_lines * HEAD_LINE + NOTE_LINE;
    let mut canvas = Canvas::new(
        2 * MARGIN + columns.len() * pitch - GAP,
        top + rows * (cell_height + ROW_GAP) + MARGIN - (ROW_GAP - NOTE_LINE),
    )?;
    for (i, (column, head)) in columns.iter().zip(&heads).enumerate() {
        let left = MARGIN + i * pitch;
        let center = left as f32 + (pitch - GAP) as f32 / 2.0;
        for (line, text) in head.iter().enumerate() {
            // Heads of fewer lines stand next to their pictures.
            let y = MARGIN + (head_lines - head.len() + line + 1) * HEAD_LINE - 6;
            canvas.text(text, center, y as f32, Align::Center, HEAD);
        }
        let note = NOTE.wrap(&column.note, (pitch - 4) as f32, 1);
        canvas.text(&note.concat(), center, (top - 10) as f32, Align::Center, NOTE);
        let images = column.images;
        for row in 0..rows {
            let y = top + row * (cell_height + ROW_GAP);
            let x = left + (pitch - GAP - cell_width) / 2;
            canvas.image(images.image(row), images.width, factor * (height / images.height), x, y);
            canvas.text(&column.captions[row], center, (y + cell_height + 19) as f32, Align::Center, CAPTION);
        }
    }
    canvas.png()
}
