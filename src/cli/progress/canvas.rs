//! The terminal on which bars are drawn.
//!
//! indicatif pads each row with spaces up to the edge, so rows run into each other. A terminal that rewraps lines when
//! its width changes then treats all rows as one line, and the `^C` that the terminal echoes stays on a row that is
//! never cleared. This module ends each row after its text, truncates bars to one row, and clears all rows into which
//! the last bars were wrapped by a change of width. This module also positions the cursor once a drawing is complete,
//! because indicatif counts rows at the old width.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use console::{Term, measure_text_width, truncate_str};
use indicatif::TermLike;

/// The prefix of rows of bars, which distinguishes them from permanent text.
pub(super) const BAR: char = '\u{1}';

/// The time after which a width counts as stable. Terminals report frequent changes late (tmux four times per second),
/// and rows drawn for an old width wrap in the wrong place.
const SETTLED: Duration = Duration::from_millis(300);

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
    held: Vec<String>,
    /// The width of the terminal, and the time of its last change.
    width: Option<(usize, Instant)>,
    /// Whether the next text is the padding after a row.
    is_filler: bool,
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

/// How a terminal treats long rows when it becomes narrower.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Reflow {
    /// It truncates them.
    #[default]
    None,
    /// It wraps them.
    Broken,
    /// It wraps them, and scrolls the same number of rows into history even if there are empty rows at the bottom. Bars
    /// move up with each change, and rows in history cannot be cleared.
    Pushed,
}

impl Reflow {
    /// Returns the behaviour of this terminal. Most terminals wrap rows, and those that do not cannot be detected.
    fn of_terminal() -> Self {
        const SIGNS: [&str; 7] = [
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
            true => Self::Pushed,
            false if SIGNS.into_iter().any(is_set) => Self::Broken,
            false => Self::None,
        }
    }
}

impl State {
    /// Accepts a row, then the padding after it.
    fn take(&mut self, text: &str) {
        match &mut self.rows {
            Some(rows) if !self.is_filler => rows.push(text.to_string()),
            Some(_) => {}
            None => self.text += text,
        }
        self.is_filler = self.rows.is_some() && !self.is_filler;
    }

