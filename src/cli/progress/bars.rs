//! The progress of a run on a terminal: a permanent line for each finished stage, below them a bar for each running
//! stage and a footer for the whole run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use console::{Term, measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::canvas::{BAR, Canvas};
use super::columns::{Columns, Work};
use super::trail::Trail;
use super::{Stages, log_lines, sentence, stopping};
use crate::cli::layout::fill;
use crate::cli::output::{Look, Paint, shown, visible, visible_line};
use crate::config::metrics::VAL_LOSS_FIELD;
use crate::config::names::base;
use crate::format;
use crate::run::{Progress, Status, Stopping};
use crate::runs::{RunRecord, StageRunState};
use crate::stages::StageEvent;

/// The interval between redraws without events.
const TICK: Duration = Duration::from_millis(250);

/// The maximum number of redraws per second.
const DRAWINGS: u8 = 20;

/// The width of the time, with its separator.
const ELAPSED: usize = 12;

/// The number of terminal rows to leave for earlier output.
const ROWS_LEFT: usize = 4;

/// A running stage.
struct Working {
    bar: ProgressBar,
    losses: Trail,
    /// The latest validation loss.
    val_loss: Option<f64>,
    left: Option<f64>,
}

impl Working {
    fn handle_event(&mut self, event: &StageEvent) {
        if let StageEvent::Progress { values, .. } = event
            && let Some(&loss) = values.get("loss")
        {
            self.losses.push(loss);
            self.val_loss = values.get(VAL_LOSS_FIELD).copied().or(self.val_loss);
        }
    }
}

pub struct Bars {
    paint: Paint,
    stages: Stages,
    all: MultiProgress,
    footer: ProgressBar,
    working: BTreeMap<usize, Working>,
    states: Vec<StageRunState>,
    /// The number and total seconds of the stages that ran, by their names in the file.
    took: BTreeMap<String, (f64, f64)>,
    /// Stages that are not printed yet and have the same status text; they are printed on one line.
    together: (&'static str, Vec<usize>),
    footer_drawn: Option<Instant>,
}

impl Bars {
    pub fn new() -> Self {
        Self {
            paint: Paint::stderr(),
            stages: Stages::default(),
            all: MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(
                Box::new(Canvas::stderr()),
                DRAWINGS,
            )),
            footer: ProgressBar::hidden(),
            working: BTreeMap::new(),
            states: vec![],
            took: BTreeMap::new(),
            together: ("", vec![]),
            footer_drawn: None,
        }
    }

    fn above(&self, text: &str) {
        // Prints above the bars. A closed terminal does not stop the run.
        let _ = self.all.println(shown(text, self.paint.has_colours()));
    }

    /// Breaks the line of a stage to the width of the terminal.
    fn broken(&self, line: &str) -> String {
        let indent = self.stages.width + 2;
        broken(line, if indent < width() / 2 { indent } else { 4 }, width())
    }

    /// Prints one line for the pending stages with the same status text.
    fn print_together(&mut self) {
        let (word, stages) = std::mem::take(&mut self.together);
        let text = match stages[..] {
            [] => return,
            [one] => format!("{}  {word}", self.stages.padded(one)),
            _ => {
                let names: Vec<&str> = stages.iter().map(|&stage| self.stages.names[stage].as_str()).collect();
                format!("{} {word}: {}", format::count(names.len(), "stage"), names.join(", "))
            }
        };
        self.above(&self.paint.paint(Look::Dim, &truncate_str(&text, width(), "…")));
    }

