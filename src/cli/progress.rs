//! A run as people see it: dated lines anywhere, bars on a terminal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output::{Look, Paint, note};
use super::words;
use crate::run::{Failure, Progress, Status, Stopping};
use crate::stages::StageEvent;
use crate::store::{RunRecord, StageRecord, StageRunState};

/// Between two lines on one stage's progress.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How fast a stage goes, from the first progress that it told of in this run.
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

/// What there is to say of a stage besides its name, and how it looks; none for a state that needs no line.
fn sentence(status: &Status) -> Option<(Look, String)> {
    Some(match status {
        Status::Pending => return None,
        Status::Running => (Look::Plain, "running".into()),
        Status::Blocked { why } => (Look::Attention, format!("waiting: {why}")),
        Status::Cached => (Look::Dim, "cached".into()),
        Status::Ran { seconds } => (Look::Good, format!("done in {}", words::duration(*seconds))),
        Status::Failed(failure) => (Look::Bad, format!("failed: {}", failure.error)),
        Status::Skipped { because: Some(stage) } => {
            (Look::Attention, format!("skipped, because {stage} did not end well"))
        }
        Status::Skipped { because: None } => (Look::Attention, "not started".into()),
        Status::Interrupted => (Look::Attention, "interrupted".into()),
    })
}

/// The last lines of a failed stage's log.
fn log_lines(failure: &Failure) -> Vec<String> {
    let mut lines: Vec<String> = failure.tail.iter().map(|line| format!("    | {line}")).collect();
    if failure.log.is_file() {
        lines.push(format!("    log: {}", failure.log.display()));
    }
    lines
}

fn figures(values: &BTreeMap<String, f64>) -> String {
    let name = |name: &str| if name == "images_per_s" { "images/s".to_string() } else { name.replace('_', " ") };
    values.iter().map(|(key, value)| format!("  {} {}", name(key), words::figure(*value))).collect()
}

fn stopping(how: Stopping) -> String {
    match how {
        Stopping::Saving => "stopping: running stages save their progress (interrupt again to stop at once)".into(),
        Stopping::Leaving(wait) => format!(
            "leaving: jobs go on without this process. Interrupt again within {} s to cancel them instead",
            wait.as_secs()
        ),
        Stopping::Cancelling => "cancelling the jobs, which save their progress (interrupt again to leave)".into(),
    }
}

/// Names and widths that both ways of showing need.
#[derive(Default)]
struct Stages {
    names: Vec<String>,
    width: usize,
    paces: BTreeMap<usize, Pace>,
}

impl Stages {
    fn new(records: &[StageRecord]) -> Self {
        let names: Vec<String> = records.iter().map(|stage| stage.name.clone()).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(40);
        Self { names, width, paces: BTreeMap::new() }
    }

    fn padded(&self, stage: usize) -> String {
        format!("{:width$}", self.names[stage], width = self.width)
    }

    fn eta(&mut self, stage: usize, done: u64, total: u64) -> String {
        let pace = *self.paces.entry(stage).or_insert(Pace { start: Instant::now(), done });
        pace.eta(done, total).map_or(String::new(), |seconds| format!("  ETA {}", words::duration(seconds)))
    }
}

/// A dated line for everything that happens.
#[derive(Default)]
pub struct Lines {
    stages: Stages,
    last: BTreeMap<usize, Instant>,
}

