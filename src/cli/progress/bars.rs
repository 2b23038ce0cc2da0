//! The progress of a run on a terminal: a permanent line for each finished stage, below them a bar for each running
//! stage and a footer for the whole run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use console::{Term, measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::canvas::{BAR, Canvas};
use super::columns::{Columns, StageProgress};
use super::sparkline::Sparkline;
use super::{Stages, describe, log_lines, stopping_message};
use crate::cli::layout::fill;
use crate::cli::output::{Look, Paint, sanitize, sanitize_line, terminal_text};
use crate::config::metrics::VAL_LOSS_FIELD;
use crate::config::names::base;
use crate::format;
use crate::run::{Progress, Status, Stopping};
use crate::runs::{RunRecord, StageRunState};
use crate::stages::StageEvent;

/// The interval between redraws without events.
const TICK: Duration = Duration::from_millis(250);

/// The maximum number of redraws per second.
const MAX_REDRAWS_PER_SECOND: u8 = 20;

/// The width of the elapsed time, with its separator.
const ELAPSED_WIDTH: usize = 12;

/// The number of terminal rows to keep free of bars.
const RESERVED_ROWS: usize = 4;

/// A running stage and its bar.
struct RunningStage {
    bar: ProgressBar,
    losses: Sparkline,
    /// The latest validation loss.
    val_loss: Option<f64>,
    /// The estimated remaining seconds.
    eta: Option<f64>,
}

impl RunningStage {
    fn handle_event(&mut self, event: &StageEvent) {
        if let StageEvent::Progress { values, .. } = event
            && let Some(&loss) = values.get("loss")
        {
            self.losses.push(loss);
            self.val_loss = values.get(VAL_LOSS_FIELD).copied().or(self.val_loss);
        }
    }
}

/// Shows the progress of a run as bars on a terminal.
pub struct Bars {
    paint: Paint,
    stages: Stages,
    all: MultiProgress,
    footer: ProgressBar,
    running: BTreeMap<usize, RunningStage>,
    states: Vec<StageRunState>,
    /// The number and total seconds of the stages that ran, by their names in the file.
    took: BTreeMap<String, (f64, f64)>,
    /// The common status of finished stages that are not printed yet, and these stages. They are printed on one line.
    unprinted: (&'static str, Vec<usize>),
    footer_drawn: Option<Instant>,
}

impl Bars {
    pub fn new() -> Self {
        Self {
            paint: Paint::stderr(),
            stages: Stages::default(),
            all: MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(
                Box::new(Canvas::stderr()),
                MAX_REDRAWS_PER_SECOND,
            )),
            footer: ProgressBar::hidden(),
            running: BTreeMap::new(),
            states: vec![],
            took: BTreeMap::new(),
            unprinted: ("", vec![]),
            footer_drawn: None,
        }
    }

    /// Prints a permanent line above the bars.
    fn print_above(&self, text: &str) {
        // A closed terminal does not stop the run.
        let _ = self.all.println(terminal_text(text, self.paint.has_colours()));
    }

    /// Wraps the line of a stage to the width of the terminal.
    fn wrap_line(&self, line: &str) -> String {
        let indent = self.stages.width + 2;
        wrap(line, if indent < width() / 2 { indent } else { 4 }, width())
    }

    /// Prints the finished stages with a common status on one line.
    fn print_unprinted(&mut self) {
        let (word, stages) = std::mem::take(&mut self.unprinted);
        let text = match stages[..] {
            [] => return,
            [one] => format!("{}  {word}", self.stages.padded_name(one)),
            _ => {
                let names: Vec<&str> = stages.iter().map(|&stage| self.stages.names[stage].as_str()).collect();
                format!("{} {word}: {}", format::count(names.len(), "stage"), names.join(", "))
            }
        };
        self.print_above(&self.paint.paint(Look::Dim, &truncate_str(&text, width(), "…")));
    }

