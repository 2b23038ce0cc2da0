//! Runs without a process that watches them, because they are detached, cancelled, interrupted or killed.

use super::*;

#[test]
fn a_run_that_another_process_cancels_submits_no_more_jobs() {
    let stage =
        |n: usize| format!("{{kind: command, command: [sh, -c, 'sleep 20; echo {n} > {{outputs.n}}'], outputs: [n]}}");
    let cluster = Cluster::stub(Pipeline::new().stage("a", &stage(1)).stage("b", &stage(2)));
    let run = cluster.start(&["run", "p.yaml", "--jobs", "1"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    assert_done(&cluster.srpipe(&["cancel", "p"]));
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert_eq!(cluster.calls("sbatch"), 1, "{output}");
    assert_eq!(cluster.record()["state"], "interrupted");
}

#[test]
fn cancelling_includes_jobs_whose_submission_was_not_confirmed() {
    let cluster = waiting();
    cluster.inject("after.1", "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1");
    cluster.inject("squeue.all", "exit 1");
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert_eq!(cluster.state("1.0"), "CANCELLED");
}

#[test]
fn signals_of_a_session_that_ends_cancel_no_jobs() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    run.signal("HUP");
    let output = run.wait();
    assert!(output.code == Some(130) && output.stderr.contains("left:"), "{output}");
    assert_eq!(cluster.state("1.0"), "RUNNING");
    cluster.go();
}

#[test]
fn detach_refuses_a_run_that_is_only_partly_submitted() {
    let cluster = Cluster::stub(
        Pipeline::new()
            .stage("a", "{kind: command, command: [sh, -c, 'sleep 3; echo 1 > {outputs.n}'], outputs: [n]}")
            .stage("b", "{kind: command, command: [cp, '{inputs.n}', '{outputs.n}'], inputs: {n: a/n}, outputs: [n]}"),
    );
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("KILL");
    run.wait();
    let output = cluster.run(&["--detach"]);
    assert!(output.code == Some(2) && output.stderr.contains("continues with 1 stage not submitted yet"), "{output}");
    assert_done(&cluster.run(&[]));
}

#[test]
fn a_detached_run_that_failed_runs_again_after_a_correction() {
    let stage = "{kind: command, command: [sh, -c, 'cat $IN > {outputs.n}'], env: {IN: PATH}, outputs: [n]}";
    let input = std::env::temp_dir().join(format!("srpipe-test-in-{}", std::process::id()));
    let cluster = Cluster::stub(Pipeline::new().stage("needs", &stage.replace("PATH", input.to_str().unwrap())));
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the job has failed", || cluster.state("1.0") == "FAILED");
    fs::write(&input, "1").unwrap();
    let output = cluster.run(&[]);
    fs::remove_file(&input).unwrap();
    assert_done(&output);
}

#[test]
fn gc_proceeds_once_all_jobs_have_ended() {
    let images = |test: usize| format!("{{kind: fetch, dataset: synthetic, train: 2, test: {test}}}");
    let cluster = Cluster::stub(Pipeline::new().stage("images", &images(2)));
    assert_done(&cluster.run(&["--detach"]));
    let file = cluster.folder.path().join("p.yaml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("test: 2", "test: 3")).unwrap();
    assert_done(&cluster.run(&["--detach"]));
    wait_until("both jobs are done", || ["1.0", "2.0"].iter().all(|job| cluster.state(job) == "COMPLETED"));
    let output = cluster.srpipe(&["gc"]);
    assert_done(&output);
}

#[test]
fn stages_that_were_never_submitted_are_not_shown_as_running() {
    let cluster = Cluster::stub(Pipeline::small());
    cluster.inject("sbatch.1", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1");
    let output = cluster.run(&["--detach"]);
    assert!(output.code == Some(1) && output.stderr.contains("Invalid account"), "{output}");
    let status = cluster.status();
    assert!(status["stages"].as_array().unwrap().iter().all(|stage| stage["state"] != "running"), "{status:#}");
    assert_done(&cluster.run(&[]));
}

#[test]
fn following_the_log_of_an_unwatched_run_ends_with_its_stage() {
    let cluster = waiting();
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the job runs", || cluster.status()["stages"][0]["state"] == "running");
    let logs = cluster.start(&["logs", "wait", "-f"]);
    cluster.go();
    assert_done(&logs.wait());
}

#[test]
fn a_run_can_be_submitted_from_within_a_job_array() {
    let cluster = Cluster::stub(Pipeline::small());
    let mut command = cluster.command(&["run", "p.yaml", "--detach"]);
    assert!(command.env("SLURM_ARRAY_TASK_ID", "3").status().unwrap().success());
    wait_until("the run is done", || cluster.status()["run"]["state"] == "ok");
}

#[test]
fn after_a_kill_the_next_run_watches_the_same_jobs_and_submits_none_twice() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("KILL");
    run.wait();
    assert_eq!(cluster.status()["run"]["state"], "left");
    let run = cluster.start(&["run", "p.yaml"]);
    cluster.go();
    assert_done(&run.wait());
    assert_eq!(cluster.calls("sbatch"), 1);
}

#[test]
fn status_records_jobs_that_ended_while_nobody_watched() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("KILL");
    run.wait();
    let status = cluster.status();
    assert_eq!(status["stages"][0]["job"], serde_json::json!({"id": "1", "node": "n1"}), "{status:#}");
    cluster.go();
    wait_until("the job is done", || cluster.state("1.0") == "COMPLETED");
    let status = cluster.status();
    assert_eq!(status["run"]["state"], "ok", "{status:#}");
    assert_eq!(status["stages"][0]["state"], "ran", "{status:#}");
    assert!(cluster.folder.runs().join("p/latest/wait/n").is_file());
}

#[test]
fn a_kill_around_a_submission_neither_duplicates_nor_loses_a_job() {
    for (name, when, submissions) in [("before", "sbatch.1", 2), ("after", "after.1", 1)] {
        let cluster = waiting();
        cluster.inject(when, "kill -9 $PPID; exit 1");
        let output = cluster.run(&[]);
        assert_eq!(output.signal, Some(9), "{name}: {output}");
        cluster.go();
        let output = cluster.run(&[]);
        assert_eq!(output.code, Some(0), "{name}: {output}");
        assert_eq!(cluster.calls("sbatch"), submissions, "{name}: {output}");
    }
}

#[test]
fn a_detached_run_needs_no_process() {
    let cluster = Cluster::stub(small_study());
    let output = cluster.run(&["--detach"]);
    assert_done(&output);
    assert!(output.stderr.contains("6 jobs submitted as run"), "{output}");
    let submitted = cluster.submitted();
    assert_eq!(submitted.lines().filter(|line| line.contains("--dependency=afterok:")).count(), 5, "{submitted}");
    assert_eq!(submitted.lines().filter(|line| line.contains("--kill-on-invalid-dep=yes")).count(), 5, "{submitted}");
    let state = || cluster.status()["run"]["state"].as_str().unwrap_or_default().to_string();
    if state() == "left" {
        let gc = cluster.srpipe(&["gc"]);
        assert!(gc.code == Some(0) || gc.stderr.contains("continue although no process watches them"), "{gc}");
    }
    wait_until("the run is done", || state() == "ok");
    let here = small_study().folder();
    assert_done(&here.run(&[]));
    assert_eq!(cluster.folder.digests("compare"), here.digests("compare"));
    assert_done(&cluster.srpipe(&["gc"]));
}

#[test]
fn in_a_detached_run_stages_after_a_failure_are_skipped() {
    let broken = Pipeline::new()
        .stage("broken", "{kind: command, command: [sh, -c, 'echo no luck >&2; exit 3'], outputs: [n]}")
        .stage(
            "after",
            "{kind: command, command: [cp, '{inputs.n}', '{outputs.n}'], inputs: {n: broken/n}, outputs: [n]}",
        );
    let cluster = Cluster::stub(broken);
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the run has failed", || cluster.status()["run"]["state"] == "failed");
    let status = cluster.status();
    assert_eq!(status["stages"][0]["state"], "failed", "{status:#}");
    assert_eq!(status["stages"][1]["state"], "skipped", "{status:#}");
    assert!(status["stages"][0]["error"].as_str().unwrap().contains("exit"), "{status:#}");
}

#[test]
fn an_unwatched_run_blocks_gc() {
    let cluster = waiting();
    assert_done(&cluster.run(&["--detach"]));
    let gc = cluster.srpipe(&["gc"]);
    assert!(gc.code == Some(1) && gc.stderr.contains("continue although no process watches them"), "{gc}");
    let cancel = cluster.srpipe(&["cancel", "p"]);
    assert!(cancel.stdout.contains("was cancelled"), "{cancel}");
    assert_eq!(cluster.state("1.0"), "CANCELLED");
    assert_eq!(cluster.record()["state"], "interrupted");
    assert_done(&cluster.srpipe(&["gc"]));
    let again = cluster.srpipe(&["cancel", "p"]);
    assert!(again.stdout.contains("nothing to cancel"), "{again}");
}

#[test]
fn a_second_interrupt_cancels_the_jobs() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml", "--json"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cluster.state("1.0"), "RUNNING", "the first interrupt leaves it running");
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert_eq!(cluster.state("1.0"), "CANCELLED");
    assert_eq!(output.finished()["state"], "interrupted", "{output}");
}
