//! Handles failed stages: retries a stage, recomputes its damaged input, or marks it as failed.

use anyhow::Result;

use super::{Scheduler, Stop};
use crate::config::redact;
use crate::format::last_lines;
use crate::run::status::{Cause, Failure, Status};
use crate::stages::StageEvent;
use crate::store::Digest;
use crate::store::files::read_tail;

/// The number of lines at the end of a log that are shown with an error.
const TAIL_LINES: usize = 10;
/// The maximum number of bytes read from the end of a log.
const TAIL_BYTES: u64 = 64 << 10;

impl Scheduler<'_> {
    /// Retries a stage if its `retry` allows it; otherwise marks it as failed.
    pub(super) fn retry_or_fail(&mut self, stage: usize, cause: Cause, error: String) {
        let allowed = cause.retries(&self.context.plan.stages[stage].retry);
        let used = self.retries.entry((stage, cause)).or_default();
        if self.stop != Stop::No || *used >= allowed {
            return self.fail(stage, cause, error);
        }
        *used += 1;
        let mut text = format!("{error}; retrying ({used} of {allowed})");
        // On the CPU, another batch size would change the order of sums and so the bytes of the result.
        let on_gpu = self.context.cuda.is_some() && self.context.plan.stages[stage].params.runs_network();
        if cause == Cause::OutOfMemory && on_gpu {
            *self.batch_divisors.entry(stage).or_insert(1) *= 2;
            text += ", with half as many images at a time";
        }
        self.progress.event(stage, &StageEvent::Message { text });
        self.set(stage, Status::Pending);
    }

    /// Reruns the stages that produced a damaged blob, which `stage` found. Returns false if they were rerun before or
    /// if no stage of this pipeline produces the blob.
    pub(super) fn rerun_producers(&mut self, stage: usize, blob: &Digest) -> Result<bool> {
        if self.stop != Stop::No {
            return Ok(false);
        }
        let producers = self.cache.producers(blob);
        if producers.is_empty() {
            return Ok(false);
        }
        let names: Vec<&str> =
            producers.iter().map(|&producer| self.context.plan.stages[producer].name.as_str()).collect();
        let text = format!("an input is damaged (blob {blob}); rerunning {}", names.join(", "));
        let no_longer_cached = self.cache.forget(&producers)?;
        self.progress.event(stage, &StageEvent::Message { text });
        self.set(stage, Status::Pending);
        for other in no_longer_cached {
            if matches!(self.statuses[other], Status::Cached | Status::Ran { .. }) {
                self.set(other, Status::Pending);
            }
        }
        Ok(true)
    }

    /// Marks a stage as failed.
    pub(super) fn fail(&mut self, stage: usize, cause: Cause, error: String) {
        let log = self.cache.key(stage).map(|key| self.context.store.log_path(key)).unwrap_or_default();
        let error = redact(&error).into_owned();
        let tail = read_tail(&log, TAIL_BYTES).map(|text| tail(&text, &error)).unwrap_or_default();
        self.set(stage, Status::Failed(Failure { cause, error, log, tail }));
    }
}

/// Returns the last lines of a log, without the error at its end.
fn tail(log: &str, error: &str) -> Vec<String> {
    let log = log.trim_end();
    let log = log.strip_suffix(error.trim_end()).map_or(log, |rest| rest.strip_suffix("error: ").unwrap_or(rest));
    last_lines(log, TAIL_LINES).into_iter().map(str::to_string).collect()
}
