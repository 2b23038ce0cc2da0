//! The progress of a run as dated lines, for logs and terminals that cannot redraw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Stages, log_lines, sentence, stopping};
use crate::cli::output::{note, visible};
use crate::config::metrics::shown_name;
use crate::format;
use crate::run::{Progress, Status, Stopping};
use crate::runs::RunRecord;
use crate::stages::StageEvent;

/// The minimum interval between progress lines of one stage, and the mean interval between those of all stages.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
const ANY_INTERVAL: Duration = Duration::from_secs(1);

fn figures(values: &BTreeMap<String, f64>) -> String {
    let name =
        |name: &str| if name == "images_per_s" { "images/s".to_string() } else { shown_name(name).replace('_', " ") };
    values.iter().map(|(key, value)| format!("  {} {}", name(key), format::figure(*value))).collect()
}

/// Prints a dated line for each event.
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
        self.line(&format!("{} run {}: {}", run.pipeline, run.id, format::count(run.stages.len(), "stage")));
    }

    fn stage(&mut self, stage: usize, status: &Status) {
        if *status != Status::Running {
            self.last.remove(&stage);
        }
        let Some((_, text)) = sentence(status) else { return };
        self.line(&format!("{}  {text}", self.stages.padded(stage)));
        if let Status::Failed(failure) = status {
            log_lines(failure).iter().for_each(|line| note(line));
        }
    }

    fn event(&mut self, stage: usize, event: &StageEvent) {
        match event {
            StageEvent::Message { text } => {
                self.line(&format!("{}  {}", self.stages.padded(stage), visible(text)));
            }
            StageEvent::Progress { done, total, unit, values } => {
                let eta = self.stages.eta(stage, *done, *total);
                let eta = eta.map_or(String::new(), |seconds| format!("  ETA {}", format::duration(seconds)));
                // Print no line before the first interval has passed, because short stages need none.
                let last = *self.last.entry(stage).or_insert_with(Instant::now);
                let at_work = u32::try_from(self.last.len()).unwrap_or(u32::MAX);
                if last.elapsed() >= LINE_INTERVAL.max(ANY_INTERVAL.saturating_mul(at_work)) {
                    self.last.insert(stage, Instant::now());
                    let name = self.stages.padded(stage);
                    self.line(&format!("{name}  {}{}{eta}", format::progress(*done, *total, unit), figures(values)));
                }
            }
        }
    }

    fn stopping(&mut self, how: Stopping) {
        self.line(&stopping(how));
    }

    fn finished(&mut self, _: &RunRecord) {}
}
