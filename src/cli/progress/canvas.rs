//! The terminal on which bars are drawn.
//!
//! indicatif pads each row with spaces up to the edge, so rows run into each other. A terminal that rewraps lines when
//! its width changes then treats all rows as one line, and the `^C` that the terminal echoes stays on a row that is
//! never cleared. [`Canvas`] therefore ends each row after its text, truncates bars to one row, and clears all rows
//! into which a change of width wrapped the last bars. It also positions the cursor once a drawing is complete, because
//! indicatif counts rows at the old width.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use console::{Term, measure_text_width, truncate_str};
use indicatif::TermLike;

/// The prefix of rows of bars, which distinguishes them from permanent text.
pub(super) const BAR: char = '\u{1}';

/// The time after which a width counts as stable. Terminals report frequent changes late (tmux four times per second),
/// and rows drawn for an old width wrap in the wrong place.
const RESIZE_DELAY: Duration = Duration::from_millis(300);

/// A terminal that indicatif draws on.
#[derive(Debug)]
pub(super) struct Canvas {
    term: Term,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Text to write unchanged.
    text: String,
    /// The rows of the current drawing; None between drawings.
    rows: Option<Vec<String>>,
    /// Permanent rows of earlier drawings that are not written yet.
    unwritten: Vec<String>,
    /// The width of the terminal, and the time of its last change.
    width: Option<(usize, Instant)>,
    /// Whether the next text is the padding after a row.
    is_padding: bool,
    /// The widths of the bars of the last drawing, one per row.
    bars: Vec<usize>,
    /// The number of empty rows above the bars.
    gap: usize,
    /// The minimum number of rows on the screen above the bars, including the empty ones.
    above: usize,
    reflow: Reflow,
}