    fn start(&mut self, stage: usize, said: String) {
        // Running stages that do not fit on the terminal are only counted in the footer.
        let is_shown = self.working.len() + ROWS_LEFT < height();
        let room = width().saturating_sub(self.stages.shown(width()) + 2);
        let said = truncate_str(&said, room, "…").into_owned();
        let style = style("{prefix}  {msg}");
        if let Some(working) = self.working.get(&stage) {
            working.bar.set_message(said);
            return working.bar.set_style(style);
        }
        // The bar may be drawn as soon as it is added, so its text is set first.
        let bar = ProgressBar::no_length().with_style(style).with_message(said);
        let bar = bar.with_prefix(self.stages.shortened(stage, width()));
        let bar = if is_shown { self.all.insert_before(&self.footer, bar) } else { ProgressBar::hidden() };
        bar.enable_steady_tick(TICK);
        self.working.insert(stage, Working { bar, losses: Trail::default(), val_loss: None, left: None });
    }

    /// Prints the final status of a stage with a sparkline of its loss.
    fn end(&mut self, stage: usize, status: &Status) {
        let working = self.working.remove(&stage).inspect(|working| {
            working.bar.finish_and_clear();
            self.all.remove(&working.bar);
        });
        self.stages.paces.remove(&stage);
        if let Status::Ran { seconds } = status {
            let (count, sum) = self.took.entry(base(&self.stages.names[stage]).to_string()).or_default();
            (*count, *sum) = (*count + 1.0, *sum + seconds);
        }
        let word = match status {
            Status::Cached => "cached",
            Status::Skipped { because: None } => "not started",
            _ => "",
        };
        if word != self.together.0 || word.is_empty() {
            self.print_together();
        }
        if !word.is_empty() {
            self.together.0 = word;
            return self.together.1.push(stage);
        }
        if let Some((look, text)) = sentence(status) {
            let mut line = format!("{}  {}", self.stages.padded(stage), self.paint.paint(look, &text));
            if let Some(loss) = working.as_ref().and_then(|working| working.val_loss) {
                line += &self.paint.paint(Look::Dim, &format!("  val loss {}", format::figure(loss)));
            }
            let room = width().saturating_sub(measure_text_width(&line) + 2).min(24);
            let course = working.map_or(String::new(), |working| working.losses.sparkline(room));
            if !course.is_empty() {
                line += &self.paint.paint(Look::Dim, &format!("  {course}"));
            }
            self.above(&self.broken(&line));
        }
        if let Status::Failed(failure) = status {
            log_lines(failure).iter().for_each(|line| self.above(line));
        }
    }

    fn draw_footer(&mut self) {
        self.footer_drawn = Some(Instant::now());
        use StageRunState::*;
        let count = |wanted: &[StageRunState]| self.states.iter().filter(|state| wanted.contains(state)).count();
        let mut text = format!("{}/{} done", count(&[Ran, Cached]), self.states.len());
        for (state, word) in [(Running, "running"), (Failed, "failed"), (Skipped, "skipped"), (Pending, "to come")] {
            match count(&[state]) {
                0 => {}
                n => text += &format!(", {n} {word}"),
            }
        }
        text += &self.left().unwrap_or_default();
        let room = width().saturating_sub(measure_text_width(&self.footer.prefix()) + ELAPSED);
        self.footer.set_message(truncate_str(&text, room, "…").into_owned());
    }

    /// Estimates the remaining time: running stages by their speed, pending stages by the time of stages of the same
    /// name, with the current number of parallel stages.
    fn left(&self) -> Option<String> {
        let mut seconds: f64 = self.working.values().filter_map(|working| working.left).sum();
        let mut is_all = self.working.values().all(|working| working.left.is_some());
        for (stage, _) in self.states.iter().enumerate().filter(|(_, state)| **state == StageRunState::Pending) {
            match self.took.get(base(&self.stages.names[stage])) {
                Some((count, sum)) => seconds += sum / count,
                None => is_all = false,
            }
        }
        let words = if is_all { "about" } else { "more than" };
        let seconds = seconds / self.working.len().max(1) as f64;
        (seconds >= 1.0).then(|| format!(", {words} {} left", format::about(seconds)))
    }
}

