//! The terminal as bars are drawn on it.
//!
//! indicatif fills each row with blanks up to the edge and lets it run on into the next: a terminal that breaks its lines
//! anew when its width changes takes all of them for one, and what it writes itself (`^C`) stands on a row that nobody
//! clears. Here a row ends where its text does, and rows that were broken meanwhile are cleared as a whole.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use console::{Term, measure_text_width};
use indicatif::TermLike;

#[derive(Debug)]
pub struct Canvas {
    term: Term,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was not written yet.
    text: String,
    /// How wide the rows are that were drawn last, and the terminal then was.
    rows: Vec<usize>,
    width: usize,
    /// How wide it is in this drawing, whatever happens meanwhile.
    now: usize,
    /// Rows that are drawn now; None before anything is.
    drawing: Option<Vec<usize>>,
    /// How far the cursor was moved up, before the first row was cleared.
    up: usize,
    is_cleared: bool,
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

/// Rows that a text of `len` columns takes.
fn rows(len: usize, width: usize) -> usize {
    len.div_ceil(width.max(1)).max(1)
}

impl State {
    /// How many rows more than `n`, or fewer, the last `n` that were drawn take on a terminal that is `width` wide now.
    fn more_rows(&self, n: usize, width: usize) -> isize {
        if !self.breaks_anew || width == self.width {
            return 0;
        }
        let (mut before, mut now) = (0, 0);
        for &len in self.rows.iter().rev() {
            if before >= n {
                break;
            }
            before += rows(len, self.width);
            now += rows(len, width);
        }
        now.cast_signed() - before.cast_signed()
    }
}

impl TermLike for Canvas {
    fn width(&self) -> u16 {
        let state = self.state();
        match state.drawing {
            Some(_) => u16::try_from(state.now).unwrap_or(u16::MAX),
            None => self.term.size().1,
        }
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        let width = usize::from(self.term.size().1);
        let mut state = self.state();
        if state.drawing.is_none() {
            state.now = width;
            (state.drawing, state.up, state.is_cleared, state.is_filler) = (Some(vec![]), n, false, false);
        }
        if n > 0 {
            state.text += &format!("\x1b[{n}A");
        }
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        if n > 0 {
            self.state().text += &format!("\x1b[{n}B");
        }
        Ok(())
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.state().text += &format!("\x1b[{n}C");
        Ok(())
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.state().text += &format!("\x1b[{n}D");
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.state().text += &format!("{line}\r\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let mut state = self.state();
        if std::mem::take(&mut state.is_filler) {
            state.text += "\x1b[K";
            state.is_behind = true;
            return Ok(());
        }
        if std::mem::take(&mut state.is_behind) {
            state.text += "\r\n";
        }
        state.text += text;
        state.is_filler = true;
        state.drawing.get_or_insert_default().push(measure_text_width(text));
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        let mut state = self.state();
        if !std::mem::replace(&mut state.is_cleared, true) {
            let more = state.more_rows(state.up + 1, state.now);
            match more {
                0 => {}
                1.. => state.text += &format!("\x1b[{more}A\r\x1b[J"),
                _ => state.text += &format!("\x1b[{}B\r\x1b[J", -more),
            }
        }
        state.text += "\r\x1b[2K";
        state.is_behind = false;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.rows = state.drawing.take().unwrap_or_default();
        state.width = state.now;
        let text = std::mem::take(&mut state.text);
        self.term.write_str(&text)?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_broken_are_counted() {
        let state = State { rows: vec![200, 30, 100], width: 160, breaks_anew: true, ..State::default() };
        assert_eq!(state.more_rows(1, 160), 0);
        assert_eq!(state.more_rows(1, 80), 1);
        assert_eq!(state.more_rows(2, 25), 4);
        // The first was drawn on two.
        assert_eq!(state.more_rows(4, 80), 2);
        assert_eq!(state.more_rows(2, 200), 0);
        // And is on one now.
        assert_eq!(state.more_rows(4, 200), -1);
        assert_eq!(State { breaks_anew: false, ..state }.more_rows(2, 25), 0);
    }
}
