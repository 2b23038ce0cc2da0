//! The output of jobs: huge output, and output of another job.

use std::io::Write;

use super::damaged_records::{detached, unsealed};
use super::*;

#[test]
fn huge_output_of_a_job_is_read_in_bounded_memory() {
    let stage = "{kind: command, command: [sh, -c, 'echo no such luck >&2; exit 3'], outputs: [n]}";
    let cluster = Cluster::stub(Pipeline::new().stage("fails", stage));
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the job has failed", || cluster.state("1.0") == "FAILED");
    // Put the job's events after a huge output, as if a library had printed it. The file is sparse, so it takes no
    // space on disk.
    let path = cluster.job_file("b1_0.out");
    let events = fs::read(&path).unwrap();
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.set_len(200 << 30).unwrap();
    file.write_all(&[b"\n", &events[..]].concat()).unwrap();
    let mut command = Command::new("sh");
    let srpipe = cluster.command(&["status", "p", "--json"]);
    command.args(["-c", "ulimit -v 2000000; exec \"$0\" \"$@\""]).arg(srpipe.get_program()).args(srpipe.get_args());
    command.current_dir(srpipe.get_current_dir().unwrap());
    for (name, value) in srpipe.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = status["stages"][0]["error"].as_str().unwrap();
    assert!(error.contains("exit code 3") || error.contains("exit status: 3"), "{error}");
}

/// Returns the output of a failed job of another run, and the cluster of that run.
fn output_of_a_failed_job() -> (String, Cluster) {
    let failing =
        Cluster::stub(Pipeline::new().stage("x", "{kind: command, command: [sh, -c, 'exit 3'], outputs: [n]}"));
    assert_eq!(failing.run(&[]).code, Some(1));
    let text = fs::read_to_string(failing.job_file("b1_0.out")).unwrap();
    assert!(text.contains("\"failed\""), "{text}");
    (text, failing)
}

#[test]
fn the_output_of_another_runs_job_does_not_end_a_job() {
    let (text, _other) = output_of_a_failed_job();
    for is_queue_silent in [false, true] {
        let cluster = detached();
        fs::write(cluster.job_file("b1_0.out"), &text).unwrap();
        if is_queue_silent {
            cluster.inject("squeue.all", "exit 1");
        }
        let status = cluster.srpipe(&["status", "p"]);
        assert!(status.stderr.contains("b1_0.out is damaged") && !status.stdout.contains("failed"), "{status}");
        let gc = cluster.srpipe(&["gc"]);
        assert!(gc.code == Some(1) && gc.stderr.contains("continue although no process watches them"), "{gc}");
        let cancel = cluster.srpipe(&["cancel", "p"]);
        assert!(cancel.code == Some(0) && cluster.state("1.0") == "CANCELLED", "{cancel}");
    }
    // The same holds in a watched run, whose outcome is the one of the batch system.
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the run exists", || cluster.folder.runs().join("p/latest").exists());
    cluster.wait_for_start();
    fs::write(cluster.job_file("b1_0.out"), &text).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    cluster.go();
    let output = run.wait();
    assert_done(&output);
    assert!(output.stderr.contains("b1_0.out is damaged"), "{output}");
}

#[test]
fn a_reported_failure_does_not_end_a_job_that_is_running() {
    let cluster = waiting();
    assert_done(&cluster.run(&["--detach"]));
    cluster.wait_for_start();
    // Older versions wrote events without checksums.
    let spec = fs::read_to_string(cluster.job_file("charter.json")).unwrap();
    let spec = unsealed(spec.as_bytes()).replace(",\"has_sealed_events\":true", "");
    assert!(!spec.contains("has_sealed_events"));
    fs::write(cluster.job_file("charter.json"), spec).unwrap();
    let record = fs::read(cluster.run_folder().join("run.json")).unwrap();
    let version = format!("\"srpipe_version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let record = unsealed(&record).replace(&version, "\"srpipe_version\": \"0.1.0\"");
    fs::write(cluster.run_folder().join("run.json"), record).unwrap();
    let failed = "{\"event\":\"started\"}\n{\"event\":\"failed\",\"error\":\"it broke\",\"cause\":\"failed\",\"damaged\":null}\n";
    fs::write(cluster.job_file("b1_0.out"), failed).unwrap();
    assert_eq!(cluster.status()["stages"][0]["state"], "running");
    let state = cluster.stub.as_ref().unwrap().join("jobs/1.0/state");
    fs::write(state, "FAILED").unwrap();
    let status = cluster.status();
    assert_eq!(status["stages"][0]["error"], "it broke", "{status:#}");
}
