//! End-to-end tests of `srpipe run`: exit codes, files, messages.

mod common;

use common::{Pipeline, archive, sha256};
use serde_json::json;

#[test]
fn a_run_computes_every_stage_and_a_second_run_changes_nothing() {
    let folder = Pipeline::small().folder();
    let first = folder.run(&["--json"]);
    assert_eq!(first.code, Some(0), "{first}");
    let finished = first.finished();
    assert_eq!(finished["state"], "ok");
    assert_eq!(finished["stages"], json!({"images": "ran", "pairs": "ran", "others": "ran"}));
    for file in ["latest/run.json", "latest/pipeline.yaml", "latest/pairs/train_lr.safetensors"] {
        assert!(folder.runs().join("p").join(file).is_file(), "{file}");
    }
    assert!(std::fs::read_dir(folder.runs().join("store/work")).unwrap().next().is_none(), "work is cleaned up");

    let before = folder.snapshot();
    let second = folder.run(&["--json"]);
    assert_eq!(second.code, Some(0), "{second}");
    assert_eq!(second.finished()["run"], finished["run"]);
    assert_eq!(second.finished()["stages"], json!({"images": "cached", "pairs": "cached", "others": "cached"}));
    let third = folder.run(&[]);
    assert_eq!(third.stdout, "nothing to do: all 3 stages are cached\nruns/p/latest/report.html\n", "{third}");
    assert_eq!(folder.snapshot(), before);
}

#[test]
fn running_the_resolved_pipeline_finds_everything_cached() {
    let folder = Pipeline::small().folder();
    assert_eq!(folder.run(&["--set", "stages.pairs.method=bicubic"]).code, Some(0));
    let resolved = folder.runs().join("p/latest/pipeline.yaml");
    let again = folder.srpipe(&["run", resolved.to_str().unwrap()]);
    assert_eq!(again.stdout, "nothing to do: all 3 stages are cached\nruns/p/latest/report.html\n", "{again}");
}

#[test]
fn a_changed_parameter_reruns_only_its_stage_and_reverting_it_reruns_nothing() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let changed = folder.run(&["--json", "--set", "stages.pairs.method=bicubic"]);
    assert_eq!(changed.finished()["stages"], json!({"images": "cached", "pairs": "ran", "others": "cached"}));
    let back = folder.run(&["--json"]);
    assert_eq!(back.finished()["stages"], json!({"images": "cached", "pairs": "cached", "others": "cached"}));
    assert_ne!(back.finished()["run"], changed.finished()["run"], "`latest` has the old results again");
}

#[test]
fn a_failed_stage_is_reported_and_its_siblings_run() {
    let folder = Pipeline::small()
        .stage("bad", "{kind: fetch, dataset: cifar10, url: 'file:bad.tar.gz', validation: 2}")
        .stage("bad_pairs", "{kind: degrade, input: bad}")
        .folder();
    folder.write("bad.tar.gz", "this is not an archive");
    let output = folder.run(&["--json"]);
    assert_eq!(output.code, Some(1), "{output}");
    let finished = output.finished();
    assert_eq!(finished["state"], "failed");
    assert_eq!(
        finished["stages"],
        json!({"images": "ran", "pairs": "ran", "others": "ran", "bad": "failed", "bad_pairs": "skipped"})
    );
    let again = folder.run(&[]);
    assert_eq!(again.code, Some(1), "{again}");
    assert!(again.stderr.contains("bad        failed: "), "{again}");
    assert!(again.stderr.contains("bad_pairs  skipped, because bad"), "{again}");
    assert!(again.stderr.contains("log: "), "{again}");
    let status = folder.srpipe(&["status", "p.yaml"]);
    assert!(status.stdout.contains("failed: "), "{status}");
    assert!(status.stdout.contains("waiting for bad"), "{status}");
    let logs = folder.srpipe(&["logs", "bad"]);
    assert!(logs.stdout.contains("error: "), "{logs}");
}

#[test]
fn invalid_input_exits_with_code_2_and_writes_nothing() {
    let good = Pipeline::small().folder();
    let local = "{kind: fetch, dataset: cifar10, url: 'file:a.tar.gz', validation: 2}";
    let local = Pipeline::new().stage("cifar", local).folder();
    let cases: [(&common::Folder, &[&str], &str); 6] = [
        (&good, &["run", "other.yaml"], "other.yaml"),
        (&good, &["run", "p.yaml", "--set", "stages.pairs.scale=3"], "scale"),
        (&good, &["run", "p.yaml", "--jobs", "0"], "--jobs"),
        (&good, &["run"], "FILE"),
        (&good, &["run", "p.yaml", "--device", "cuda"], "--features cuda"),
        (&local, &["run", "p.yaml"], "stages.cifar.url"),
    ];
    for (folder, args, text) in cases {
        let output = folder.srpipe(args);
        assert_eq!(output.code, Some(2), "{args:?} {output}");
        assert!(output.stderr.contains(text), "{args:?} {output}");
        assert!(!folder.runs().exists(), "{args:?}");
    }
}

