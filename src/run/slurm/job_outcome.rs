//! What became of a job, judged by what is seen of it. Pure.
//!
//! The truth is the result in the store, which a job writes by a rename. Slurm is asked for one thing only: whether a
//! job is loss. What it does not say, or says in words that we do not know, decides nothing.

use std::time::Duration;

use crate::run::status::Cause;

/// What Slurm calls a job's state, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It waits in the queue, with Slurm's word for the reason.
    Queued {
        reason: String,
    },
    /// It has a node, or had one a moment ago and is not through yet.
    Running {
        node: String,
    },
    Ended(End),
    /// None of the words that are known here.
    Unknown,
}

/// How a job ended, if Slurm is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Completed,
    Failed,
    OutOfMemory,
    TimeLimit,
    NodeFailure,
    Preempted,
    Cancelled,
    /// What it waited for failed.
    NeverStarted,
}

impl JobState {
    /// Of the words of `squeue` and `sacct`: `state` may go on after a blank (`CANCELLED by 1000`).
    pub fn parse(state: &str, reason: &str, node: &str) -> Self {
        let ended = match state.split([' ', '+']).next().unwrap_or_default() {
            "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => {
                return Self::Queued { reason: reason.to_string() };
            }
            "RUNNING" | "CONFIGURING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "RESIZING" | "SIGNALING"
            | "STAGE_OUT" => return Self::Running { node: node.to_string() },
            "COMPLETED" => End::Completed,
            "FAILED" | "BOOT_FAIL" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => End::Failed,
            "OUT_OF_MEMORY" => End::OutOfMemory,
            "TIMEOUT" | "DEADLINE" => End::TimeLimit,
            "NODE_FAIL" => End::NodeFailure,
            "PREEMPTED" => End::Preempted,
            "CANCELLED" if reason == "DependencyNeverSatisfied" => End::NeverStarted,
            "CANCELLED" => End::Cancelled,
            _ => return Self::Unknown,
        };
        Self::Ended(ended)
    }
}

/// A line in a job's stderr: what Slurm wrote before it is of an earlier attempt.
pub const AGAIN: &str = "srpipe: the job starts again";

impl End {
    /// What Slurm wrote into the job's own stderr says more than the state that it ends with: a job that took too much
    /// memory is `FAILED` or `CANCELLED` where cgroups do not watch it.
    pub fn from_stderr(stderr: &str) -> Option<Self> {
        let stderr = stderr.rsplit(AGAIN).next().unwrap_or_default();
        // Of an attempt that went into the queue again.
        let lines = stderr.lines().filter(|line| !line.contains("DUE TO JOB REQUEUE"));
        let stderr = lines.collect::<Vec<_>>().join("\n");
        let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
        match () {
            () if says(&["exceeded memory limit", "oom-kill", "oom_kill", "Out Of Memory"]) => Some(Self::OutOfMemory),
            () if says(&["DUE TO TIME LIMIT"]) => Some(Self::TimeLimit),
            () if says(&["DUE TO PREEMPTION"]) => Some(Self::Preempted),
            () if says(&["DUE TO NODE FAILURE"]) => Some(Self::NodeFailure),
            () if says(&["CANCELLED AT"]) => Some(Self::Cancelled),
            () => None,
        }
    }

    pub fn cause(self) -> Cause {
        match self {
            Self::OutOfMemory => Cause::OutOfMemory,
            Self::TimeLimit => Cause::Time,
            Self::NodeFailure => Cause::NodeFailure,
            Self::Preempted => Cause::Preempted,
            Self::Cancelled | Self::NeverStarted => Cause::Cancelled,
            Self::Completed | Self::Failed => Cause::Failed,
        }
    }

    /// After "the job".
    pub fn words(self) -> &'static str {
        match self {
            Self::OutOfMemory => "took more memory than its `resources.memory`, and was ended",
            Self::TimeLimit => "took longer than its `resources.time`, and was ended",
            Self::NodeFailure => "was lost with its node, which failed",
            Self::Preempted => "had to make room for another (preemption)",
            Self::Cancelled => "was cancelled",
            Self::NeverStarted => "was removed, because what it waited for did not end well",
            Self::Completed => "ended without a result",
            Self::Failed => "failed without a word of its own",
        }
    }
}

