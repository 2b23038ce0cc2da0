//! A canvas for plots with a white background.

use anyhow::{Context, bail};
use image::ImageEncoder as _;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform};

use super::color::Color;
use super::text::{Align, Style};

/// 1 GiB of memory.
const MAX_PIXELS: usize = 1 << 28;

/// A canvas. Lengths are in pixels from the upper left corner; drawing outside of it is clipped.
pub(super) struct Canvas {
    pixmap: Pixmap,
}

impl Canvas {
    /// Fails if the canvas is empty or has more than [`MAX_PIXELS`].
    pub(super) fn new(width: usize, height: usize) -> anyhow::Result<Self> {
        let fits = width.checked_mul(height).is_some_and(|pixels| pixels <= MAX_PIXELS);
        let pixmap = if fits { Pixmap::new(width as u32, height as u32) } else { None };
        let Some(mut pixmap) = pixmap else { bail!("a picture of {width}×{height} pixels cannot be drawn") };
        pixmap.fill(tiny_skia::Color::WHITE);
        Ok(Self { pixmap })
    }

    /// Draws a line through `points`.
    pub(super) fn line(&mut self, points: &[(f32, f32)], width: f32, color: Color) {
        self.dashed_line(points, width, color, 0.0);
    }

    /// Draws a line with dashes and gaps of length `dash`; solid if 0.
    pub(super) fn dashed_line(&mut self, points: &[(f32, f32)], width: f32, color: Color, dash: f32) {
        // Round caps would fill the gaps.
        let line_cap = if dash > 0.0 { LineCap::Butt } else { LineCap::Round };
        let dash = StrokeDash::new(vec![dash, dash], 0.0);
        let stroke = Stroke { width, line_cap, line_join: LineJoin::Round, dash, ..Stroke::default() };
        if let Some(path) = path(points) {
            self.pixmap.stroke_path(&path, &paint(color), &stroke, Transform::identity(), None);
        }
    }

    /// Draws a filled circle.
    pub(super) fn dot(&mut self, x: f32, y: f32, radius: f32, color: Color) {
        if let Some(path) = PathBuilder::from_circle(x, y, radius) {
            self.pixmap.fill_path(&path, &paint(color), FillRule::Winding, Transform::identity(), None);
        }
    }

    /// Draws a line of text with its baseline at `y`.
    pub(super) fn text(&mut self, text: &str, x: f32, y: f32, align: Align, style: Style) {
        let width = style.width(text);
        let left = match align {
            Align::Left => x,
            Align::Center => x - width / 2.0,
            Align::Right => x - width,
        };
        let size = (i64::from(self.pixmap.width()), i64::from(self.pixmap.height()));
        let data = self.pixmap.data_mut();
        style.rasterize(text, left, y, |x, y, coverage| {
            if (0..size.0).contains(&x) && (0..size.1).contains(&y) {
                let pixel = &mut data[4 * (y * size.0 + x) as usize..][..3];
                for (p, c) in pixel.iter_mut().zip(style.color.0) {
                    *p = (f32::from(*p) + coverage * (f32::from(c) - f32::from(*p))).round() as u8;
                }
            }
        });
    }

    /// Draws `image`, `(height, width, 3)`, at (`x`, `y`); each of its pixels becomes a square of `factor`×`factor`.
    pub(super) fn image(&mut self, image: &[u8], width: usize, factor: usize, x: usize, y: usize) {
        let canvas = (self.pixmap.width() as usize, self.pixmap.height() as usize);
        let data = self.pixmap.data_mut();
        for (row, line) in image.chunks_exact(3 * width).enumerate() {
            for py in (y + row * factor..y + (row + 1) * factor).take_while(|&py| py < canvas.1) {
                for (column, pixel) in line.chunks_exact(3).enumerate() {
                    let left = x + column * factor;
                    for px in (left..left + factor).take_while(|&px| px < canvas.0) {
                        data[4 * (py * canvas.0 + px)..][..3].copy_from_slice(pixel);
                    }
                }
            }
        }
    }

