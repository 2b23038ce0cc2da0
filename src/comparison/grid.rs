//! Draws `comparison.png`: one row per test image, one column per upscaling method.

use anyhow::ensure;

use super::canvas::Canvas;
use super::color::Color;
use super::names::wrapped;
use super::text::{Align, Style};
use crate::data::Images;

/// A column of images.
pub struct Column<'a> {
    /// The heading above the images.
    pub head: String,
    /// The note below the heading: the sample or the size.
    pub note: String,
    pub images: &'a Images,
    /// The caption below each image.
    pub captions: Vec<String>,
}

/// With more columns than this, images are drawn smaller.
pub const MANY_COLUMNS: usize = 12;

/// Dimensions that depend on the number of columns, in pixels.
struct Look {
    /// Images are enlarged to this width or height, or the next lower whole multiple of their size.
    cell: usize,
    head: Style,
    head_line: usize,
    head_lines: usize,
    note: Style,
    caption: Style,
}

const LARGE: Look = Look {
    cell: 160,
    head: Style::bold(17.0, INK),
    head_line: 21,
    head_lines: 3,
    note: Style::regular(14.0, GREY),
    caption: Style::regular(15.0, INK),
};

const SMALL: Look = Look {
    cell: 96,
    head: Style::bold(14.0, INK),
    head_line: 17,
    head_lines: 5,
    note: Style::regular(12.0, GREY),
    caption: Style::regular(13.0, INK),
};

const MARGIN: usize = 24;
const GAP: usize = 12;
const INK: Color = Color([20, 20, 20]);
const GREY: Color = Color([110, 110, 110]);
const NOTE_LINE: usize = 26;
/// From the bottom of an image to the top of the next, including the caption.
const ROW_GAP: usize = 38;
/// From the bottom of the last image to the end of its caption.
const CAPTION_LINE: usize = 24;

/// Draws the first `rows` images of every column as a PNG. Images are enlarged to one size, by whole factors without
/// smoothing. Adjacent columns with the same heading share it.
///
/// # Errors
/// Fails if a column has too few images or captions, or if its image size does not divide the size of the first column.
pub fn comparison(columns: &[Column], rows: usize) -> anyhow::Result<Vec<u8>> {
    ensure!(!columns.is_empty() && rows > 0, "a comparison needs a column and a row");
    let (height, width) = (columns[0].images.height, columns[0].images.width);
    for c in columns {
        let (h, w) = (c.images.height, c.images.width);
        let fits = h > 0 && w > 0 && height % h == 0 && width % w == 0 && height / h == width / w;
        ensure!(fits, "`{}` has images of {w}×{h}, no whole fraction of {width}×{height}", c.head);
        ensure!(c.images.count >= rows && c.captions.len() >= rows, "`{}` has fewer than {rows} images", c.head);
    }
    let look = if columns.len() > MANY_COLUMNS { &SMALL } else { &LARGE };
    let factor = (look.cell / height.max(width)).max(1);
    let (cell_height, cell_width) = (height * factor, width * factor);
    // Leaves room for the text around images that are small or narrow.
    let column_width = cell_width.max(look.cell);
    let pitch = column_width + GAP;

    let groups: Vec<&[Column]> = columns.chunk_by(|a, b| a.head == b.head).collect();
    let names: Vec<&str> = groups.iter().map(|group| &*group[0].head).collect();
    let room = |group: &[Column]| (group.len() * pitch - 4) as f32;
    let heads = wrapped(&names, |i, name| look.head.wrap(name, room(groups[i]), look.head_lines));
    let head_lines = heads.iter().map(Vec::len).max().unwrap_or(1);
    let top = MARGIN + head_lines * look.head_line + NOTE_LINE;
    let bottom = top + rows * (cell_height + ROW_GAP) - ROW_GAP + CAPTION_LINE;
    let mut canvas = Canvas::new(2 * MARGIN + columns.len() * pitch - GAP, bottom + MARGIN)?;

    let mut left = MARGIN;
    for (group, head) in groups.iter().zip(&heads) {
        let right = left + group.len() * pitch - GAP;
        for (line, text) in head.iter().enumerate() {
            // Headings with fewer lines are aligned with the bottom.
            let y = MARGIN + (head_lines - head.len() + line + 1) * look.head_line - 6;
            canvas.text(text, (left + right) as f32 / 2.0, y as f32, Align::Center, look.head);
        }
        if group.len() > 1 {
            let y = (top - NOTE_LINE) as f32 + 0.5;
            canvas.line(&[(left as f32, y), (right as f32, y)], 1.0, GREY);
        }
        for column in *group {
            let center = left as f32 + column_width as f32 / 2.0;
            let note = look.note.wrap(&column.note, (pitch - 4) as f32, 1);
            canvas.text(&note.concat(), center, (top - 10) as f32, Align::Center, look.note);
            let images = column.images;
            for row in 0..rows {
                let y = top + row * (cell_height + ROW_GAP);
                let x = left + (column_width - cell_width) / 2;
                canvas.image(images.image(row), images.width, factor * (height / images.height), x, y);
                let caption = (y + cell_height + CAPTION_LINE - 5) as f32;
                canvas.text(&column.captions[row], center, caption, Align::Center, look.caption);
            }
            left += pitch;
        }
    }
    canvas.png()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column<'a>(head: &str, images: &'a Images) -> Column<'a> {
        Column { head: head.into(), note: String::new(), images, captions: vec!["19.06 dB".into(); images.count] }
    }

    #[test]
    fn smaller_images_are_enlarged_to_the_same_size() {
        let hr = Images::new(2, 4, 8, (0..192).collect());
        let lr = Images::new(2, 2, 4, (0..48).map(|v| v * 5).collect());
        let png = comparison(&[column("HR", &hr), column("LR", &lr)], 2).unwrap();
        let png = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(png.dimensions(), (24 + 160 + 12 + 160 + 24, 24 + 21 + 26 + 2 * (80 + 38) - 14 + 24));
        for (x, y) in [(0, 0), (159, 79), (39, 40), (40, 39), (119, 41)] {
            let at = |images: &Images, factor: usize| {
                let pixel = 3 * (y / factor * images.width + x / factor);
                images.image(1)[pixel..pixel + 3].to_vec()
            };
            let top = 24 + 21 + 26 + 80 + 38 + y;
            assert_eq!(png.get_pixel((24 + x) as u32, top as u32).0.to_vec(), at(&hr, 20), "HR ({x}, {y})");
            assert_eq!(png.get_pixel((24 + 172 + x) as u32, top as u32).0.to_vec(), at(&lr, 40), "LR ({x}, {y})");
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_refused() {
        let hr = Images::new(2, 4, 4, vec![0; 96]);
        let odd = Images::new(2, 3, 3, vec![0; 54]);
        let message = |columns: &[Column], rows| comparison(columns, rows).unwrap_err().to_string();
        assert_eq!(
            message(&[column("HR", &hr), column("x", &odd)], 1),
            "`x` has images of 3×3, no whole fraction of 4×4"
        );
        assert_eq!(message(&[column("HR", &hr)], 3), "`HR` has fewer than 3 images");
        assert!(comparison(&[], 1).is_err() && comparison(&[column("HR", &hr)], 0).is_err());
    }
}
