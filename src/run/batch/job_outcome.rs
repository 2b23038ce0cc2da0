//! Decides the outcome of a job from observations. Pure.
//!
//! The result in the store is authoritative: a job publishes it by a rename. The batch system only decides whether the
//! job is lost. If it does not answer, or reports an unknown state, nothing is decided.

use std::time::Duration;

use super::system::{End, JobState};

/// The state of a job in the batch system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The system has not given a readable answer since the job was submitted.
    None,
    /// The queue does not contain the job, and the accounting does not show how it ended.
    Absent,
    Is(JobState),
}

impl Answer {
    /// Whether the job has left the queue.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Absent | Self::Is(JobState::Ended(_)))
    }
}

/// All observations of a job at one point in time.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    /// The store has its result.
    pub(super) has_result: bool,
    /// The job reported that its stage failed.
    pub(super) reported_failure: bool,
    pub(super) answer: Answer,
    /// How it ended, from its stderr.
    pub(super) logged_end: Option<End>,
    /// How long the job has been gone from the queue; zero if it is not.
    pub(super) gone_for: Duration,
    /// How long its heartbeat has been silent; None if there never was one.
    pub(super) silent_for: Option<Duration>,
}

/// The outcome of a job, as far as it is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobOutcome {
    Done,
    /// The job reported that its stage failed.
    Failed,
    /// The job is alive, or may be.
    Wait,
    /// The job will not produce a result.
    Lost(Loss),
}

/// How a job without a result ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    Ended(End),
    /// The job has left the queue, and nothing shows how it ended.
    Vanished,
}

/// Returns the outcome of a job. `grace` is how long a result may take to become visible on this machine, and how long
/// the heartbeat of a living job may be silent.
pub(super) fn outcome(observed: &Observation, grace: Duration) -> JobOutcome {
    if observed.has_result {
        return JobOutcome::Done;
    }
    let is_alive = observed.silent_for.is_some_and(|silent| silent < grace);
    let is_gone_for_grace = observed.gone_for >= grace;
    match &observed.answer {
        // Requeued, or still ending: the report may be that of an earlier attempt.
        Answer::Is(JobState::Queued { .. } | JobState::Running { .. }) => JobOutcome::Wait,
        _ if observed.reported_failure => JobOutcome::Failed,
        Answer::None | Answer::Is(JobState::Unknown) => JobOutcome::Wait,
        // Its result may not be visible here yet.
        Answer::Is(JobState::Ended(End::Completed)) if !is_gone_for_grace => JobOutcome::Wait,
        Answer::Is(JobState::Ended(end)) => JobOutcome::Lost(Loss::Ended(match (end, observed.logged_end) {
            (End::Failed | End::Cancelled | End::Completed, Some(logged)) => logged,
            _ => *end,
        })),
        Answer::Absent if is_alive || !is_gone_for_grace => JobOutcome::Wait,
        Answer::Absent => JobOutcome::Lost(observed.logged_end.map_or(Loss::Vanished, Loss::Ended)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn observed(answer: Answer) -> Observation {
        Observation {
            has_result: false,
            reported_failure: false,
            answer,
            logged_end: None,
            gone_for: Duration::ZERO,
            silent_for: None,
        }
    }

    fn ended(end: End) -> Answer {
        Answer::Is(JobState::Ended(end))
    }

    fn queued() -> Answer {
        Answer::Is(JobState::Queued { reason: "Priority".into(), is_delayed: false })
    }

    fn running() -> Answer {
        Answer::Is(JobState::Running { node: "n1".into() })
    }

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    #[test]
    fn a_result_in_the_store_overrides_every_answer() {
        let ends = [End::Failed, End::OutOfMemory, End::Cancelled, End::NeverStarted, End::Completed].map(ended);
        let others = [queued(), running(), Answer::Is(JobState::Unknown), Answer::None, Answer::Absent];
        for answer in ends.into_iter().chain(others) {
            let logged_end = Some(End::OutOfMemory);
            let gone_for = minutes(9);
            let all =
                Observation { has_result: true, reported_failure: true, logged_end, gone_for, ..observed(answer) };
            assert_eq!(outcome(&all, GRACE), JobOutcome::Done, "{all:?}");
        }
    }

    #[test]
    fn an_unknown_state_is_not_a_failure() {
        for answer in [Answer::None, Answer::Is(JobState::Unknown)] {
            let silent = Observation { gone_for: minutes(9), silent_for: Some(minutes(9)), ..observed(answer) };
            assert_eq!(outcome(&silent, GRACE), JobOutcome::Wait, "{silent:?}");
        }
    }

    #[test]
    fn the_log_is_more_specific_than_a_plain_failure() {
        let of = |answer| {
            let memory = Observation { logged_end: Some(End::OutOfMemory), ..observed(answer) };
            outcome(&Observation { gone_for: minutes(2), ..memory }, GRACE)
        };
        assert_eq!(of(ended(End::Failed)), JobOutcome::Lost(Loss::Ended(End::OutOfMemory)));
        assert_eq!(of(ended(End::TimeLimit)), JobOutcome::Lost(Loss::Ended(End::TimeLimit)));
        assert_eq!(of(Answer::Absent), JobOutcome::Lost(Loss::Ended(End::OutOfMemory)));
    }

    #[test]
    fn a_job_is_lost_once_it_is_gone_and_silent_for_the_grace() {
        let lost = JobOutcome::Lost(Loss::Vanished);
        for (gone, silent, expected) in [
            (0, None, JobOutcome::Wait),
            (0, Some(9), JobOutcome::Wait),
            (2, Some(0), JobOutcome::Wait),
            (2, Some(2), lost.clone()),
            (2, None, lost),
        ] {
            let gone_for = minutes(gone);
            let job = Observation { gone_for, silent_for: silent.map(minutes), ..observed(Answer::Absent) };
            assert_eq!(outcome(&job, GRACE), expected, "{job:?}");
        }
    }

    #[test]
    fn a_job_in_the_queue_continues_whatever_it_reported() {
        for answer in [queued(), running()] {
            let again = Observation { reported_failure: true, ..observed(answer) };
            assert_eq!(outcome(&again, GRACE), JobOutcome::Wait);
        }
        let failed = Observation { reported_failure: true, ..observed(Answer::None) };
        assert_eq!(outcome(&failed, GRACE), JobOutcome::Failed);
    }

    #[test]
    fn a_completed_job_without_a_result_is_lost_after_the_grace() {
        let completed = observed(ended(End::Completed));
        assert_eq!(outcome(&completed, GRACE), JobOutcome::Wait);
        let long = Observation { gone_for: minutes(1), ..completed };
        assert_eq!(outcome(&long, GRACE), JobOutcome::Lost(Loss::Ended(End::Completed)));
    }
}
