//! End-to-end tests of the terminal output: runs the binary on a pseudo-terminal, whose screen an emulator renders.

mod common;

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Folder, Pipeline, TIMEOUT};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const ROWS: u16 = 24;

/// An srpipe process on a pseudo-terminal.
struct Terminal {
    master: OwnedFd,
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn start(folder: &Folder, columns: u16, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, vec![]).unwrap();
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let terminal = || slave.try_clone().unwrap();
        let mut command = folder.command(args);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("CI");
        // The emulator does not rewrap lines when its width changes.
        for name in ["TMUX", "TERM_PROGRAM", "VTE_VERSION"] {
            command.env_remove(name);
        }
        command.stdin(terminal()).stdout(terminal()).stderr(terminal());
        tcsetwinsize(&master, size(columns)).unwrap();
        let child = command.spawn().unwrap();
        // Close this process's copies, so that the terminal closes when the last process on it exits.
        drop((command, slave));
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(ROWS), cells(columns), 1000)));
        let (mut from, to) = (File::from(master.try_clone().unwrap()), Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails once no process has the other end open.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { master, child, screen, reader }
    }

    /// Types text as if on the keyboard. The pseudo-terminal is not a controlling terminal, so control characters send
    /// no signals.
    fn type_text(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16) {
        tcsetwinsize(&self.master, size(columns)).unwrap();
        self.screen.lock().unwrap().screen_mut().set_size(cells(ROWS), cells(columns));
    }

    /// Returns the visible rows.
    fn rows(&self) -> Vec<String> {
        rows(self.screen.lock().unwrap().screen())
    }

    /// Waits until the screen satisfies a condition, and returns its rows.
    fn wait_until(&self, what: &str, condition: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let rows = self.rows();
            if condition(&rows) {
                return rows;
            }
            assert!(Instant::now() < deadline, "timed out waiting until {what}: {rows:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the process to exit; returns all rows, including those that have scrolled off the screen.
    fn wait(mut self) -> Vec<String> {
        let status = self.child.wait().unwrap();
        self.reader.join().unwrap();
        let mut parser = self.screen.lock().unwrap();
        parser.screen_mut().set_scrollback(usize::MAX);
        let hidden = parser.screen().scrollback();
        let mut all = vec![];
        for offset in (1..=hidden).rev() {
            parser.screen_mut().set_scrollback(offset);
            all.push(rows(parser.screen()).swap_remove(0));
        }
        parser.screen_mut().set_scrollback(0);
        all.extend(rows(parser.screen()));
        assert!(status.success(), "{all:#?}");
        all
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

fn size(columns: u16) -> Winsize {
    Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn rows(screen: &vt100::Screen) -> Vec<String> {
    screen.rows(0, screen.size().1.get()).collect()
}

/// Returns a pipeline that trains long enough to be watched.
fn training() -> Folder {
    Pipeline::small()
        .stage(
            "model",
            "{kind: train, data: pairs, model: {base_channels: 4}, optim: {steps: 1500, batch_size: 4}, \
             validation: {every: 500}}",
        )
        .folder()
}

/// Returns the rows that begin with a name.
fn rows_of<'a>(rows: &'a [String], name: &str) -> Vec<&'a String> {
    rows.iter().filter(|row| row.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '))).collect()
}

/// Whether a row contains all these words.
fn has(row: &str, words: &[&str]) -> bool {
    words.iter().all(|word| row.contains(word))
}

/// Returns the only bar; `None` unless there is exactly one.
fn bar(rows: &[String]) -> Option<&String> {
    let mut bars = rows.iter().filter(|row| row.contains('%'));
    bars.next().filter(|_| bars.next().is_none())
}

/// Whether the bar of a running `train` stage has all columns, including the sparkline of the loss.
fn shows_training(rows: &[String]) -> bool {
    bar(rows).is_some_and(|row| {
        row.starts_with("model ") && has(row, &["images/s", "loss 0.", " left"]) && row.contains(['█', '▇'])
    })
}

#[test]
fn a_run_has_a_line_for_each_stage_and_a_footer() {
    for columns in [80, 160] {
        let folder = training();
        let terminal = Terminal::start(&folder, columns, &["run", "p.yaml"]);
        let rows = terminal.wait_until("training is shown", shows_training);
        for done in ["images", "pairs", "others"] {
            assert!(matches!(rows_of(&rows, done)[..], [row] if row.contains("done in")), "{rows:#?}");
        }
        let last = rows.iter().rposition(|row| !row.trim().is_empty()).unwrap();
        assert!(has(&rows[last], &["p ", "3/4 done, 1 running"]), "the footer comes last: {rows:#?}");
        let all = terminal.wait();
        assert!(rows_of(&all, "model").iter().any(|row| has(row, &["done in", "val loss 0."])), "{all:#?}");
        assert_final_rows(&all);
    }
}

#[test]
fn status_shows_the_same_progress_as_the_run_itself() {
    let folder = training();
    let run = Terminal::start(&folder, 80, &["run", "p.yaml"]);
    run.wait_until("training is shown", shows_training);
    let status = Terminal::start(&folder, 80, &["status", "p.yaml"]);
    let rows = status.wait_until("status shows training", shows_training);
    assert!(rows.iter().any(|row| has(row, &["p ", "3/4 done, 1 running"])), "{rows:#?}");
    run.wait();
    let all = status.wait();
    assert!(all.iter().any(|row| has(row, &["model", "done in", "val loss 0."])), "{all:#?}");
}

#[test]
fn a_terminal_can_change_its_width_during_a_run() {
    let folder = training();
    let terminal = Terminal::start(&folder, 160, &["run", "p.yaml"]);
    terminal.wait_until("training is shown", shows_training);
    terminal.resize(70);
    let rows =
        terminal.wait_until("the bar fits", |rows| bar(rows).is_some_and(|row| row.trim_end().ends_with(" left")));
    assert!(rows.iter().any(|row| row.contains("3/4 done")), "{rows:#?}");
    assert_final_rows(&terminal.wait());
}

#[test]
fn the_echo_of_an_interrupt_leaves_no_bar_behind() {
    let folder = training();
    let terminal = Terminal::start(&folder, 80, &["run", "p.yaml"]);
    terminal.wait_until("training is shown", shows_training);
    terminal.type_text("\x03");
    terminal.wait_until("^C is echoed", |rows| rows.iter().any(|row| row.contains("^C")));
    terminal.wait_until("^C is cleared", |rows| rows.iter().all(|row| !row.contains("^C")));
    assert_final_rows(&terminal.wait());
}

/// Checks that a finished run left one line per stage and no bars.
fn assert_final_rows(all: &[String]) {
    for stage in ["images", "pairs", "others", "model"] {
        assert_eq!(
            rows_of(all, stage).into_iter().filter(|row| row.contains("done in")).count(),
            1,
            "{stage}: {all:#?}"
        );
    }
    assert!(all.iter().all(|row| !has(row, &["%", "left"]) && !row.contains("running")), "{all:#?}");
}
