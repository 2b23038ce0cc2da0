//! Text rendering in Noto Sans.

use std::sync::LazyLock;

use ab_glyph::{Font as _, FontRef, PxScaleFont, ScaleFont, point};

use super::color::Color;

/// The style of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Style {
    /// Pixels per em.
    size: f32,
    weight: Weight,
    pub(super) color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Regular,
    Bold,
}

/// The point of the text that its position refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Center,
    Right,
}

static REGULAR: LazyLock<FontRef> = LazyLock::new(|| FontRef::try_from_slice(notosans::REGULAR_TTF).expect("a font"));
static BOLD: LazyLock<FontRef> = LazyLock::new(|| FontRef::try_from_slice(notosans::BOLD_TTF).expect("a font"));

impl Style {
    pub(super) const fn regular(size: f32, color: Color) -> Self {
        Self { size, weight: Weight::Regular, color }
    }

    pub(super) const fn bold(size: f32, color: Color) -> Self {
        Self { size, weight: Weight::Bold, color }
    }

    fn font(&self) -> PxScaleFont<&FontRef<'static>> {
        let font: &FontRef<'static> = match self.weight {
            Weight::Regular => &REGULAR,
            Weight::Bold => &BOLD,
        };
        // ab_glyph's scale is the height from descent to ascent.
        let em = font.units_per_em().unwrap_or(1000.0);
        font.into_scaled(self.size * font.height_unscaled() / em)
    }

    /// Returns the width of `text` in pixels.
    pub(super) fn width(&self, text: &str) -> f32 {
        let mut width = 0.0;
        self.layout(text, |_, _, end| width = end);
        width
    }

    /// Calls `place` with each glyph and its start and end.
    fn layout(&self, text: &str, mut place: impl FnMut(ab_glyph::GlyphId, f32, f32)) {
        let font = self.font();
        let (mut x, mut previous) = (0.0, None);
        for id in text.chars().map(|c| font.glyph_id(c)) {
            x += previous.map_or(0.0, |p| font.kern(p, id));
            let end = x + font.h_advance(id);
            place(id, x, end);
            (x, previous) = (end, Some(id));
        }
    }

    /// Calls `cover` with each pixel that `text` touches and its coverage, 0 to 1; the baseline starts at (`x`, `y`).
    pub(super) fn rasterize(&self, text: &str, x: f32, y: f32, mut cover: impl FnMut(i64, i64, f32)) {
        let font = self.font();
        self.layout(text, |id, start, _| {
            let glyph = id.with_scale_and_position(font.scale(), point(x + start, y));
            if let Some(outline) = font.font().outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                let (left, top) = (corner.x as i64, corner.y as i64);
                outline.draw(|dx, dy, c| cover(left + i64::from(dx), top + i64::from(dy), c.clamp(0.0, 1.0)));
            }
        });
    }

    /// Breaks `text` into at most `lines` lines no wider than `width`, preferably where [`break_at`] breaks; text that
    /// is still too long ends in an ellipsis.
    pub(super) fn wrap(&self, text: &str, width: f32, lines: usize) -> Vec<String> {
        let mut rest = text;
        let mut wrapped = vec![];
        while !rest.is_empty() {
            if wrapped.len() + 1 == lines || self.width(rest) <= width {
                wrapped.push(self.shorten(rest, width));
                break;
            }
            let end = break_at(rest, self.fitting(rest, width));
            wrapped.push(rest[..end].trim_end().to_string());
            rest = rest[end..].trim_start();
        }
        wrapped
    }

    fn shorten(&self, text: &str, width: f32) -> String {
        if self.width(text) <= width {
            return text.to_string();
        }
        let end = self.fitting(text, width - self.width("…"));
        format!("{}…", &text[..end])
    }

    /// Returns the length in bytes of the longest prefix of `text` that fits, at least one character.
    fn fitting(&self, text: &str, width: f32) -> usize {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        let first = ends.clone().next().unwrap_or(0);
        ends.take_while(|&end| self.width(&text[..end]) <= width).last().unwrap_or(first)
    }
}

/// Whether wrapped lines were truncated.
pub(super) fn is_shortened(lines: &[String]) -> bool {
    lines.last().is_some_and(|line| line.ends_with('…'))
}

/// Returns where to end the first line of `text` if at most `fits` bytes fit: between the parts of an instance's name,
/// `stage[axis=value,axis=value]`; else after a part of a word; else anywhere.
fn break_at(text: &str, fits: usize) -> usize {
    let last = |breaks: fn(char, char) -> bool| {
        let pairs = text.char_indices().zip(text.char_indices().skip(1));
        let ends = pairs.filter(|&((_, a), (_, b))| breaks(a, b)).map(|(_, (end, _))| end);
        ends.take_while(|&end| end <= fits).last()
    };
    last(|a, b| matches!(a, ' ' | ',') || b == '[')
        .or_else(|| last(|a, _| matches!(a, '_' | '-' | '/')))
        .unwrap_or(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style::regular(20.0, Color([0, 0, 0]));

    #[test]
    fn an_em_is_the_size() {
        // Noto Sans: a digit is 1171/2048 em wide.
        assert!((STYLE.width("0123456789") - 10.0 * 1171.0 / 2048.0 * 20.0).abs() < 1e-3);
        let bold = Style::bold(20.0, Color([0, 0, 0]));
        assert!(bold.width("attention") > STYLE.width("attention"));
    }

    #[test]
    fn names_break_after_punctuation() {
        let name = "baseline[base_channels=16,seed=0]";
        let width = STYLE.width("[base_channels=16,");
        let lines = STYLE.wrap(name, width, 4);
        assert_eq!(lines, ["baseline", "[base_channels=16,", "seed=0]"]);
        assert!(lines.iter().all(|l| STYLE.width(l) <= width));
        assert_eq!(STYLE.wrap(name, width * 0.9, 4), ["baseline", "[base_", "channels=16,", "seed=0]"]);
        assert_eq!(STYLE.wrap("attention", width, 3), ["attention"]);
        let lines = STYLE.wrap(name, width, 2);
        assert!(lines.len() == 2 && lines[1].ends_with('…') && STYLE.width(&lines[1]) <= width, "{lines:?}");
        // Breaks anywhere if there is no preferred position, and after each character if nothing fits.
        assert_eq!(STYLE.wrap("éééé", STYLE.width("éé"), 3), ["éé", "éé"]);
        assert_eq!(STYLE.wrap("ab", 1.0, 3), ["a", "b"]);
        assert_eq!(STYLE.wrap("", 1.0, 3), [""; 0]);
    }
}
