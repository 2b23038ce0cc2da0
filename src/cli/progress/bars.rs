//! A run on a terminal: a line for each stage that ended, which stays; below them a bar for each at work, and a footer
//! with the whole run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use console::{Term, measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::canvas::{BAR, Canvas};
use super::columns::{Columns, Work};
use super::trail::Trail;
use super::{Stages, log_lines, sentence, stopping};
use crate::cli::output::{Look, Paint, shown, visible, visible_line};
use crate::config::names::base;
use crate::format;
use crate::run::{Progress, Status, Stopping};
use crate::runs::{RunRecord, StageRunState};
use crate::stages::StageEvent;

/// Between two drawings of what nothing happens to.
const TICK: Duration = Duration::from_millis(250);

/// Drawings a second, at most.
const DRAWINGS: u8 = 20;

/// Characters of the time, with what is between it and the rest.
const ELAPSED: usize = 12;

/// Rows that are left to what was said before.
const ROWS_LEFT: usize = 4;

/// A stage at work.
struct Working {
    bar: ProgressBar,
    losses: Trail,
    /// The latest validation loss.
    heldout_loss: Option<f64>,
    left: Option<f64>,
}

impl Working {
    fn hear(&mut self, event: &StageEvent) {
        if let StageEvent::Progress { values, .. } = event
            && let Some(&loss) = values.get("loss")
        {
            self.losses.push(loss);
            self.heldout_loss = values.get("heldout_loss").copied().or(self.heldout_loss);
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
    /// What stages took that ran, by their names in the file: their number and sum of seconds.
    took: BTreeMap<String, (f64, f64)>,
    /// Stages that are not told yet, all with this to be said of them: they are told together.
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
        // Above the bars; a terminal that is gone is no reason to stop.
        let _ = self.all.println(shown(text, self.paint.has_colours()));
    }

    /// A line of a stage, in as many as it takes.
    fn broken(&self, line: &str) -> String {
        let indent = self.stages.width + 2;
        broken(line, if indent < width() / 2 { indent } else { 4 }, width())
    }

    /// One line for all that one thing is to be said of, before anything else is said.
    fn tell_together(&mut self) {
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
        // What does not fit on the terminal is at work all the same: the footer counts it.
        let is_shown = self.working.len() + ROWS_LEFT < height();
        let room = width().saturating_sub(self.stages.shown(width()) + 2);
        let said = truncate_str(&said, room, "…").into_owned();
        let style = style("{prefix}  {msg}");
        if let Some(working) = self.working.get(&stage) {
            working.bar.set_message(said);
            return working.bar.set_style(style);
        }
        // It may be drawn as soon as it is there: by then it says what it is.
        let bar = ProgressBar::no_length().with_style(style).with_message(said);
        let bar = bar.with_prefix(self.stages.shortened(stage, width()));
        let bar = if is_shown { self.all.insert_before(&self.footer, bar) } else { ProgressBar::hidden() };
        bar.enable_steady_tick(TICK);
        self.working.insert(stage, Working { bar, losses: Trail::default(), heldout_loss: None, left: None });
    }

    /// What it ended with is said with the course of its loss.
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
            self.tell_together();
        }
        if !word.is_empty() {
            self.together.0 = word;
            return self.together.1.push(stage);
        }
        if let Some((look, text)) = sentence(status) {
            let mut line = format!("{}  {}", self.stages.padded(stage), self.paint.paint(look, &text));
            if let Some(loss) = working.as_ref().and_then(|working| working.heldout_loss) {
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

    /// How long the rest will take: what runs by its pace, what is to come by what took stages of the same name, so many at
    /// once as now.
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
                self.tell_together();
                let (_, text) = sentence(status).expect("it has one");
                self.start(stage, text);
            }
            _ => self.end(stage, status),
        }
        self.draw_footer();
    }

    fn event(&mut self, stage: usize, event: &StageEvent) {
        match event {
            StageEvent::Message { text } => {
                self.tell_together();
                self.above(&self.broken(&format!("{}  {}", self.stages.padded(stage), visible(text))));
            }
            StageEvent::Progress { done, total, unit, values } => {
                let left = self.stages.eta(stage, *done, *total);
                let Some(working) = self.working.get_mut(&stage) else { return };
                working.left = left;
                working.hear(event);
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
            before.for_each(|event| working.hear(event));
        }
        self.event(stage, last);
    }

    fn stopping(&mut self, how: Stopping) {
        self.above(&stopping(how));
    }

    fn finished(&mut self, _: &RunRecord) {
        self.tell_together();
        self.footer.finish_and_clear();
    }
}

/// In lines of at most `width` characters, between words where that can be; what follows the first is indented.
fn broken(text: &str, indent: usize, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let line = lines.last_mut().expect("there is one");
        let is_full = measure_text_width(line) + measure_text_width(word.trim_end()) > width;
        match is_full && !line.trim().is_empty() {
            true => lines.push(" ".repeat(indent) + word),
            false => line.push_str(word),
        }
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// How long ago that was; nothing where this machine's clocks cannot tell.
fn since(moment: &str) -> Duration {
    let ago = moment.parse::<Timestamp>().ok().map(|moment| Timestamp::now().duration_since(moment));
    let ago = ago.and_then(|ago| Duration::try_from(ago).ok()).unwrap_or_default();
    Instant::now().checked_sub(ago).map_or(Duration::ZERO, |_| ago)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(&format!("{BAR}{template}")).expect("the template is ours")
}

/// Characters in a row of the terminal, but for those that the `^C` of an interrupt takes.
fn width() -> usize {
    usize::from(Term::stderr().size().1).saturating_sub(3).max(1)
}

/// Rows of the terminal.
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