/// What Slurm says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has not been asked since the job was submitted, or gave no answer that can be read.
    None,
    /// The job is not among those that it knows.
    Absent,
    Is(JobState),
}

/// All that is seen of a job at one moment.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Its result is in the store.
    pub has_result: bool,
    /// It said itself that its stage failed.
    pub said_failed: bool,
    pub answer: Answer,
    /// What its stderr tells of its end.
    pub told: Option<End>,
    /// How long the answer has been `Absent` or `Ended`; zero where it is neither.
    pub gone_for: Duration,
    /// How long its heartbeat has stood still; none where there never was one.
    pub silent_for: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobOutcome {
    Done,
    /// As it said itself.
    Failed,
    /// It lives, or may.
    Wait,
    /// Of itself it will not come to a result.
    Lost(Loss),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Ended(End),
    /// Nobody knows how.
    Vanished,
}

/// `grace`: how long a result may take to be seen by others than who wrote it, and how long a heart that beats may seem
/// to stand still.
pub fn outcome(seen: &Observation, grace: Duration) -> JobOutcome {
    if seen.has_result {
        return JobOutcome::Done;
    }
    let heart_beats = seen.silent_for.is_some_and(|silent| silent < grace);
    let gone_long = seen.gone_for >= grace;
    match &seen.answer {
        Answer::Is(JobState::Queued { .. }) => JobOutcome::Wait,
        _ if seen.said_failed => JobOutcome::Failed,
        Answer::None | Answer::Is(JobState::Running { .. } | JobState::Unknown) => JobOutcome::Wait,
        // It ended well, as it seems: then there is a result, which may be on its way here.
        Answer::Is(JobState::Ended(End::Completed)) if !gone_long => JobOutcome::Wait,
        Answer::Is(JobState::Ended(end)) => JobOutcome::Lost(Loss::Ended(match (end, seen.told) {
            (End::Failed | End::Cancelled | End::Completed, Some(told)) => told,
            _ => *end,
        })),
        Answer::Absent if heart_beats || !gone_long => JobOutcome::Wait,
        Answer::Absent => JobOutcome::Lost(seen.told.map_or(Loss::Vanished, Loss::Ended)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn seen(answer: Answer) -> Observation {
        Observation {
            has_result: false,
            said_failed: false,
            answer,
            told: None,
            gone_for: Duration::ZERO,
            silent_for: None,
        }
    }

    fn squeue(state: &str) -> Answer {
        Answer::Is(JobState::parse(state, "", "n1"))
    }

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    /// Every state that Slurm has words for, and some that it has not.
    const STATES: [&str; 26] = [
        "PENDING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "SPECIAL_EXIT",
        "RUNNING",
        "CONFIGURING",
        "COMPLETING",
        "SUSPENDED",
        "STOPPED",
        "RESIZING",
        "SIGNALING",
        "STAGE_OUT",
        "COMPLETED",
        "FAILED",
        "BOOT_FAIL",
        "OUT_OF_MEMORY",
        "TIMEOUT",
        "DEADLINE",
        "NODE_FAIL",
        "PREEMPTED",
        "CANCELLED",
        "CANCELLED by 1000",
        "REVOKED",
        "",
        "A_STATE_OF_NEXT_YEAR",
    ];

    #[test]
    fn a_result_is_the_truth_whatever_slurm_says() {
        let answers = STATES.map(squeue).into_iter().chain([Answer::None, Answer::Absent]);
        for answer in answers {
            let told = Some(End::OutOfMemory);
            let all = Observation { has_result: true, said_failed: true, told, gone_for: minutes(9), ..seen(answer) };
            assert_eq!(outcome(&all, GRACE), JobOutcome::Done, "{all:?}");
        }
    }

    #[test]
    fn unknown_is_not_failed() {
        for answer in [Answer::None, squeue(""), squeue("A_STATE_OF_NEXT_YEAR"), squeue("REVOKED"), squeue("pending")] {
            let silent = Observation { gone_for: minutes(9), silent_for: Some(minutes(9)), ..seen(answer) };
            assert_eq!(outcome(&silent, GRACE), JobOutcome::Wait, "{silent:?}");
        }
    }

    #[test]
    fn each_end_has_its_cause() {
        use Cause::*;
        for (state, reason, cause) in [
            ("OUT_OF_MEMORY", "None", OutOfMemory),
            ("TIMEOUT", "TimeLimit", Time),
            ("DEADLINE", "", Time),
            ("NODE_FAIL", "", NodeFailure),
            ("PREEMPTED", "None", Preempted),
            ("CANCELLED by 1000", "", Cancelled),
            ("CANCELLED+", "", Cancelled),
            ("CANCELLED", "DependencyNeverSatisfied", Cancelled),
            ("FAILED", "NonZeroExitCode", Failed),
            ("BOOT_FAIL", "", Failed),
        ] {
            match outcome(&seen(Answer::Is(JobState::parse(state, reason, ""))), GRACE) {
                JobOutcome::Lost(Loss::Ended(end)) => assert_eq!(end.cause(), cause, "{state}"),
                other => panic!("{state}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_slurm_wrote_into_the_log_says_more() {
        let told = |stderr: &str| End::from_stderr(stderr);
        let memory = "slurmstepd: error: StepId=1.batch exceeded memory limit (2 > 1), being killed\n\
                      slurmstepd: error: *** JOB 1 ON n CANCELLED AT 2026-11-24T19:51:13 ***";
        assert_eq!(told(memory), Some(End::OutOfMemory));
        assert_eq!(told("error: Detected 1 oom_kill event in StepId=2.batch"), Some(End::OutOfMemory));
        assert_eq!(told("*** JOB 2 ON n CANCELLED AT 2026 DUE TO TIME LIMIT ***"), Some(End::TimeLimit));
        assert_eq!(told("*** JOB 2 ON n CANCELLED AT 2026 DUE TO PREEMPTION ***"), Some(End::Preempted));
        assert_eq!(
            told("*** JOB 2 ON n CANCELLED AT 2026 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***"),
            Some(End::NodeFailure)
        );
        assert_eq!(told("*** JOB 3 ON n CANCELLED AT 2026 ***"), Some(End::Cancelled));
        assert_eq!(told("error: the disk is full"), None);
        let again = format!("*** JOB 3 ON n CANCELLED AT 2026 DUE TO JOB REQUEUE ***\n{AGAIN}\n");
        assert_eq!(told(&again), None);
        assert_eq!(told("*** JOB 3 ON n CANCELLED AT 2026 DUE TO JOB REQUEUE ***\n"), None);
        assert_eq!(told(&(again + memory)), Some(End::OutOfMemory));
        let of = |state: &str, stderr| Observation { told: told(stderr), ..seen(squeue(state)) };
        let ended = |end| JobOutcome::Lost(Loss::Ended(end));
        assert_eq!(outcome(&of("FAILED", memory), GRACE), ended(End::OutOfMemory));
        assert_eq!(outcome(&of("TIMEOUT", memory), GRACE), ended(End::TimeLimit));
        let vanished = Observation { gone_for: minutes(2), ..of("", memory) };
        assert_eq!(outcome(&Observation { answer: Answer::Absent, ..vanished }, GRACE), ended(End::OutOfMemory));
    }

    #[test]
    fn lost_is_gone_and_silent_and_that_for_long() {
        let lost = JobOutcome::Lost(Loss::Vanished);
        for (gone, silent, expected) in [
            (0, None, JobOutcome::Wait),
            (0, Some(9), JobOutcome::Wait),
            (2, Some(0), JobOutcome::Wait),
            (2, Some(2), lost.clone()),
            (2, None, lost),
        ] {
            let gone_for = minutes(gone);
            let job = Observation { gone_for, silent_for: silent.map(minutes), ..seen(Answer::Absent) };
            assert_eq!(outcome(&job, GRACE), expected, "{job:?}");
        }
    }

    #[test]
    fn a_job_in_the_queue_again_goes_on_whatever_its_last_attempt_said() {
        let again = Observation { said_failed: true, ..seen(squeue("PENDING")) };
        assert_eq!(outcome(&again, GRACE), JobOutcome::Wait);
        assert_eq!(outcome(&Observation { said_failed: true, ..seen(Answer::None) }, GRACE), JobOutcome::Failed);
    }

    #[test]
    fn a_good_end_without_a_result_is_waited_for() {
        let ended = seen(squeue("COMPLETED"));
        assert_eq!(outcome(&ended, GRACE), JobOutcome::Wait);
        let long = Observation { gone_for: minutes(1), ..ended };
        assert_eq!(outcome(&long, GRACE), JobOutcome::Lost(Loss::Ended(End::Completed)));
    }
}