impl Canvas {
    pub(super) fn stderr() -> Self {
        Self { term: Term::stderr(), state: Mutex::new(State { reflow: Reflow::of_terminal(), ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way a terminal treats long rows when it becomes narrower.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Reflow {
    /// It truncates them.
    #[default]
    Truncate,
    /// It wraps them.
    Wrap,
    /// It wraps them, and scrolls the same number of rows into history even if there are empty rows at the bottom. Bars
    /// move up with each change, and rows in history cannot be cleared.
    WrapAndScroll,
}

impl Reflow {
    /// Returns the behaviour of this terminal. Most terminals wrap rows, and those that do not cannot be detected.
    fn of_terminal() -> Self {
        const VARIABLES: [&str; 7] = [
            "VTE_VERSION",
            "KITTY_WINDOW_ID",
            "ALACRITTY_WINDOW_ID",
            "KONSOLE_VERSION",
            "WEZTERM_PANE",
            "WT_SESSION",
            "TERM_PROGRAM",
        ];
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match is_set("TMUX") {
            true => Self::WrapAndScroll,
            false if VARIABLES.into_iter().any(is_set) => Self::Wrap,
            false => Self::Truncate,
        }
    }
}

impl State {
    /// Accepts a row, then the padding after it.
    fn accept(&mut self, text: &str) {
        match &mut self.rows {
            Some(rows) if !self.is_padding => rows.push(text.to_string()),
            Some(_) => {}
            None => self.text += text,
        }
        self.is_padding = self.rows.is_some() && !self.is_padding;
    }

    /// Returns the output for a terminal of this height and width. A drawing starts by clearing the bars of the last
    /// one. Nothing is drawn while the width changes.
    fn render(&mut self, (height, width): (usize, usize), now: Instant) -> String {
        let mut text = std::mem::take(&mut self.text);
        self.is_padding = false;
        let Some(rows) = self.rows.take() else { return text };
        let (bars, permanent): (Vec<String>, Vec<String>) = rows.into_iter().partition(|row| row.starts_with(BAR));
        self.unwritten.extend(permanent);
        let (before, since) = *self.width.get_or_insert((width, now - RESIZE_DELAY));
        if before != width {
            self.width = Some((width, now));
        }
        if !bars.is_empty() && (before != width || now < since + RESIZE_DELAY) {
            return text;
        }
        let permanent = std::mem::take(&mut self.unwritten);
        let mut has_scrolled = false;
        if !self.bars.is_empty() {
            let wrapped_rows = |len: &usize| len.div_ceil(width.max(1)).max(1);
            let cleared: usize = match self.reflow {
                Reflow::Truncate => self.bars.len(),
                Reflow::Wrap | Reflow::WrapAndScroll => self.bars.iter().map(wrapped_rows).sum(),
            };
            let extra = cleared - self.bars.len();
            has_scrolled = self.reflow == Reflow::WrapAndScroll && extra > 0;
            self.above = self.above.saturating_sub(extra);
            // Clear row by row from the last one up: some terminals move rows into history if everything below is
            // cleared.
            text += "\r\x1b[2K";
            text += &"\x1b[1A\x1b[2K".repeat(cleared - 1 + self.gap);
        }
        self.above = (self.above + permanent.len().saturating_sub(self.gap)).min(height.saturating_sub(bars.len()));
        self.gap = self.gap.saturating_sub(permanent.len());
        let bars: Vec<_> = bars.iter().map(|bar| truncate_str(&bar[BAR.len_utf8()..], width, "")).collect();
        self.bars = bars.iter().map(|bar| measure_text_width(bar)).collect();
        if has_scrolled {
            // Each row may be wrapped by the next change of width.
            self.gap += bars.len().saturating_sub(self.above);
            self.above = self.above.max(bars.len());
        }
        if bars.is_empty() {
            self.gap = 0;
        }
        for row in permanent.iter().map(String::as_str).chain(std::iter::repeat_n("", self.gap)) {
            text += row;
            text += "\r\n";
        }
        text + &bars.join("\r\n")
    }
}

impl TermLike for Canvas {
    fn width(&self) -> u16 {
        self.term.size().1
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    /// Starts a drawing: indicatif calls this first.
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        self.state().rows.get_or_insert_default();
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.state().text += &format!("{line}\r\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.state().accept(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let (height, width) = self.term.size();
        let text = self.state().render((height.into(), width.into()), Instant::now());
        self.term.write_str(&text)?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws lines at a time when the width of the terminal is stable.
    fn draw(state: &mut State, width: usize, lines: &[&str]) -> String {
        state.rows.get_or_insert_default();
        for line in lines {
            state.accept(line);
            state.accept("  ");
        }
        // Long after the previous drawing.
        let now = state.width.map_or_else(Instant::now, |(_, since)| since + 2 * RESIZE_DELAY);
        if state.width.is_some_and(|(before, _)| before != width) {
            state.width = Some((width, now - RESIZE_DELAY));
        }
        state.render((24, width), now)
    }

    fn state_with(reflow: Reflow) -> State {
        State { reflow, ..State::default() }
    }

    #[test]
    fn bars_are_redrawn_and_text_stays() {
        let mut state = state_with(Reflow::Wrap);
        assert_eq!(draw(&mut state, 9, &["\u{1}one", "\u{1}a long bar"]), "one\r\na long ba");
        let cleared = "\r\x1b[2K\x1b[1A\x1b[2K";
        assert_eq!(draw(&mut state, 9, &["done", "\u{1}two"]), format!("{cleared}done\r\ntwo"));
        assert_eq!(draw(&mut state, 9, &["\u{1}two"]), "\r\x1b[2Ktwo");
        assert_eq!(draw(&mut state, 9, &[]), "\r\x1b[2K");
        assert_eq!(draw(&mut state, 9, &[]), "");
    }

    #[test]
    fn nothing_is_drawn_while_the_width_changes_and_nothing_is_lost() {
        let mut state = state_with(Reflow::Truncate);
        draw(&mut state, 9, &["\u{1}bar"]);
        let start = state.width.unwrap().1 + 2 * RESIZE_DELAY;
        let mut at = |after: f64, width: usize, rows: &[&str]| {
            state.rows = Some(rows.iter().map(|row| row.to_string()).collect());
            state.render((24, width), start + RESIZE_DELAY.mul_f64(after))
        };
        assert_eq!(at(0.0, 8, &["one", "\u{1}bar"]), "");
        assert_eq!(at(0.9, 8, &["\u{1}bar"]), "");
        assert_eq!(at(0.95, 7, &["\u{1}bar"]), "");
        assert_eq!(at(1.9, 7, &["two", "\u{1}bar"]), "");
        assert_eq!(at(2.0, 7, &["\u{1}bar"]), "\r\x1b[2Kone\r\ntwo\r\nbar");
        // The final drawing has no bars and is not delayed.
        assert_eq!(at(2.0, 8, &["end"]), "\r\x1b[2Kend\r\n");
    }

    #[test]
    fn wrapped_rows_are_cleared() {
        let bars = ["\u{1}123456", "\u{1}1234"];
        let narrower = |reflow| {
            let mut state = state_with(reflow);
            draw(&mut state, 9, &bars);
            draw(&mut state, 3, &[])
        };
        assert_eq!(narrower(Reflow::Truncate).matches("\x1b[2K").count(), 2);
        let wrapped_rows = narrower(Reflow::Wrap);
        assert_eq!(wrapped_rows.matches("\x1b[2K").count(), 4);
        assert_eq!(narrower(Reflow::WrapAndScroll), wrapped_rows);
    }

    #[test]
    fn bars_stay_below_rows_that_scroll_into_history() {
        let bar = ["\u{1}123456"];
        let mut state = state_with(Reflow::WrapAndScroll);
        draw(&mut state, 9, &["done", bar[0]]);
        let cleared = "\r\x1b[2K\x1b[1A\x1b[2K";
        // The permanent row above the bar has scrolled into history.
        assert_eq!(draw(&mut state, 3, &bar), format!("{cleared}\r\n123"));
        assert_eq!(draw(&mut state, 9, &bar), format!("{cleared}\r\n123456"));
        assert_eq!(draw(&mut state, 3, &bar), format!("{cleared}\x1b[1A\x1b[2K\r\n\r\n123"));
        // Permanent text replaces empty rows.
        assert_eq!(draw(&mut state, 9, &["two", bar[0]]), format!("{cleared}\x1b[1A\x1b[2Ktwo\r\n\r\n123456"));
        assert_eq!(draw(&mut state, 9, &["three", "four", bar[0]]), format!("{cleared}three\r\nfour\r\n123456"));
        assert_eq!(draw(&mut state, 9, &[]), "\r\x1b[2K");
    }
}