#[test]
fn a_local_archive_is_identified_by_its_content() {
    let bytes = archive(4);
    let fetch = "{kind: fetch, dataset: cifar10, url: 'file:a.tar.gz', validation: 2}";
    let folder = Pipeline::new().stage("cifar", fetch).folder();
    folder.write("a.tar.gz", &bytes);
    let pin = |digest: &str| format!("stages.cifar.sha256={digest}");
    let wrong = folder.run(&["--set", &pin(&"0".repeat(64))]);
    assert_eq!(wrong.code, Some(2), "{wrong}");
    assert!(wrong.stderr.contains(&sha256(&bytes)), "{wrong}");
    let right = folder.run(&["--json", "--set", &pin(&sha256(&bytes))]);
    assert_eq!(right.finished()["stages"]["cifar"], "ran", "{right}");
    folder.write("b.tar.gz", &bytes);
    let renamed = folder.run(&["--json", "--set", "stages.cifar.url=file:b.tar.gz"]);
    assert_eq!(renamed.finished()["stages"]["cifar"], "cached", "{renamed}");
    folder.write("b.tar.gz", archive(5));
    let other = folder.run(&["--json", "--set", "stages.cifar.url=file:b.tar.gz"]);
    assert_eq!(other.finished()["stages"]["cifar"], "ran", "{other}");
}

#[test]
fn a_second_run_on_a_local_archive_changes_nothing() {
    let fetch = "{kind: fetch, dataset: cifar10, url: 'file:a.tar.gz', validation: 2}";
    let folder = Pipeline::new().stage("cifar", fetch).folder();
    folder.write("a.tar.gz", archive(4));
    // A file that was just modified may change again, so its digest is not cached.
    std::thread::sleep(std::time::Duration::from_secs(3));
    folder.run(&[]);
    let before = folder.snapshot();
    let again = folder.run(&["--json"]);
    assert_eq!(again.finished()["stages"]["cifar"], "cached", "{again}");
    assert_eq!(folder.snapshot(), before);
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let folder = Pipeline::small().folder();
    let output = folder.run(&["--dry-run"]);
    assert_eq!(output.code, Some(0), "{output}");
    let line = |name: &str| output.stdout.lines().find(|line| line.starts_with(name)).unwrap().to_string();
    assert!(line("images").contains("run"), "{output}");
    assert!(line("pairs").contains("depends on images"), "{output}");
    assert!(!folder.runs().exists());
    folder.run(&[]);
    let before = folder.snapshot();
    let output = folder.run(&["--dry-run", "--set", "stages.pairs.method=bicubic"]);
    assert_eq!(output.stdout.lines().filter(|line| line.trim_end().ends_with(" cached")).count(), 2, "{output}");
    let planned = folder.srpipe(&["plan", "p.yaml", "--json"]);
    assert_eq!(folder.run(&["--dry-run", "--json"]).stdout, planned.stdout);
    assert!(serde_json::from_str::<serde_json::Value>(&planned.stdout).is_ok(), "{planned}");
    assert_eq!(folder.snapshot(), before);
}

#[test]
fn a_damaged_blob_is_recomputed_in_the_same_run() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let blob = std::fs::canonicalize(folder.runs().join("p/latest/images/train_hr.safetensors")).unwrap();
    let good = std::fs::read(&blob).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, bad).unwrap();
    let output = folder.run(&["--json", "--set", "stages.pairs.method=bicubic"]);
    assert_eq!(output.code, Some(0), "{output}");
    assert_eq!(output.finished()["stages"]["images"], "ran", "{output}");
    assert!(output.stdout.contains("damaged"), "{output}");
    assert_eq!(std::fs::read(&blob).unwrap(), good);
}

#[test]
fn the_results_folder_can_be_selected() {
    let folder = Pipeline::small().folder();
    let output = folder.command(&["run", "p.yaml"]).env("SRPIPE_RUNS", "elsewhere").output().unwrap();
    assert!(output.status.success());
    assert!(folder.path().join("elsewhere/p/latest/run.json").is_file());
    let output = folder.srpipe(&["run", "p.yaml", "--runs-dir", "elsewhere"]);
    assert!(output.stdout.starts_with("nothing to do"), "{output}");
    assert!(!folder.runs().exists());
}

#[test]
fn without_a_terminal_lines_are_dated_and_uncoloured() {
    let folder = Pipeline::small().folder();
    let output = folder.run(&[]);
    assert!(!output.stderr.contains('\x1b') && !output.stdout.contains('\x1b'), "{output}");
    let line = output.stderr.lines().find(|line| line.contains("images")).unwrap();
    assert!(line.starts_with("20") && line.as_bytes()[4] == b'-' && line.as_bytes()[13] == b':', "{line}");
    assert!(output.stderr.contains("done: 3 ran in"), "{output}");
}

#[test]
fn help_lists_the_exit_codes() {
    let folder = Pipeline::new().folder();
    for args in [&["--help"][..], &["run", "--help"]] {
        let output = folder.srpipe(args);
        assert_eq!(output.code, Some(0));
        assert!(output.stdout.contains("130  interrupted"), "{output}");
        assert!(output.stdout.contains("Examples:"), "{output}");
    }
}
