//! Detects stages that exceed the resources that they requested.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::status::Cause;
use crate::config::Resources;

/// How long a stage may take to save its progress after it has reached its time limit.
const GRACE: Duration = Duration::from_secs(10);

/// The stages that exceeded a limit and have not ended yet.
#[derive(Debug, Default)]
pub struct Limits {
    exceeded: BTreeMap<usize, Excess>,
}

/// The limit that a stage exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) cause: Cause,
    pub(super) error: String,
    kill_at: Instant,
}

/// What to do with a stage that exceeded a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitAction {
    /// Ask it to save its progress and end.
    Stop,
    Kill,
}

impl Limits {
    /// Returns what to do with a stage that has run for `elapsed` and uses `memory` bytes; None if it is within the
    /// resources that it requested, or is already stopping.
    pub(super) fn check(
        &mut self,
        stage: usize,
        requested: &Resources,
        elapsed: Duration,
        memory: Option<u64>,
        now: Instant,
    ) -> Option<LimitAction> {
        if let Some(excess) = self.exceeded.get(&stage) {
            return (now >= excess.kill_at).then_some(LimitAction::Kill);
        }
        if let (Some(limit), Some(used)) = (requested.memory, memory)
            && used > limit
        {
            let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
            let error = format!(
                "it used {} MB of memory, more than its limit of {} MB (`resources.memory`)",
                megabytes(used),
                megabytes(limit)
            );
            // There is no time to save, because its memory may still be growing.
            self.exceeded.insert(stage, Excess { cause: Cause::OutOfMemory, error, kill_at: now });
            return Some(LimitAction::Kill);
        }
        let limit = requested.time.filter(|limit| elapsed > *limit)?;
        let error = format!("it exceeded its time limit of {} s (`resources.time`)", limit.as_secs_f64());
        self.exceeded.insert(stage, Excess { cause: Cause::Time, error, kill_at: now + GRACE });
        Some(LimitAction::Stop)
    }

    /// Returns the limit that an ended stage had exceeded, if any.
    pub(super) fn ended(&mut self, stage: usize) -> Option<Excess> {
        self.exceeded.remove(&stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_leaves_time_to_save_and_a_memory_limit_does_not() {
        let requested =
            Resources { time: Some(Duration::from_secs(60)), memory: Some(5_000_000), ..Resources::default() };
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let mut limits = Limits::default();
        assert_eq!(limits.check(1, &requested, seconds(60), Some(5_000_000), now), None);
        assert_eq!(limits.check(1, &requested, seconds(61), Some(5_000_000), now), Some(LimitAction::Stop));
        assert_eq!(limits.check(1, &requested, seconds(62), Some(9_000_000), now), None, "it is saving");
        assert_eq!(limits.check(1, &requested, seconds(80), None, now + seconds(11)), Some(LimitAction::Kill));
        let excess = limits.ended(1).unwrap();
        assert_eq!((excess.cause, excess.error.contains("60 s")), (Cause::Time, true));
        assert_eq!(limits.ended(1), None);
        assert_eq!(limits.check(2, &requested, seconds(1), Some(5_100_000), now), Some(LimitAction::Kill));
        assert_eq!(limits.ended(2).unwrap().cause, Cause::OutOfMemory);
        assert_eq!(limits.check(3, &Resources::default(), seconds(1_000_000), None, now), None);
    }
}
