//! The progress of a run: bars on a terminal, otherwise dated lines. The process of the run receives its events
//! ([`crate::run::Progress`]); other processes read its record ([`watch`]).

mod bars;
mod canvas;
mod columns;
mod lines;
mod trail;
mod watch;

use std::collections::BTreeMap;
use std::time::Instant;

use super::output::{Look, visible, visible_line};
use crate::format;
use crate::run::{Failure, Progress, Status, Stopping};
use crate::runs::{RunRecord, StageRecord};
use crate::stages::StageEvent;

pub use bars::Bars;
pub use lines::Lines;
pub use watch::watch;

/// The speed of a stage, measured from its first progress event in this run.
#[derive(Debug, Clone, Copy)]
struct Pace {
    start: Instant,
    done: u64,
}

impl Pace {
    fn eta(&self, done: u64, total: u64) -> Option<f64> {
        let did = done.checked_sub(self.done).filter(|&did| did > 0 && total > 0)?;
        Some(self.start.elapsed().as_secs_f64() / did as f64 * total.saturating_sub(done) as f64)
    }
}

/// Describes the status of a stage, with the style of the text; None for a status that needs no line.
fn sentence(status: &Status) -> Option<(Look, String)> {
    words_of(status).map(|(look, text)| (look, visible(&text).into_owned()))
}

fn words_of(status: &Status) -> Option<(Look, String)> {
    Some(match status {
        Status::Pending => return None,
        Status::Running => (Look::Plain, "running".into()),
        Status::Blocked { why } => (Look::Attention, format!("waiting: {why}")),
        Status::Cached => (Look::Dim, "cached".into()),
        Status::Ran { seconds } => (Look::Good, format!("done in {}", format::duration(*seconds))),
        Status::Failed(failure) => (Look::Bad, format!("failed: {}", failure.error)),
        Status::Skipped { because: Some(stage) } => {
            (Look::Attention, format!("skipped, because {stage} did not succeed"))
        }
        Status::Skipped { because: None } => (Look::Attention, "not started".into()),
        Status::Interrupted => (Look::Attention, "interrupted".into()),
    })
}

/// The maximum length of a log line shown with an error.
const LOG_COLUMNS: usize = 200;

/// The last lines of a failed stage's log; long lines are cut.
fn log_lines(failure: &Failure) -> Vec<String> {
    let whole: Vec<String> = failure.tail.iter().map(|line| printable(line)).collect();
    let shown = whole.iter().map(|line| format::shortened(line, LOG_COLUMNS));
    let mut lines: Vec<String> = shown.map(|line| format!("    | {line}")).collect();
    if failure.log.is_file() {
        let is_cut = whole.iter().any(|line| line.chars().nth(LOG_COLUMNS).is_some());
        let note = if is_cut { " (long lines are truncated; `srpipe logs STAGE` shows the full log)" } else { "" };
        lines.push(format!("    log: {}{note}", failure.log.display()));
    }
    lines
}

/// Returns a program's line as it finally appears on a terminal, without colours and overwritten text (`\r`).
fn printable(line: &str) -> String {
    let plain = console::strip_ansi_codes(line);
    let last = plain.trim_end().rsplit('\r').next().unwrap_or("");
    last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn stopping(how: Stopping) -> String {
    match how {
        Stopping::Saving => "stopping: running stages save their progress (interrupt again to stop at once)".into(),
        Stopping::Leaving(wait) => format!(
            "leaving: jobs continue without this process. Interrupt again within {} s to cancel them instead",
            wait.as_secs()
        ),
        Stopping::Cancelling => {
            "cancelling the jobs, which save their progress (interrupt again to exit without waiting)".into()
        }
    }
}

/// The names of stages and their widths.
#[derive(Default)]
struct Stages {
    names: Vec<String>,
    width: usize,
    paces: BTreeMap<usize, Pace>,
}

impl Stages {
    fn new(records: &[StageRecord]) -> Self {
        let names: Vec<String> = records.iter().map(|stage| visible_line(&stage.name).into_owned()).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(40);
        Self { names, width, paces: BTreeMap::new() }
    }

    fn padded(&self, stage: usize) -> String {
        format!("{:width$}", self.names[stage], width = self.width)
    }

    /// Returns the space for names on a terminal of `width`, next to the progress of stages.
    fn shown(&self, width: usize) -> usize {
        self.width.min((width * 3 / 10).max(12))
    }

    /// Returns the name in that width. Shortening keeps the end, which distinguishes the instances of a sweep.
    fn shortened(&self, stage: usize, width: usize) -> String {
        let (name, room) = (&self.names[stage], self.shown(width));
        let length = name.chars().count();
        if length <= room {
            return format!("{name:room$}");
        }
        let head: String = name.chars().take(room / 3).collect();
        let tail: String = name.chars().skip(length - (room - room / 3 - 1)).collect();
        format!("{head}…{tail}")
    }

    /// Returns the estimated seconds until a stage is done.
    fn eta(&mut self, stage: usize, done: u64, total: u64) -> Option<f64> {
        let pace = *self.paces.entry(stage).or_insert(Pace { start: Instant::now(), done });
        pace.eta(done, total)
    }
}

/// Shows nothing, for a run that only links cached results.
pub(super) struct Quiet;

impl Progress for Quiet {
    fn started(&mut self, _: &RunRecord) {}
    fn stage(&mut self, _: usize, _: &Status) {}
    fn event(&mut self, _: usize, _: &StageEvent) {}
    fn stopping(&mut self, _: Stopping) {}
    fn finished(&mut self, _: &RunRecord) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Cause;

    #[test]
    fn long_names_are_shortened_and_stay_distinct() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
            Stages { names, width, paces: BTreeMap::new() }
        };
        let long = names(&["images", "attention[model.attention.kind=seed,seed=3]"]);
        assert_eq!(long.shortened(1, 80), "attentio…nd=seed,seed=3]");
        assert_eq!(long.shortened(0, 80), format!("images{}", " ".repeat(18)));
        assert_eq!(long.shortened(1, 160), "attention[model.attention.kind=seed,seed=3]");
        assert_eq!(names(&["a", "bcd"]).shortened(0, 80), "a  ");
    }

    #[test]
    fn the_log_excerpt_is_bounded() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let tail = vec!["short".to_string(), "m".repeat(100_000)];
        let lines = log_lines(&Failure { cause: Cause::Failed, error: String::new(), log: log.path().into(), tail });
        assert_eq!(lines[0], "    | short");
        assert_eq!(lines[1].chars().count(), LOG_COLUMNS + 6);
        assert!(lines[1].ends_with('…') && lines[2].contains("srpipe logs"), "{}", lines[2]);
    }

    #[test]
    fn lines_of_programs_are_cleaned_up() {
        let said = ["\x1b[32m10%\x1b[0m\r\x1b[2K20%\r", "a\tb\x07", "süß"].map(printable);
        assert_eq!(said, ["20%", "a b ", "süß"]);
    }
}
