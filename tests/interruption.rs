//! Interrupted, killed and concurrent runs, with a stage that downloads from a stalling server.

mod common;

use std::time::{Duration, Instant};

use common::server::Server;
use common::{Folder, Pipeline, Running, archive, is_alive, signal, wait_until};
use serde_json::Value;

/// Starts a run whose `web` stage hangs while the other stages finish. Returns it with the process id of that stage.
fn hanging_run(server: &Server) -> (Folder, Running, u32) {
    let folder = Pipeline::small().stage("web", &server.fetch()).folder();
    let run = folder.start(&["run", "p.yaml", "--json"]);
    wait_until("the download hangs", || server.requests() == 1 && folder.stage_state("others") == "ran");
    wait_until("one child is left", || run.children().len() == 1);
    let child = run.children()[0];
    (folder, run, child)
}

impl Folder {
    /// Returns the state of a stage in the record of the latest run.
    fn stage_state(&self, stage: &str) -> String {
        let status = self.srpipe(&["status", "p", "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        let stages = status["stages"].as_array().cloned().unwrap_or_default();
        let found = stages.iter().find(|found| found["name"] == stage);
        found.and_then(|found| found["state"].as_str()).unwrap_or_default().to_string()
    }
}

#[test]
fn an_interrupted_run_is_recorded_and_resumes() {
    for name in ["INT", "TERM"] {
        let server = Server::stalled(archive(4));
        let (folder, run, child) = hanging_run(&server);
        run.signal(name);
        let output = run.wait();
        assert_eq!(output.code, Some(130), "{output}");
        assert_eq!(output.finished()["state"], "interrupted");
        assert_eq!(output.finished()["stages"]["web"], "interrupted");
        assert!(!is_alive(child));
        let status = folder.srpipe(&["status", "p.yaml"]);
        assert!(status.stdout.contains("interrupted; run again to continue"), "{status}");

        server.open();
        let again = folder.run(&["--json"]);
        assert_eq!(again.code, Some(0), "{again}");
        assert_eq!(again.finished()["stages"]["web"], "ran");
        assert_eq!(again.finished()["stages"]["others"], "cached");
    }
}

#[test]
fn the_message_after_an_interrupt_names_the_command_to_resume() {
    let server = Server::stalled(archive(4));
    let folder = Pipeline::new().stage("web", &server.fetch()).folder();
    let run = folder.start(&["run", "p.yaml"]);
    wait_until("the download hangs", || server.requests() == 1);
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert!(output.stderr.contains("Progress is saved"), "{output}");
    assert!(output.stderr.contains("srpipe run p.yaml"), "{output}");
}

#[test]
fn a_second_interrupt_exits_immediately() {
    let server = Server::stalled(archive(4));
    let (_folder, run, child) = hanging_run(&server);
    // A stopped child cannot react to the first interrupt.
    signal(child, "STOP").unwrap();
    run.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!is_alive(child));
}

#[test]
fn a_killed_run_leaves_no_process_and_no_lock() {
    let server = Server::stalled(archive(4));
    let (folder, run, child) = hanging_run(&server);
    assert_eq!(folder.stage_state("web"), "running");
    run.signal("KILL");
    let output = run.wait();
    assert_eq!(output.signal, Some(9), "{output}");
    wait_until("the child is gone", || !is_alive(child));

    let all = folder.srpipe(&["status"]);
    assert!(all.stdout.contains("died; run again to continue"), "{all}");
    let status = folder.srpipe(&["status", "p.yaml"]);
    let web = status.stdout.lines().find(|line| line.starts_with("web")).unwrap();
    assert!(web.contains("died; run again to continue"), "{status}");

    server.open();
    let again = folder.run(&["--json"]);
    assert_eq!(again.finished()["stages"]["web"], "ran", "{again}");
}

#[test]
fn a_child_that_is_killed_fails_its_stage() {
    let server = Server::stalled(archive(4));
    let (_folder, run, child) = hanging_run(&server);
    signal(child, "KILL").unwrap();
    let output = run.wait();
    assert_eq!(output.code, Some(1), "{output}");
    assert_eq!(output.finished()["stages"]["web"], "failed");
    assert!(output.stdout.contains("killed from outside srpipe by signal 9"), "{output}");
    assert!(output.stdout.contains("\"cause\":\"lost\""), "{output}");
}

#[test]
fn two_runs_at_once_compute_each_key_once() {
    let server = Server::stalled(archive(4));
    let folder = Pipeline::new()
        .stage("web", &server.fetch())
        .stage("pairs", "{kind: degrade, input: web}")
        .stage("others", "{kind: degrade, input: web, scale: 2}")
        .folder();
    let first = folder.start(&["run", "p.yaml", "--json"]);
    wait_until("the download hangs", || server.requests() == 1);
    let second = folder.start(&["run", "p.yaml", "--json"]);
    // The second run waits for a key that the first one holds.
    wait_until("both have a child", || first.children().len() == 1 && second.children().len() == 1);
    std::thread::sleep(Duration::from_millis(300));
    server.open();
    let (first, second) = (first.wait(), second.wait());
    assert_eq!(server.requests(), 1);
    assert!(second.stdout.contains("another run computes the same key"), "{second}");
    for stage in ["web", "pairs", "others"] {
        let mut states = [&first, &second].map(|run| run.finished()["stages"][stage].as_str().unwrap().to_string());
        states.sort();
        assert_eq!(states, ["cached", "ran"], "{stage}\n{first}\n{second}");
    }
    assert_eq!([first.code, second.code], [Some(0), Some(0)]);
    assert!(std::fs::read_dir(folder.runs().join("store/work")).unwrap().next().is_none(), "work is cleaned up");
}
