//! The progress of a run: bars on a terminal, otherwise dated lines. The process of the run receives its events
//! ([`crate::run::Progress`]); other processes read its record ([`watch`]).

mod bars;
mod canvas;
mod columns;
mod lines;
mod sparkline;
mod watch;

use std::collections::BTreeMap;
use std::time::Instant;

use super::output::{Look, sanitize, sanitize_line};
use crate::format;
use crate::run::{Failure, Progress, Status, Stopping};
use crate::runs::{RunRecord, StageRecord};
use crate::stages::StageEvent;

pub use bars::Bars;
pub use lines::Lines;
pub use watch::watch;

/// The start of the measurement of a stage's speed: its first progress event in this run.
#[derive(Debug, Clone, Copy)]
struct SpeedMeter {
    start: Instant,
    /// The work that was done at the start.
    done: u64,
}

impl SpeedMeter {
    /// Returns the estimated seconds until `total` is done.
    fn eta(&self, done: u64, total: u64) -> Option<f64> {
        let new = done.checked_sub(self.done).filter(|&new| new > 0 && total > 0)?;
        Some(self.start.elapsed().as_secs_f64() / new as f64 * total.saturating_sub(done) as f64)
    }
}

/// Describes the status of a stage, with the style of the text; None for a status that needs no line.
fn describe(status: &Status) -> Option<(Look, String)> {
    let name = status.recorded().name();
    let (look, text) = match status {
        Status::Pending => return None,
        Status::Running => (Look::Plain, name.into()),
        Status::Blocked { why } => (Look::Attention, format!("waiting: {why}")),
        Status::Cached => (Look::Dim, name.into()),
        Status::Ran { seconds } => (Look::Good, format!("done in {}", format::duration(*seconds))),
        Status::Failed(failure) => (Look::Bad, format!("{name}: {}", failure.error)),
        Status::Skipped { because: Some(stage) } => {
            (Look::Attention, format!("{name}, because {stage} did not succeed"))
        }
        Status::Skipped { because: None } => (Look::Attention, "not started".into()),
        Status::Interrupted => (Look::Attention, name.into()),
    };
    Some((look, sanitize(&text).into_owned()))
}

/// The maximum length of a log line that is shown with an error, in characters.
const MAX_LOG_LINE: usize = 200;

/// Returns the last lines of a failed stage's log, truncated if they are long, and the path of the log.
fn log_lines(failure: &Failure) -> Vec<String> {
    let full_lines: Vec<String> = failure.tail.iter().map(|line| displayed_line(line)).collect();
    let truncated = full_lines.iter().map(|line| format::shortened(line, MAX_LOG_LINE));
    let mut lines: Vec<String> = truncated.map(|line| format!("    | {line}")).collect();
    if failure.log.is_file() {
        let is_truncated = full_lines.iter().any(|line| line.chars().nth(MAX_LOG_LINE).is_some());
        let note =
            if is_truncated { " (long lines are truncated; `srpipe logs STAGE` shows the full log)" } else { "" };
        lines.push(format!("    log: {}{note}", failure.log.display()));
    }
    lines
}

/// Returns a program's line as it finally appears on a terminal: without colours and overwritten text (`\r`).
fn displayed_line(line: &str) -> String {
    let plain = console::strip_ansi_codes(line);
    let last = plain.trim_end().rsplit('\r').next().unwrap_or("");
    last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns the message about a request to stop.
fn stopping_message(how: Stopping) -> String {
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

/// The names of the stages and the speeds of the running ones.
#[derive(Default)]
struct Stages {
    names: Vec<String>,
    /// The width of the longest name, up to a limit.
    width: usize,
    speeds: BTreeMap<usize, SpeedMeter>,
}

impl Stages {
    fn new(records: &[StageRecord]) -> Self {
        let names: Vec<String> = records.iter().map(|stage| sanitize_line(&stage.name).into_owned()).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(40);
        Self { names, width, speeds: BTreeMap::new() }
    }

    fn padded_name(&self, stage: usize) -> String {
        format!("{:width$}", self.names[stage], width = self.width)
    }

    /// Returns the width of names next to the progress of stages, on a terminal that is `width` characters wide.
    fn name_width(&self, width: usize) -> usize {
        self.width.min((width * 3 / 10).max(12))
    }

    /// Returns a stage's name in this width. Shortening keeps the end, which distinguishes the instances of a sweep.
    fn shortened_name(&self, stage: usize, width: usize) -> String {
        let (name, available) = (&self.names[stage], self.name_width(width));
        let length = name.chars().count();
        if length <= available {
            return format!("{name:available$}");
        }
        let head: String = name.chars().take(available / 3).collect();
        let tail: String = name.chars().skip(length - (available - available / 3 - 1)).collect();
        format!("{head}…{tail}")
    }

    /// Returns the estimated seconds until a stage is done.
    fn eta(&mut self, stage: usize, done: u64, total: u64) -> Option<f64> {
        let meter = *self.speeds.entry(stage).or_insert(SpeedMeter { start: Instant::now(), done });
        meter.eta(done, total)
    }
}

/// Shows nothing; for a run that only links cached results.
pub(super) struct NoProgress;

impl Progress for NoProgress {
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
            Stages { names, width, speeds: BTreeMap::new() }
        };
        let long = names(&["images", "attention[model.attention.kind=seed,seed=3]"]);
        assert_eq!(long.shortened_name(1, 80), "attentio…nd=seed,seed=3]");
        assert_eq!(long.shortened_name(0, 80), format!("images{}", " ".repeat(18)));
        assert_eq!(long.shortened_name(1, 160), "attention[model.attention.kind=seed,seed=3]");
        assert_eq!(names(&["a", "bcd"]).shortened_name(0, 80), "a  ");
    }

    #[test]
    fn the_log_excerpt_is_bounded() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let tail = vec!["short".to_string(), "m".repeat(100_000)];
        let lines = log_lines(&Failure { cause: Cause::Failed, error: String::new(), log: log.path().into(), tail });
        assert_eq!(lines[0], "    | short");
        assert_eq!(lines[1].chars().count(), MAX_LOG_LINE + 6);
        assert!(lines[1].ends_with('…') && lines[2].contains("srpipe logs"), "{}", lines[2]);
    }

    #[test]
    fn lines_of_programs_are_cleaned_up() {
        let displayed = ["\x1b[32m10%\x1b[0m\r\x1b[2K20%\r", "a\tb\x07", "süß"].map(displayed_line);
        assert_eq!(displayed, ["20%", "a b ", "süß"]);
    }
}
