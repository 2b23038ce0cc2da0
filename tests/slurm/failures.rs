//! Failures of Slurm's commands and of jobs: which are retried, which are reported, and which fail a stage.

use super::*;

#[test]
fn a_queue_that_fails_hangs_or_prints_garbage_fails_no_stage() {
    for (name, injected) in [
        ("errors", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"),
        ("hangs", "sleep 60"),
        ("garbage", "echo 'slurm_load_jobs: <?xml '; exit 0"),
        ("half a line", "printf '1|N/A|RUN'; exit 0"),
        ("unknown states", "echo '1|N/A|A_STATE_OF_NEXT_YEAR|n1|b1 x|None'; exit 0"),
        ("other jobs with the same numbers", "echo '1|N/A|FAILED|n1|(null)|None'; sleep 0.01"),
    ] {
        let cluster = Cluster::stub(Pipeline::small());
        cluster.settings(SHORT_TIMEOUTS);
        cluster.inject("squeue.all", injected);
        let output = cluster.run(&[]);
        assert_eq!(output.code, Some(0), "{name}: {output}");
        assert_eq!(cluster.calls("sbatch"), 3, "{name}: {output}");
    }
}

#[test]
fn empty_answers_during_the_grace_period_fail_no_stage() {
    let cluster = waiting();
    cluster.settings(LONG_TIMEOUTS);
    cluster.inject("squeue.2", "exit 0");
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the queue was polled three times", || cluster.calls("squeue") >= 3);
    cluster.go();
    assert_done(&run.wait());
    assert_eq!(cluster.calls("sbatch"), 1);
}

#[test]
fn a_submission_without_confirmation_is_found_in_the_queue() {
    for (name, injected) in [
        ("an error", "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1"),
        ("garbage", "echo 'Submitted, I think'; exit 0"),
        ("a hang", "sleep 60"),
    ] {
        let cluster = waiting();
        cluster.settings(SHORT_TIMEOUTS);
        cluster.inject("after.1", injected);
        let run = cluster.start(&["run", "p.yaml"]);
        wait_until("the queue was polled", || cluster.calls("squeue") >= 2);
        cluster.go();
        let output = run.wait();
        assert_eq!(output.code, Some(0), "{name}: {output}");
        assert_eq!(cluster.calls("sbatch"), 1, "{name}: {output}");
    }
}

#[test]
fn a_submission_that_failed_temporarily_is_repeated() {
    let cluster =
        Cluster::stub(Pipeline::new().stage("images", "{kind: fetch, dataset: synthetic, train: 2, test: 2}"));
    cluster.inject("sbatch.1", "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1");
    let output = cluster.run(&[]);
    assert_done(&output);
    assert!(output.stderr.contains("not submitted yet: Unable to contact slurm controller"), "{output}");
    assert_eq!(cluster.calls("sbatch"), 2);
}

#[test]
fn a_rejected_submission_fails_its_stage_with_slurms_message() {
    let cluster = Cluster::stub(Pipeline::small());
    cluster.inject("sbatch.1", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1");
    let output = cluster.run(&[]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("Slurm rejected the job: Batch job submission failed: Invalid account"), "{output}");
    assert_eq!(cluster.calls("sbatch"), 1);
}

#[test]
fn a_job_that_vanishes_before_it_starts_is_lost_and_retried_as_often_as_allowed() {
    let images = |retry: &str| {
        Pipeline::new().stage("images", &format!("{{kind: fetch, dataset: synthetic, train: 2, test: 2{retry}}}"))
    };
    let vanish = "put \"$STUB/next\" 8; cat > /dev/null; echo 7; exit 0";
    let cluster = Cluster::stub(images(""));
    cluster.inject("sbatch.1", vanish);
    let output = cluster.run(&[]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("job 7 is no longer in the queue"), "{output}");

    let cluster = Cluster::stub(images(", retry: {lost: 1}"));
    cluster.inject("sbatch.1", vanish);
    assert_done(&cluster.run(&[]));
    assert_eq!(cluster.calls("sbatch"), 2);
}

#[test]
fn the_causes_of_failed_jobs_are_distinguished() {
    for (state, words) in [
        ("OUT_OF_MEMORY", "exceeded its memory limit (`resources.memory`)"),
        ("TIMEOUT", "exceeded its time limit (`resources.time`)"),
        ("NODE_FAIL", "was lost because its node failed"),
        ("PREEMPTED", "was preempted"),
        ("CANCELLED", "was cancelled"),
    ] {
        let cluster = waiting();
        let run = cluster.start(&["run", "p.yaml"]);
        wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
        cluster.inject("squeue.all", &format!("echo '1|N/A|{state}|n1|b1|None'; exit 0"));
        let output = run.wait();
        assert_eq!(output.code, Some(1), "{output}");
        assert!(output.stderr.contains(&format!("job 1 {words}")), "{state}: {output}");
        cluster.go();
    }
}

#[test]
fn accounting_shows_the_end_of_jobs_that_left_the_queue() {
    let cluster = waiting();
    cluster.settings(LONG_TIMEOUTS);
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    cluster.inject("sacct.all", "echo '1|OUT_OF_MEMORY|n1'; exit 0");
    cluster.inject("squeue.all", "exit 0");
    let output = run.wait();
    assert!(output.stderr.contains("job 1 exceeded its memory limit"), "{output}");
    cluster.go();
}

#[test]
fn accounting_that_missed_the_end_of_a_job_does_not_block_the_run() {
    let cluster =
        Cluster::stub(Pipeline::new().stage("images", "{kind: fetch, dataset: synthetic, train: 2, test: 2}"));
    cluster.inject("sbatch.1", "cat > /dev/null; echo 7; exit 0");
    cluster.inject("sacct.all", "echo '7|RUNNING|n1'; exit 0");
    let output = cluster.run(&[]);
    assert!(output.code == Some(1) && output.stderr.contains("job 7 is no longer in the queue"), "{output}");
}

#[test]
fn an_unwatched_job_that_left_the_queue_is_lost_after_the_grace_period() {
    let cluster =
        Cluster::stub(Pipeline::new().stage("images", "{kind: fetch, dataset: synthetic, train: 2, test: 2}"));
    cluster.inject("sbatch.1", "cat > /dev/null; echo 7; exit 0");
    assert_done(&cluster.run(&["--detach"]));
    assert_eq!(cluster.status()["run"]["state"], "left");
    wait_until("the run has failed", || cluster.status()["run"]["state"] == "failed");
    let status = cluster.status();
    assert!(status["stages"][0]["error"].as_str().unwrap().contains("is no longer in the queue"), "{status:#}");
    assert_done(&cluster.srpipe(&["gc"]));
}