    /// Adds the bar of a stage, or updates the text of an existing one.
    fn start(&mut self, stage: usize, text: String) {
        // Running stages that do not fit on the terminal are only counted in the footer.
        let is_shown = self.running.len() + RESERVED_ROWS < height();
        let available = width().saturating_sub(self.stages.name_width(width()) + 2);
        let text = truncate_str(&text, available, "…").into_owned();
        let style = style("{prefix}  {msg}");
        if let Some(running) = self.running.get(&stage) {
            running.bar.set_message(text);
            return running.bar.set_style(style);
        }
        // The bar may be drawn as soon as it is added, so its text is set first.
        let bar = ProgressBar::no_length().with_style(style).with_message(text);
        let bar = bar.with_prefix(self.stages.shortened_name(stage, width()));
        let bar = if is_shown { self.all.insert_before(&self.footer, bar) } else { ProgressBar::hidden() };
        bar.enable_steady_tick(TICK);
        self.running.insert(stage, RunningStage { bar, losses: Sparkline::default(), val_loss: None, eta: None });
    }

    /// Prints the final status of a stage with a sparkline of its loss.
    fn end(&mut self, stage: usize, status: &Status) {
        let running = self.running.remove(&stage).inspect(|running| {
            running.bar.finish_and_clear();
            self.all.remove(&running.bar);
        });
        self.stages.speeds.remove(&stage);
        if let Status::Ran { seconds } = status {
            let (count, sum) = self.took.entry(base(&self.stages.names[stage]).to_string()).or_default();
            (*count, *sum) = (*count + 1.0, *sum + seconds);
        }
        let word = match status {
            Status::Cached => StageRunState::Cached.name(),
            Status::Skipped { because: None } => "not started",
            _ => "",
        };
        if word != self.unprinted.0 || word.is_empty() {
            self.print_unprinted();
        }
        if !word.is_empty() {
            self.unprinted.0 = word;
            return self.unprinted.1.push(stage);
        }
        if let Some((look, text)) = describe(status) {
            let mut line = format!("{}  {}", self.stages.padded_name(stage), self.paint.paint(look, &text));
            if let Some(loss) = running.as_ref().and_then(|running| running.val_loss) {
                line += &self.paint.paint(Look::Dim, &format!("  val loss {}", format::number(loss)));
            }
            let available = width().saturating_sub(measure_text_width(&line) + 2).min(24);
            let sparkline = running.map_or(String::new(), |running| running.losses.render(available));
            if !sparkline.is_empty() {
                line += &self.paint.paint(Look::Dim, &format!("  {sparkline}"));
            }
            self.print_above(&self.wrap_line(&line));
        }
        if let Status::Failed(failure) = status {
            log_lines(failure).iter().for_each(|line| self.print_above(line));
        }
    }

    fn draw_footer(&mut self) {
        self.footer_drawn = Some(Instant::now());
        use StageRunState::*;
        let count = |wanted: &[StageRunState]| self.states.iter().filter(|state| wanted.contains(state)).count();
        let mut text = format!("{}/{} done", count(&[Ran, Cached]), self.states.len());
        for (state, word) in
            [(Running, Running.name()), (Failed, Failed.name()), (Skipped, Skipped.name()), (Pending, "to come")]
        {
            match count(&[state]) {
                0 => {}
                n => text += &format!(", {n} {word}"),
            }
        }
        text += &self.remaining_time().unwrap_or_default();
        let available = width().saturating_sub(measure_text_width(&self.footer.prefix()) + ELAPSED_WIDTH);
        self.footer.set_message(truncate_str(&text, available, "…").into_owned());
    }

    /// Describes the estimated remaining time of the run. Running stages are estimated by their speed, and pending
    /// stages by the time of stages of the same name. Assumes that as many stages run in parallel as now.
    fn remaining_time(&self) -> Option<String> {
        let mut seconds: f64 = self.running.values().filter_map(|running| running.eta).sum();
        let mut is_complete = self.running.values().all(|running| running.eta.is_some());
        for (stage, _) in self.states.iter().enumerate().filter(|(_, state)| **state == StageRunState::Pending) {
            match self.took.get(base(&self.stages.names[stage])) {
                Some((count, sum)) => seconds += sum / count,
                None => is_complete = false,
            }
        }
        let qualifier = if is_complete { "about" } else { "more than" };
        let seconds = seconds / self.running.len().max(1) as f64;
        (seconds >= 1.0).then(|| format!(", {qualifier} {} left", format::estimate(seconds)))
    }
}

