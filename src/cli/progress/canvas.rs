//! The terminal as bars are drawn on it.
//!
//! indicatif fills each row with blanks up to the edge and lets it run on into the next: a terminal that breaks its lines
//! anew when its width changes takes all of them for one, and what it writes itself (`^C`) stands on a row that nobody
//! clears. Here a row ends where its text does, no bar is longer than a row, and what a change of width has made of the last
//! bars is cleared as a whole. Where the cursor goes is decided here too: indicatif counts rows of the width that was.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use console::{Term, measure_text_width, truncate_str};
use indicatif::TermLike;

/// How rows of bars begin, in contrast to text that stays.
pub const BAR: char = '\u{1}';

#[derive(Debug)]
pub struct Canvas {
    term: Term,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was not written yet.
    text: String,
    /// How wide the bars are that were drawn last, a row each.
    bars: Vec<usize>,
    /// The width of the terminal in this drawing, whatever happens meanwhile; None between drawings.
    width: Option<usize>,
    /// The cursor stands behind a row that is complete.
    is_behind: bool,
    /// What comes next are the blanks behind a row.
    is_filler: bool,
    /// Whether the terminal breaks lines anew when its width changes.
    breaks_anew: bool,
}

impl Canvas {
    pub fn stderr() -> Self {
        Self { term: Term::stderr(), state: Mutex::new(State { breaks_anew: breaks_anew(), ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As most terminals do; those that don't, say nothing of themselves.
fn breaks_anew() -> bool {
    const SIGNS: [&str; 8] = [
        "TMUX",
        "VTE_VERSION",
        "KITTY_WINDOW_ID",
        "ALACRITTY_WINDOW_ID",
        "KONSOLE_VERSION",
        "WEZTERM_PANE",
        "WT_SESSION",
        "TERM_PROGRAM",
    ];
    SIGNS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

impl State {
    /// Begins a drawing where the last one has none of its bars any more.
    fn begin(&mut self, width: usize) {
        self.width = Some(width);
        self.is_filler = false;
        let rows = |len: &usize| if self.breaks_anew { len.div_ceil(width.max(1)).max(1) } else { 1 };
        let rows: usize = self.bars.iter().map(rows).sum();
        self.bars.clear();
        if rows == 0 {
            return;
        }
        // Row by row from the last up: a terminal that is asked to clear all that is below may keep it as history.
        self.text += "\r\x1b[2K";
        self.text += &"\x1b[1A\x1b[2K".repeat(rows - 1);
        self.is_behind = false;
    }

    fn write(&mut self, text: &str) {
        if std::mem::take(&mut self.is_filler) {
            self.is_behind = true;
            return;
        }
        if std::mem::take(&mut self.is_behind) {
            self.text += "\r\n";
        }
        match (text.strip_prefix(BAR), self.width) {
            (Some(bar), Some(width)) => {
                let bar = truncate_str(bar, width, "");
                self.text += &bar;
                self.bars.push(measure_text_width(&bar));
            }
            _ => self.text += text,
        }
        self.is_filler = true;
    }
}

impl TermLike for Canvas {
    fn width(&self) -> u16 {
        let width = self.state().width.and_then(|width| u16::try_from(width).ok());
        width.unwrap_or_else(|| self.term.size().1)
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    /// With this each drawing begins.
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        let width = self.term.size().1;
        let mut state = self.state();
        if state.width.is_none() {
            state.begin(width.into());
        }
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
        self.state().write(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.width = None;
        let text = std::mem::take(&mut state.text);
        self.term.write_str(&text)?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(state: &mut State, width: usize, lines: &[&str]) -> String {
        state.begin(width);
        for line in lines {
            state.write(line);
            state.write("  ");
        }
        state.width = None;
        std::mem::take(&mut state.text)
    }

    #[test]
    fn bars_are_drawn_over_and_text_stays() {
        let mut state = State { breaks_anew: true, ..State::default() };
        assert_eq!(drawn(&mut state, 9, &["\u{1}one", "\u{1}a long bar"]), "one\r\na long ba");
        let cleared = "\r\x1b[2K\x1b[1A\x1b[2K";
        assert_eq!(drawn(&mut state, 9, &["done", "\u{1}two"]), format!("{cleared}done\r\ntwo"));
        assert_eq!(drawn(&mut state, 9, &["\u{1}two"]), "\r\x1b[2Ktwo");
        assert_eq!(drawn(&mut state, 9, &[]), "\r\x1b[2K");
        assert_eq!(drawn(&mut state, 9, &[]), "");
    }

    #[test]
    fn rows_that_were_broken_are_cleared() {
        let bars = ["\u{1}123456", "\u{1}1234"];
        let mut state = State { breaks_anew: true, ..State::default() };
        drawn(&mut state, 9, &bars);
        assert_eq!(drawn(&mut state, 3, &[]).matches("\x1b[2K").count(), 4);
        let mut other = State::default();
        drawn(&mut other, 9, &bars);
        assert_eq!(drawn(&mut other, 3, &[]).matches("\x1b[2K").count(), 2);
    }
}
