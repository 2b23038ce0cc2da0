//! Tests with a real Slurm, which are skipped without `SRPIPE_TEST_SLURM`.

use super::*;

/// Waits until training has progressed, and returns the id of its job.
fn wait_for_training(cluster: &Cluster) -> String {
    let has_progress = || {
        let status = cluster.status();
        let stages = status["stages"].as_array().cloned().unwrap_or_default();
        stages.iter().any(|stage| stage["name"] == "model" && stage["progress"]["done"].as_u64() >= Some(20))
    };
    wait_until("the training is under way", has_progress);
    real_jobs(cluster, "%i").pop().unwrap()
}

#[test]
fn real_results_are_identical_to_those_of_a_local_run() {
    let Some(cluster) = Cluster::real(small_study()) else { return };
    let here = small_study().folder();
    assert_done(&here.run(&[]));
    assert_done(&cluster.run(&[]));
    for stage in ["model", "samples", "compare"] {
        assert_eq!(cluster.folder.digests(stage), here.digests(stage), "{stage}");
    }
}

#[test]
fn real_a_sweep_of_16_is_one_array() {
    let Some(cluster) = Cluster::real(swept(16)) else { return };
    let output = cluster.run(&["--json"]);
    assert_done(&output);
    let jobs: Vec<Value> =
        cluster.record()["stages"].as_array().unwrap().iter().map(|s| s["job"]["id"].clone()).collect();
    let in_array = jobs.iter().filter(|id| id.as_str().is_some_and(|id| id.contains('_'))).count();
    assert!(in_array >= 1, "{jobs:?}");
    assert_eq!(
        fs::read_dir(cluster.folder.runs().join("p/latest/.slurm"))
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
                name.starts_with("b4_") && name.ends_with(".out")
            })
            .count(),
        16
    );
}

#[test]
fn real_a_cancelled_job_resumes_in_the_next_run_with_identical_results() {
    let Some(cluster) = Cluster::real(training(600)) else { return };
    let here = training(600).folder();
    assert_done(&here.run(&[]));
    let run = cluster.start(&["run", "p.yaml"]);
    run_slurm_command("scancel", &[&wait_for_training(&cluster)]);
    let output = run.wait();
    assert!(output.code == Some(1) && output.stderr.contains("was cancelled"), "{output}");
    let output = cluster.run(&[]);
    assert_done(&output);
    assert!(!output.stderr.contains("steps 0 to 600") && output.stderr.contains("to 600"), "{output}");
    assert_eq!(cluster.folder.digests("model"), here.digests("model"));
}

#[test]
fn real_a_training_at_its_time_limit_is_requeued_with_identical_results() {
    let Some(cluster) = Cluster::real(training(600)) else { return };
    let here = training(600).folder();
    assert_done(&here.run(&[]));
    let run = cluster.start(&["run", "p.yaml"]);
    // Slurm sends this signal before the time limit.
    run_slurm_command("scancel", &["--batch", "--signal=USR2", &wait_for_training(&cluster)]);
    let output = run.wait();
    assert_done(&output);
    assert!(output.stderr.contains("the job is requeued (1 of 3)"), "{output}");
    assert_eq!(cluster.folder.digests("model"), here.digests("model"));
}

#[test]
fn real_after_a_kill_the_next_run_watches_the_same_jobs() {
    let Some(cluster) = Cluster::real(training(600)) else { return };
    let run = cluster.start(&["run", "p.yaml"]);
    let job = wait_for_training(&cluster);
    run.signal("KILL");
    run.wait();
    let first = cluster.record()["id"].clone();
    assert_done(&cluster.run(&[]));
    let record = cluster.record();
    assert_eq!(record["id"], first);
    assert_eq!(record["stages"].as_array().unwrap().last().unwrap()["job"]["id"], job.as_str());
}

#[test]
fn real_a_job_that_exceeds_its_memory_is_reported() {
    let hungry = "{kind: command, command: [sh, -c, 'x=$(head -c 900000000 /dev/zero | tr \"\\\\0\" a); sleep 20; echo $x'], \
                  outputs: [n], resources: {memory: 200 MB}}";
    let Some(cluster) = Cluster::real(Pipeline::new().stage("hungry", hungry)) else { return };
    let output = cluster.run(&[]);
    assert!(output.code == Some(1) && output.stderr.contains("exceeded its memory limit"), "{output}");
}

#[test]
fn real_a_run_survives_an_outage_of_the_controller() {
    let Some(cluster) = Cluster::real(training(1200)) else { return };
    let run = cluster.start(&["run", "p.yaml"]);
    wait_for_training(&cluster);
    let folder = std::env::var("SRPIPE_TEST_SLURM").unwrap();
    run_slurm_command(&format!("{SCRIPTS}/start.sh"), &[&folder, "pause"]);
    std::thread::sleep(Duration::from_secs(8));
    run_slurm_command(&format!("{SCRIPTS}/start.sh"), &[&folder, "resume"]);
    assert_done(&run.wait());
}

#[test]
fn real_a_detached_run_needs_no_process() {
    let Some(cluster) = Cluster::real(small_study()) else { return };
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the run is done", || cluster.status()["run"]["state"] == "ok");
    assert!(cluster.folder.runs().join("p/latest/compare/summary.json").is_file());
}

#[test]
fn a_job_that_is_cancelled_by_hand_is_not_retried_even_if_its_program_dies_first() {
    let stage = "{kind: command, command: [sh, -c, 'exec sleep 20'], outputs: [n], retry: {lost: 1}}";
    let Some(cluster) = Cluster::real(Pipeline::new().stage("sleep", stage)) else { return };
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.status()["stages"][0]["job"]["node"].is_string());
    std::thread::sleep(Duration::from_secs(1));
    run_slurm_command("scancel", &[&real_jobs(&cluster, "%i")[0]]);
    let output = run.wait();
    assert!(output.code == Some(1) && output.stderr.contains("was cancelled"), "{output}");
}