    /// Returns the output for a terminal of the current height and width. A drawing starts by clearing the bars of the
    /// last one. While the width changes, nothing is drawn.
    fn drawn(&mut self, (height, width): (usize, usize), now: Instant) -> String {
        let mut text = std::mem::take(&mut self.text);
        self.is_filler = false;
        let Some(rows) = self.rows.take() else { return text };
        let (bars, stay): (Vec<String>, Vec<String>) = rows.into_iter().partition(|row| row.starts_with(BAR));
        self.held.extend(stay);
        let (before, since) = *self.width.get_or_insert((width, now - SETTLED));
        if before != width {
            self.width = Some((width, now));
        }
        if !bars.is_empty() && (before != width || now < since + SETTLED) {
            return text;
        }
        let stay = std::mem::take(&mut self.held);
        let mut is_pushed = false;
        if !self.bars.is_empty() {
            let broken = |len: &usize| len.div_ceil(width.max(1)).max(1);
            let cleared: usize = match self.reflow {
                Reflow::None => self.bars.len(),
                Reflow::Broken | Reflow::Pushed => self.bars.iter().map(broken).sum(),
            };
            let more = cleared - self.bars.len();
            is_pushed = self.reflow == Reflow::Pushed && more > 0;
            self.above = self.above.saturating_sub(more);
            // Clear row by row from the last one up: some terminals move rows into history if everything below is
            // cleared.
            text += "\r\x1b[2K";
            text += &"\x1b[1A\x1b[2K".repeat(cleared - 1 + self.gap);
        }
        self.above = (self.above + stay.len().saturating_sub(self.gap)).min(height.saturating_sub(bars.len()));
        self.gap = self.gap.saturating_sub(stay.len());
        let bars: Vec<_> = bars.iter().map(|bar| truncate_str(&bar[BAR.len_utf8()..], width, "")).collect();
        self.bars = bars.iter().map(|bar| measure_text_width(bar)).collect();
        if is_pushed {
            // Each row may be wrapped by the next change of width.
            self.gap += bars.len().saturating_sub(self.above);
            self.above = self.above.max(bars.len());
        }
        if bars.is_empty() {
            self.gap = 0;
        }
        for row in stay.iter().map(String::as_str).chain(std::iter::repeat_n("", self.gap)) {
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

    /// The start of each drawing.
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
        self.state().take(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let (height, width) = self.term.size();
        let text = self.state().drawn((height.into(), width.into()), Instant::now());
        self.term.write_str(&text)?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(state: &mut State, width: usize, lines: &[&str]) -> String {
        state.rows.get_or_insert_default();
        for line in lines {
            state.take(line);
            state.take("  ");
        }
        // Long after the previous drawing.
        let now = state.width.map_or_else(Instant::now, |(_, since)| since + 2 * SETTLED);
        if state.width.is_some_and(|(before, _)| before != width) {
            state.width = Some((width, now - SETTLED));
        }
        state.drawn((24, width), now)
    }

    fn on(reflow: Reflow) -> State {
        State { reflow, ..State::default() }
    }

    #[test]
    fn bars_are_redrawn_and_text_stays() {
        let mut state = on(Reflow::Broken);
        assert_eq!(drawn(&mut state, 9, &["\u{1}one", "\u{1}a long bar"]), "one\r\na long ba");
        let cleared = "\r\x1b[2K\x1b[1A\x1b[2K";
        assert_eq!(drawn(&mut state, 9, &["done", "\u{1}two"]), format!("{cleared}done\r\ntwo"));
        assert_eq!(drawn(&mut state, 9, &["\u{1}two"]), "\r\x1b[2Ktwo");
        assert_eq!(drawn(&mut state, 9, &[]), "\r\x1b[2K");
        assert_eq!(drawn(&mut state, 9, &[]), "");
    }

    #[test]
    fn nothing_is_drawn_while_the_width_changes_and_nothing_is_lost() {
        let mut state = on(Reflow::None);
        drawn(&mut state, 9, &["\u{1}bar"]);
        let start = state.width.unwrap().1 + 2 * SETTLED;
        let mut at = |after: f64, width: usize, rows: &[&str]| {
            state.rows = Some(rows.iter().map(|row| row.to_string()).collect());
            state.drawn((24, width), start + SETTLED.mul_f64(after))
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
            let mut state = on(reflow);
            drawn(&mut state, 9, &bars);
            drawn(&mut state, 3, &[])
        };
        assert_eq!(narrower(Reflow::None).matches("\x1b[2K").count(), 2);
        let broken = narrower(Reflow::Broken);
        assert_eq!(broken.matches("\x1b[2K").count(), 4);
        assert_eq!(narrower(Reflow::Pushed), broken);
    }

    #[test]
    fn bars_stay_below_rows_that_scroll_into_history() {
        let bar = ["\u{1}123456"];
        let mut state = on(Reflow::Pushed);
        drawn(&mut state, 9, &["done", bar[0]]);
        let cleared = "\r\x1b[2K\x1b[1A\x1b[2K";
        // The permanent row above the bar has scrolled into history.
        assert_eq!(drawn(&mut state, 3, &bar), format!("{cleared}\r\n123"));
        assert_eq!(drawn(&mut state, 9, &bar), format!("{cleared}\r\n123456"));
        assert_eq!(drawn(&mut state, 3, &bar), format!("{cleared}\x1b[1A\x1b[2K\r\n\r\n123"));
        // Permanent text replaces empty rows.
        assert_eq!(drawn(&mut state, 9, &["two", bar[0]]), format!("{cleared}\x1b[1A\x1b[2Ktwo\r\n\r\n123456"));
        assert_eq!(drawn(&mut state, 9, &["three", "four", bar[0]]), format!("{cleared}three\r\nfour\r\n123456"));
        assert_eq!(drawn(&mut state, 9, &[]), "\r\x1b[2K");
    }
}
