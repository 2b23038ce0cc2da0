//! End-to-end tests of `srpipe status`, `check` and `logs`.

mod common;

use common::Pipeline;
use serde_json::Value;

#[test]
fn without_runs_status_is_empty_and_writes_nothing() {
    let folder = Pipeline::small().folder();
    let all = folder.srpipe(&["status"]);
    assert_eq!(all.code, Some(0), "{all}");
    assert!(all.stdout.starts_with("there are no runs in runs yet"), "{all}");
    let file = folder.srpipe(&["status", "p.yaml"]);
    assert!(file.stdout.contains("would run") && file.stdout.contains("waiting for images"), "{file}");
    assert_eq!(folder.srpipe(&["status", "nothing"]).code, Some(2));
    assert_eq!(folder.srpipe(&["logs", "images"]).code, Some(2));
    assert!(!folder.runs().exists());
}

#[test]
fn after_a_run_status_shows_every_stage() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let before = folder.snapshot();
    let all = folder.srpipe(&["status"]);
    let line = all.stdout.lines().nth(1).unwrap();
    assert!(line.starts_with("p  ") && line.contains("  ok  ") && line.contains("3 ran"), "{all}");
    let json: Value = serde_json::from_str(&folder.srpipe(&["status", "--json"]).stdout).unwrap();
    let run = &json["pipelines"][0]["run"];
    assert_eq!((&run["state"], &run["counts"]["ran"]), (&"ok".into(), &3.into()), "{json}");

    let file: Value = serde_json::from_str(&folder.srpipe(&["status", "p.yaml", "--json"]).stdout).unwrap();
    assert_eq!(file["run"]["id"], run["id"]);
    for stage in file["stages"].as_array().unwrap() {
        assert_eq!(stage["state"], "cached", "{file}");
        assert!(stage["seconds"].as_f64().unwrap() > 0.0 && stage["finished_at"].is_string(), "{file}");
    }
    let by_id = folder.srpipe(&["status", run["id"].as_str().unwrap()]);
    assert_eq!(by_id.stdout.matches("  ran  ").count(), 3, "{by_id}");

    let set = ["status", "p.yaml", "--set", "stages.images.train=9", "--json"];
    let changed: Value = serde_json::from_str(&folder.srpipe(&set).stdout).unwrap();
    let states: Vec<&str> =
        changed["stages"].as_array().unwrap().iter().map(|s| s["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["would_run", "waiting", "waiting"], "{changed}");
    assert_eq!(folder.snapshot(), before);
}

#[test]
fn check_reports_the_errors_of_each_file() {
    let folder = Pipeline::small().folder();
    let good = folder.srpipe(&["check", "p.yaml"]);
    assert_eq!((good.code, good.stdout.as_str()), (Some(0), "p.yaml: ok: 3 stages\n"), "{good}");
    folder.write("bad.yaml", "name: bad\nstages:\n  a: {kind: degrade, input: b, scael: 4}\n");
    let both = folder.srpipe(&["check", "bad.yaml", "p.yaml"]);
    assert_eq!(both.code, Some(2), "{both}");
    assert!(both.stderr.contains("bad.yaml") && both.stderr.contains("scale"), "{both}");
    assert!(both.stdout.contains("p.yaml: ok"), "{both}");
}

#[test]
fn a_closed_pipe_on_stdout_is_not_an_error() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let mut run = folder.start(&["status", "p.yaml"]);
    drop(run.child.stdout.take());
    let status = run.child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
}