impl Lines {
    fn line(&self, text: &str) {
        note(&format!("{} {text}", jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S")));
    }
}

impl Progress for Lines {
    fn started(&mut self, run: &RunRecord) {
        self.stages = Stages::new(&run.stages);
        self.line(&format!("{} run {}: {}", run.pipeline, run.id, words::count(run.stages.len(), "stage")));
    }

    fn stage(&mut self, stage: usize, status: &Status) {
        let Some((_, text)) = sentence(status) else { return };
        self.line(&format!("{}  {text}", self.stages.padded(stage)));
        if let Status::Failed(failure) = status {
            log_lines(failure).iter().for_each(|line| note(line));
        }
    }

    fn event(&mut self, stage: usize, event: &StageEvent) {
        match event {
            StageEvent::Message { text } => self.line(&format!("{}  {text}", self.stages.padded(stage))),
            StageEvent::Progress { done, total, unit, values } => {
                let eta = self.stages.eta(stage, *done, *total);
                // Not the first moment either: a stage that is done by then needs no line.
                let last = *self.last.entry(stage).or_insert_with(Instant::now);
                if last.elapsed() >= LINE_INTERVAL {
                    self.last.insert(stage, Instant::now());
                    let name = self.stages.padded(stage);
                    self.line(&format!("{name}  {}{}{eta}", words::progress(*done, *total, unit), figures(values)));
                }
            }
        }
    }

    fn stopping(&mut self, how: Stopping) {
        self.line(&stopping(how));
    }

    fn finished(&mut self, _: &RunRecord) {}
}

/// Nothing: for a run that only links what is known.
pub struct Quiet;

impl Progress for Quiet {
    fn started(&mut self, _: &RunRecord) {}
    fn stage(&mut self, _: usize, _: &Status) {}
    fn event(&mut self, _: usize, _: &StageEvent) {}
    fn stopping(&mut self, _: Stopping) {}
    fn finished(&mut self, _: &RunRecord) {}
}

/// A bar for each stage at work, above them a line for each that ended, below them a footer.
pub struct Bars {
    paint: Paint,
    stages: Stages,
    all: MultiProgress,
    footer: ProgressBar,
    bars: BTreeMap<usize, ProgressBar>,
    states: Vec<StageRunState>,
}

impl Bars {
    pub fn new() -> Self {
        Self {
            paint: Paint::stderr(),
            stages: Stages::default(),
            all: MultiProgress::new(),
            footer: ProgressBar::hidden(),
            bars: BTreeMap::new(),
            states: vec![],
        }
    }

    fn above(&self, text: &str) {
        // Above the bars; a terminal that is gone is no reason to stop.
        let _ = self.all.println(text);
    }

    fn refresh_footer(&self) {
        use StageRunState::*;
        let count = |wanted: &[StageRunState]| self.states.iter().filter(|state| wanted.contains(state)).count();
        let known = count(&[Ran, Cached]);
        let mut text = format!("{known}/{} done", self.states.len());
        for (states, word) in [(&[Running][..], "running"), (&[Failed], "failed"), (&[Skipped], "skipped")] {
            match count(states) {
                0 => {}
                n => text += &format!(", {n} {word}"),
            }
        }
        self.footer.set_message(text);
    }
}

impl Progress for Bars {
    fn started(&mut self, run: &RunRecord) {
        self.stages = Stages::new(&run.stages);
        self.states = vec![StageRunState::Pending; run.stages.len()];
        self.footer = self.all.add(ProgressBar::no_length());
        self.footer.set_style(style("{prefix}  {msg}  {elapsed}"));
        self.footer.set_prefix(run.pipeline.clone());
        self.footer.enable_steady_tick(Duration::from_millis(500));
        self.refresh_footer();
    }

    fn stage(&mut self, stage: usize, status: &Status) {
        self.states[stage] = status.recorded();
        let name = self.stages.padded(stage);
        if matches!(status, Status::Running | Status::Blocked { .. }) {
            let (_, text) = sentence(status).expect("it has one");
            let bar = self.bars.entry(stage).or_insert_with(|| {
                let bar = self.all.insert_before(&self.footer, ProgressBar::no_length());
                bar.enable_steady_tick(Duration::from_millis(500));
                bar
            });
            bar.set_style(style("{prefix}  {msg}  {elapsed}"));
            bar.set_prefix(name);
            bar.set_message(text);
        } else {
            if let Some(bar) = self.bars.remove(&stage) {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
            self.stages.paces.remove(&stage);
            if let Some((look, text)) = sentence(status) {
                self.above(&format!("{name}  {}", self.paint.paint(look, &text)));
            }
            if let Status::Failed(failure) = status {
                log_lines(failure).iter().for_each(|line| self.above(line));
            }
        }
        self.refresh_footer();
    }

    fn event(&mut self, stage: usize, event: &StageEvent) {
        match event {
            StageEvent::Message { text } => self.above(&format!("{}  {text}", self.stages.padded(stage))),
            StageEvent::Progress { done, total, unit, values } => {
                let eta = self.stages.eta(stage, *done, *total);
                let Some(bar) = self.bars.get(&stage) else { return };
                if *total > 0 && bar.length() != Some(*total) {
                    bar.set_length(*total);
                    bar.set_style(style("{prefix}  {bar:24} {msg}").progress_chars("━╸─"));
                }
                bar.set_position(*done);
                bar.set_message(format!("{}{}{eta}", words::progress(*done, *total, unit), figures(values)));
            }
        }
    }

    fn stopping(&mut self, how: Stopping) {
        self.above(&stopping(how));
    }

    fn finished(&mut self, _: &RunRecord) {
        self.footer.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}
