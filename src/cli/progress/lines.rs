//! The progress of a run as dated lines, for logs and terminals that cannot redraw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Stages, describe, log_lines, stopping_message};
use crate::cli::output::{note, sanitize};
use crate::config::metrics::shown_name;
use crate::format;
use crate::run::{Progress, Status, Stopping};
use crate::runs::RunRecord;
use crate::stages::StageEvent;

/// The minimum interval between progress lines of one stage.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// The minimum mean interval between progress lines of all stages.
const MEAN_INTERVAL: Duration = Duration::from_secs(1);

/// Formats the values of a progress event.
fn format_values(values: &BTreeMap<String, f64>) -> String {
    let name =
        |name: &str| if name == "images_per_s" { "images/s".to_string() } else { shown_name(name).replace('_', " ") };
    values.iter().map(|(key, value)| format!("  {} {}", name(key), format::number(*value))).collect()
}

/// Prints a dated line for each event.
#[derive(Default)]
pub struct Lines {
    stages: Stages,
    /// The time of the last line of each running stage.
    last: BTreeMap<usize, Instant>,
}

impl Lines {
    /// Prints a dated line.
    fn print_line(&self, text: &str) {
        note(&format!("{} {text}", jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S")));
    }
}

impl Progress for Lines {
    fn started(&mut self, run: &RunRecord) {
        self.stages = Stages::new(&run.stages);
        self.print_line(&format!("{} run {}: {}", run.pipeline, run.id, format::count(run.stages.len(), "stage")));
    }

    fn stage(&mut self, stage: usize, status: &Status) {
        if *status != Status::Running {
            self.last.remove(&stage);
        }
        let Some((_, text)) = describe(status) else { return };
        self.print_line(&format!("{}  {text}", self.stages.padded_name(stage)));
        if let Status::Failed(failure) = status {
            log_lines(failure).iter().for_each(|line| note(line));
        }
    }

    fn event(&mut self, stage: usize, event: &StageEvent) {
        match event {
            StageEvent::Message { text } => {
                self.print_line(&format!("{}  {}", self.stages.padded_name(stage), sanitize(text)));
            }
            StageEvent::Progress { done, total, unit, values } => {
                let eta = self.stages.eta(stage, *done, *total);
                let eta = eta.map_or(String::new(), |seconds| format!("  ETA {}", format::duration(seconds)));
                // Print no line before the first interval has passed, because short stages need none.
                let last = *self.last.entry(stage).or_insert_with(Instant::now);
                let running = u32::try_from(self.last.len()).unwrap_or(u32::MAX);
                if last.elapsed() >= LINE_INTERVAL.max(MEAN_INTERVAL.saturating_mul(running)) {
                    self.last.insert(stage, Instant::now());
                    let name = self.stages.padded_name(stage);
                    self.print_line(&format!(
                        "{name}  {}{}{eta}",
                        format::progress(*done, *total, unit),
                        format_values(values)
                    ));
                }
            }
        }
    }

    fn stopping(&mut self, how: Stopping) {
        self.print_line(&stopping_message(how));
    }

    fn finished(&mut self, _: &RunRecord) {}
}
