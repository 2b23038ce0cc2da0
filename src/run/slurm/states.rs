//! Parses how Slurm reports the states and ends of jobs. Pure.

use crate::run::batch::system::{End, JobState};

/// The reason that Slurm shows for a job that starts only after a delay, as after a requeue.
const DELAYED: &str = "BeginTime";

/// Parses a state as printed by `squeue` and `sacct`; more text may follow it (`CANCELLED by 1000`).
pub fn parse(state: &str, reason: &str, node: &str) -> JobState {
    let end = match state.split([' ', '+']).next().unwrap_or_default() {
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => {
            return JobState::Queued { reason: reason.to_string(), is_delayed: reason == DELAYED };
        }
        "RUNNING" | "CONFIGURING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "RESIZING" | "SIGNALING" | "STAGE_OUT" => {
            return JobState::Running { node: node.to_string() };
        }
        "COMPLETED" => End::Completed,
        "FAILED" | "BOOT_FAIL" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => End::Failed,
        "OUT_OF_MEMORY" => End::OutOfMemory,
        "TIMEOUT" | "DEADLINE" => End::TimeLimit,
        "NODE_FAIL" => End::NodeFailure,
        "PREEMPTED" => End::Preempted,
        "CANCELLED" if reason == "DependencyNeverSatisfied" => End::NeverStarted,
        "CANCELLED" => End::Cancelled,
        _ => return JobState::Unknown,
    };
    JobState::Ended(end)
}

/// Returns how a job ended, from the lines that Slurm wrote to its stderr. They are more specific than the state:
/// without cgroups, a job that exceeds its memory is `FAILED` or `CANCELLED`.
pub(super) fn end_in_log(stderr: &str) -> Option<End> {
    // These lines belong to an attempt that was requeued.
    let lines = stderr.lines().filter(|line| !line.contains("DUE TO JOB REQUEUE"));
    let stderr = lines.collect::<Vec<_>>().join("\n");
    let contains = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    match () {
        () if contains(&["exceeded memory limit", "oom-kill", "oom_kill", "Out Of Memory"]) => Some(End::OutOfMemory),
        () if contains(&["DUE TO TIME LIMIT"]) => Some(End::TimeLimit),
        () if contains(&["DUE TO PREEMPTION"]) => Some(End::Preempted),
        () if contains(&["DUE TO NODE FAILURE"]) => Some(End::NodeFailure),
        () if contains(&["CANCELLED AT"]) => Some(End::Cancelled),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::status::Cause;

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
            match parse(state, reason, "") {
                JobState::Ended(end) => assert_eq!(end.cause(), cause, "{state}"),
                other => panic!("{state}: {other:?}"),
            }
        }
    }

    #[test]
    fn states_of_live_jobs_are_not_ends() {
        for state in ["PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"] {
            assert!(matches!(parse(state, "Priority", ""), JobState::Queued { is_delayed: false, .. }), "{state}");
        }
        assert!(matches!(parse("PENDING", "BeginTime", ""), JobState::Queued { is_delayed: true, .. }));
        for state in ["RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"] {
            assert_eq!(parse(state, "", "n1"), JobState::Running { node: "n1".into() }, "{state}");
        }
        for state in ["", "REVOKED", "A_STATE_OF_NEXT_YEAR", "pending"] {
            assert_eq!(parse(state, "", ""), JobState::Unknown, "{state}");
        }
    }

    #[test]
    fn the_log_of_a_job_shows_how_it_ended() {
        let memory = "slurmstepd: error: StepId=1.batch exceeded memory limit (2 > 1), being killed\n\
                      slurmstepd: error: *** JOB 1 ON n CANCELLED AT 2026-11-24T19:51:13 ***";
        for (stderr, end) in [
            (memory, Some(End::OutOfMemory)),
            ("error: Detected 1 oom_kill event in StepId=2.batch", Some(End::OutOfMemory)),
            ("*** JOB 2 ON n CANCELLED AT 2026 DUE TO TIME LIMIT ***", Some(End::TimeLimit)),
            ("*** JOB 2 ON n CANCELLED AT 2026 DUE TO PREEMPTION ***", Some(End::Preempted)),
            ("*** JOB 2 ON n CANCELLED AT 2026 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***", Some(End::NodeFailure)),
            ("*** JOB 3 ON n CANCELLED AT 2026 ***", Some(End::Cancelled)),
            ("error: the disk is full", None),
            ("*** JOB 3 ON n CANCELLED AT 2026 DUE TO JOB REQUEUE ***\n", None),
        ] {
            assert_eq!(end_in_log(stderr), end, "{stderr}");
        }
    }
}
