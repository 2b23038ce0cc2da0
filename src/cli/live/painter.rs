//! Draws a few lines again and again at the end of what a terminal shows. What was printed before stays, and what goes
//! above the lines becomes part of it.
//!
//! Everything is one write, in which nothing is blanked before it is drawn over; between the marks of a synchronised
//! update, which terminals that do not know them ignore. So nothing flickers.

use std::io::Write;

use unicode_width::UnicodeWidthStr;

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

/// The size of the terminal behind stderr.
pub fn size() -> Size {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    // Of a terminal without a size (a serial line), what terminals had.
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(Size { width: 80, height: 24 }, |size| Size { width: size.ws_col.into(), height: size.ws_row.into() })
}

/// What stands on the terminal.
#[derive(Default)]
pub struct Painter {
    lines: Vec<String>,
    size: Option<Size>,
}

impl Painter {
    /// Lines of at most the terminal's width, one fewer than it has rows; `above` may be of any length.
    pub fn draw(&mut self, above: &[String], lines: Vec<String>, size: Size) {
        if above.is_empty() && self.lines == lines && self.size == Some(size) {
            return;
        }
        let text = frame(&self.lines, above, &lines, size);
        // A terminal that is gone is no reason to stop.
        let mut out = std::io::stderr().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        (self.lines, self.size) = (lines, Some(size));
    }

    /// What is drawn next goes below; the lines that stand there stay.
    pub fn leave(&mut self) {
        self.lines.clear();
    }
}

/// What turns the lines that were drawn into the new ones; the cursor stands below them before and after.
fn frame(before: &[String], above: &[String], lines: &[String], size: Size) -> String {
    // A terminal that became narrower has wrapped them.
    let rows: usize = before.iter().map(|line| width(line).div_ceil(size.width).max(1)).sum();
    let mut text = String::from("\x1b[?2026h\r");
    if rows > 0 {
        text += &format!("\x1b[{}A", rows.min(size.height.saturating_sub(1)).max(1));
    }
    for line in above.iter().chain(lines) {
        text += &format!("{line}\x1b[K\n");
    }
    text + "\x1b[J\x1b[?2026l"
}

/// The columns that a text takes, its colours aside.
pub fn width(text: &str) -> usize {
    let mut pieces = text.split("\x1b[");
    let first = pieces.next().unwrap_or("").width();
    first + pieces.map(|piece| piece.split_once('m').map_or("", |(_, rest)| rest).width()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn lines_are_drawn_over_and_others_go_above() {
        let size = Size { width: 20, height: 10 };
        let first = frame(&[], &[], &lines(&["a", "b"]), size);
        assert_eq!(first, "\x1b[?2026h\ra\x1b[K\nb\x1b[K\n\x1b[J\x1b[?2026l");
        let second = frame(&lines(&["a", "b"]), &lines(&["said"]), &lines(&["b"]), size);
        assert_eq!(second, "\x1b[?2026h\r\x1b[2Asaid\x1b[K\nb\x1b[K\n\x1b[J\x1b[?2026l");
    }

    #[test]
    fn lines_that_the_terminal_has_wrapped_are_drawn_over_too() {
        let before = lines(&["0123456789", "\x1b[32m0123\x1b[0m", ""]);
        assert!(frame(&before, &[], &[], Size { width: 4, height: 10 }).contains("\x1b[5A"));
        assert!(frame(&before, &[], &[], Size { width: 4, height: 3 }).contains("\x1b[2A"), "no further than the top");
    }

    #[test]
    fn colours_and_wide_characters_are_measured() {
        assert_eq!((width("\x1b[32mok\x1b[0m!"), width("日本"), width("süß")), (3, 4, 3));
    }
}