impl Progress for Bars {
    fn started(&mut self, run: &RunRecord) {
        self.stages = Stages::new(&run.stages);
        self.states = vec![StageRunState::Pending; run.stages.len()];
        let footer = ProgressBar::no_length().with_elapsed(since(&run.started_at));
        let footer = footer.with_style(style("{prefix}  {elapsed_precise}  {msg}"));
        self.footer = self.all.add(footer.with_prefix(self.paint.paint(Look::Attention, &visible_line(&run.pipeline))));
        self.footer.enable_steady_tick(TICK);
        self.draw_footer();
    }

    fn stage(&mut self, stage: usize, status: &Status) {
        self.states[stage] = status.recorded();
        match status {
            Status::Running | Status::Blocked { .. } => {
                self.print_together();
                let (_, text) = sentence(status).expect("a finished stage has a description");
                self.start(stage, text);
            }
            _ => self.end(stage, status),
        }
        self.draw_footer();
    }

    fn event(&mut self, stage: usize, event: &StageEvent) {
        match event {
            StageEvent::Message { text } => {
                self.print_together();
                self.above(&self.broken(&format!("{}  {}", self.stages.padded(stage), visible(text))));
            }
            StageEvent::Progress { done, total, unit, values } => {
                let left = self.stages.eta(stage, *done, *total);
                let Some(working) = self.working.get_mut(&stage) else { return };
                working.left = left;
                working.handle_event(event);
                let columns = Columns::fit(width(), self.stages.shown(width()));
                working.bar.set_prefix(self.stages.shortened(stage, width()));
                let bar =
                    if *total > 0 { format!("{{bar:{}.green/dim}} {{percent:>3}}%", columns.bar) } else { "".into() };
                if *total > 0 {
                    working.bar.set_length(*total);
                }
                working.bar.set_position(*done);
                let work = Work {
                    done: *done,
                    total: *total,
                    unit: &visible_line(unit),
                    values,
                    left,
                    losses: &working.losses,
                };
                working.bar.set_message(columns.text(&work, self.paint));
                working.bar.set_style(style(&format!("{{prefix}}  {bar}{{msg}}")).progress_chars("━╸─"));
                if self.footer_drawn.is_none_or(|drawn| drawn.elapsed() >= TICK) {
                    self.draw_footer();
                }
            }
        }
    }

    fn earlier(&mut self, stage: usize, events: &[StageEvent]) {
        let is_progress = |event: &&StageEvent| matches!(event, StageEvent::Progress { .. });
        let Some(last) = events.iter().rfind(is_progress) else { return };
        if let Some(working) = self.working.get_mut(&stage) {
            let before = events.iter().filter(is_progress).filter(|&event| !std::ptr::eq(event, last));
            before.for_each(|event| working.handle_event(event));
        }
        self.event(stage, last);
    }

    fn stopping(&mut self, how: Stopping) {
        self.above(&stopping(how));
    }

    fn finished(&mut self, _: &RunRecord) {
        self.print_together();
        self.footer.finish_and_clear();
    }
}

/// Breaks text between words into lines of at most `width` columns. Lines after the first are indented. Words are not
/// broken, so that paths can be copied.
fn broken(text: &str, indent: usize, width: usize) -> String {
    fill(text.split_inclusive(' '), indent, width).join("\n")
}

/// Returns the time since a timestamp, or zero if this machine's clocks cannot express it.
fn since(moment: &str) -> Duration {
    let ago = moment.parse::<Timestamp>().ok().map(|moment| Timestamp::now().duration_since(moment));
    let ago = ago.and_then(|ago| Duration::try_from(ago).ok()).unwrap_or_default();
    Instant::now().checked_sub(ago).map_or(Duration::ZERO, |_| ago)
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
    fn long_lines_break_between_words() {
        let text = "name   of some words, and a/path/that/is/longer/than/a/line";
        let expected = "name   of some\n       words, and\n       a/path/that/is/longer/than/a/line";
        assert_eq!(broken(text, 7, 18), expected);
        assert_eq!(broken("short", 7, 18), "short");
        assert_eq!(broken("", 2, 10), "");
    }
}