impl Progress for Bars {
    fn started(&mut self, run: &RunRecord) {
        self.stages = Stages::new(&run.stages);
        self.states = vec![StageRunState::Pending; run.stages.len()];
        let footer = ProgressBar::no_length().with_elapsed(elapsed_since(&run.started_at));
        let footer = footer.with_style(style("{prefix}  {elapsed_precise}  {msg}"));
        self.footer =
            self.all.add(footer.with_prefix(self.paint.paint(Look::Attention, &sanitize_line(&run.pipeline))));
        self.footer.enable_steady_tick(TICK);
        self.draw_footer();
    }

    fn stage(&mut self, stage: usize, status: &Status) {
        self.states[stage] = status.recorded();
        match status {
            Status::Running | Status::Blocked { .. } => {
                self.print_unprinted();
                let (_, text) = describe(status).expect("a running stage has a description");
                self.start(stage, text);
            }
            _ => self.end(stage, status),
        }
        self.draw_footer();
    }

    fn event(&mut self, stage: usize, event: &StageEvent) {
        match event {
            StageEvent::Message { text } => {
                self.print_unprinted();
                self.print_above(&self.wrap_line(&format!("{}  {}", self.stages.padded_name(stage), sanitize(text))));
            }
            StageEvent::Progress { done, total, unit, values } => {
                let eta = self.stages.eta(stage, *done, *total);
                let Some(running) = self.running.get_mut(&stage) else { return };
                running.eta = eta;
                running.handle_event(event);
                let columns = Columns::fit(width(), self.stages.name_width(width()));
                running.bar.set_prefix(self.stages.shortened_name(stage, width()));
                let bar =
                    if *total > 0 { format!("{{bar:{}.green/dim}} {{percent:>3}}%", columns.bar) } else { "".into() };
                if *total > 0 {
                    running.bar.set_length(*total);
                }
                running.bar.set_position(*done);
                let progress = StageProgress {
                    done: *done,
                    total: *total,
                    unit: &sanitize_line(unit),
                    values,
                    eta,
                    losses: &running.losses,
                };
                running.bar.set_message(columns.text(&progress, self.paint));
                running.bar.set_style(style(&format!("{{prefix}}  {bar}{{msg}}")).progress_chars("━╸─"));
                if self.footer_drawn.is_none_or(|drawn| drawn.elapsed() >= TICK) {
                    self.draw_footer();
                }
            }
        }
    }

    fn earlier(&mut self, stage: usize, events: &[StageEvent]) {
        let is_progress = |event: &&StageEvent| matches!(event, StageEvent::Progress { .. });
        let Some(last) = events.iter().rfind(is_progress) else { return };
        if let Some(running) = self.running.get_mut(&stage) {
            let before = events.iter().filter(is_progress).filter(|&event| !std::ptr::eq(event, last));
            before.for_each(|event| running.handle_event(event));
        }
        self.event(stage, last);
    }

    fn stopping(&mut self, how: Stopping) {
        self.print_above(&stopping_message(how));
    }

    fn finished(&mut self, _: &RunRecord) {
        self.print_unprinted();
        self.footer.finish_and_clear();
    }
}

/// Wraps text between words into lines of at most `width` columns, and indents lines after the first. Words are not
/// broken, so that paths can be copied.
fn wrap(text: &str, indent: usize, width: usize) -> String {
    fill(text.split_inclusive(' '), indent, width).join("\n")
}

/// Returns the time since a timestamp, or zero if this machine's clocks cannot express it.
fn elapsed_since(timestamp: &str) -> Duration {
    let elapsed = timestamp.parse::<Timestamp>().ok().map(|start| Timestamp::now().duration_since(start));
    let elapsed = elapsed.and_then(|elapsed| Duration::try_from(elapsed).ok()).unwrap_or_default();
    Instant::now().checked_sub(elapsed).map_or(Duration::ZERO, |_| elapsed)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(&format!("{BAR}{template}")).expect("the template is valid")
}

/// Returns the usable width of the terminal, with space for the `^C` of an interrupt.
fn width() -> usize {
    usize::from(Term::stderr().size().1).saturating_sub(3).max(1)
}

/// Returns the number of rows of the terminal.
fn height() -> usize {
    Term::stderr().size().0.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_wrap_between_words() {
        let text = "name   of some words, and a/path/that/is/longer/than/a/line";
        let expected = "name   of some\n       words, and\n       a/path/that/is/longer/than/a/line";
        assert_eq!(wrap(text, 7, 18), expected);
        assert_eq!(wrap("short", 7, 18), "short");
        assert_eq!(wrap("", 2, 10), "");
    }
}