    /// Encodes the canvas as an RGB PNG.
    pub(super) fn png(&self) -> anyhow::Result<Vec<u8>> {
        // Everything is opaque over white, so premultiplied and plain colours are the same.
        let rgb: Vec<u8> = self.pixmap.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
        let mut png = vec![];
        PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive)
            .write_image(&rgb, self.pixmap.width(), self.pixmap.height(), image::ExtendedColorType::Rgb8)
            .context("encoding a PNG")?;
        Ok(png)
    }
}

fn paint(color: Color) -> Paint<'static> {
    let mut paint = Paint::default();
    let [r, g, b] = color.0;
    paint.set_color_rgba8(r, g, b, 255);
    paint
}

fn path(points: &[(f32, f32)]) -> Option<Path> {
    let (&(x, y), rest) = points.split_first()?;
    let mut path = PathBuilder::new();
    path.move_to(x, y);
    rest.iter().for_each(|&(x, y)| path.line_to(x, y));
    path.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(canvas: &Canvas) -> image::RgbImage {
        image::load_from_memory(&canvas.png().unwrap()).unwrap().to_rgb8()
    }

    #[test]
    fn images_are_enlarged_without_smoothing_and_cut_off_at_the_edge() {
        let mut canvas = Canvas::new(9, 7).unwrap();
        let image: Vec<u8> = (1..=12).collect();
        canvas.image(&image, 2, 3, 2, 1);
        let png = decode(&canvas);
        for (x, y, pixel) in png.enumerate_pixels() {
            let inside = (2..8).contains(&x) && (1..7).contains(&y);
            let source = ((y.wrapping_sub(1) / 3) * 2 + x.wrapping_sub(2) / 3) as usize * 3;
            let expected = if inside { [image[source], image[source + 1], image[source + 2]] } else { [255; 3] };
            assert_eq!(pixel.0, expected, "({x}, {y})");
        }
        canvas.image(&image, 2, 3, 6, 5);
        assert_eq!(decode(&canvas).get_pixel(8, 6).0, [1, 2, 3]);
    }

    #[test]
    fn text_is_aligned_at_its_baseline() {
        let ink = |align| {
            let mut canvas = Canvas::new(100, 40).unwrap();
            canvas.text("HHH", 50.0, 30.0, align, Style::regular(20.0, Color([200, 0, 0])));
            let png = decode(&canvas);
            let dark = png.enumerate_pixels().filter(|(_, _, p)| p.0 != [255; 3]);
            let (mut left, mut right, mut bottom, mut top) = (u32::MAX, 0, 0, u32::MAX);
            dark.for_each(|(x, y, p)| {
                assert!(p.0[0] >= 200, "{p:?} is not between white and the colour");
                (left, right, top, bottom) = (left.min(x), right.max(x), top.min(y), bottom.max(y));
            });
            // Capital letters of Noto Sans have a height of 714/1000 em.
            assert!(bottom == 29 && (15..=16).contains(&top), "{top} {bottom}");
            (left, right)
        };
        let (left, right) = (ink(Align::Left), ink(Align::Right));
        assert!(left.0 >= 50 && right.1 < 50);
        let center = ink(Align::Center);
        assert!((i64::from(center.0 + center.1) - 99).abs() <= 1, "{center:?}");
    }

    #[test]
    fn lines_are_solid_or_dashed() {
        let ink = |dash| {
            let mut canvas = Canvas::new(100, 9).unwrap();
            canvas.dashed_line(&[(10.0, 4.5), (90.0, 4.5)], 3.0, Color([0, 0, 0]), dash);
            let png = decode(&canvas);
            (12..88).map(|x| png.get_pixel(x, 4).0[0]).filter(|&v| v < 128).count()
        };
        assert_eq!(ink(0.0), 76);
        assert!((34..=42).contains(&ink(5.0)), "{}", ink(5.0));
    }

    #[test]
    fn empty_and_huge_canvases_are_refused() {
        assert!(Canvas::new(0, 5).is_err());
        assert!(Canvas::new(1 << 20, 1 << 20).is_err());
        assert!(Canvas::new(usize::MAX, 2).is_err());
    }
}
