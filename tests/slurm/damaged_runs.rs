//! Runs whose folder or record is missing, damaged, huge or that of another run. Such a run is never overlooked, and
//! its jobs keep their inputs and can be cancelled. A killed process leaves nothing that blocks the next run.

use super::damaged_records::{damage, detached, unsealed};
use super::*;

/// A way to make a record unreadable, with its name. It removes the file or replaces it with something else.
type Damage = (&'static str, fn(&Path));

const UNREADABLE: [Damage; 4] = [
    ("missing", |path| fs::remove_file(path).unwrap()),
    ("a folder", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("a named pipe", |path| {
        fs::remove_file(path).unwrap();
        let made = Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    }),
    ("a dangling link", |path| {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("nowhere", path).unwrap();
    }),
];

/// Returns a cluster with a detached run whose stage `wait` needs the result of the finished stage `first`.
pub fn detached_with_input() -> Cluster {
    let cluster = waiting();
    let path = cluster.folder.path().join("p.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let first = "first: {kind: command, command: [sh, -c, 'echo 1 > {outputs.n}'], outputs: [n]}";
    let text = text.replacen("  wait:", &format!("  {first}\n  wait:"), 1);
    let wait = "{inputs: {i: first/n}, kind: command, command: [sh, -c, 'cat {inputs.i}; while";
    fs::write(&path, text.replace("{kind: command, command: [sh, -c, 'while", wait)).unwrap();
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the second job runs", || cluster.state("2.0") == "RUNNING");
    wait_until("its stage starts", || {
        fs::read_to_string(cluster.job_file("b2_0.out")).is_ok_and(|text| text.contains("started"))
    });
    cluster
}

/// Returns the number of results in the store.
fn count_results(cluster: &Cluster) -> usize {
    let output = Command::new("find").arg(cluster.folder.runs().join("store/actions")).args(["-type", "f"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().lines().count()
}

#[test]
fn a_run_whose_record_is_not_a_file_is_reported_as_damaged() {
    for (name, make_unreadable) in UNREADABLE {
        let cluster = detached_with_input();
        let id = cluster.run_id();
        make_unreadable(&cluster.run_folder().join("run.json"));
        let gc = cluster.srpipe(&["gc"]);
        assert!(gc.code == Some(1) && gc.stderr.contains("run.json"), "{name}: {gc}");
        assert!(gc.stderr.contains(&format!("srpipe cancel {id}")), "{name}: {gc}");
        assert_eq!(count_results(&cluster), 1, "{name}");
        for args in [&["run", "p.yaml"][..], &["run", "p.yaml", "--detach"]] {
            let output = cluster.srpipe(args);
            assert!(output.code == Some(1) && output.stderr.contains("run.json"), "{name}: {output}");
            assert!(output.stderr.contains(&format!("srpipe cancel {id}")), "{name}: {output}");
        }
        assert_eq!(cluster.calls("sbatch"), 2, "{name}");
        let status = cluster.srpipe(&["status", &id]);
        assert!(status.code == Some(1) && status.stderr.contains("run.json"), "{name}: {status}");
        let cancel = cluster.srpipe(&["cancel", &id]);
        assert_eq!(cancel.code, Some(0), "{name}: {cancel}");
        assert_eq!(cluster.state("2.0"), "CANCELLED", "{name}: {cancel}");
    }
}

#[test]
fn results_of_a_watched_run_without_a_record_are_kept() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the run exists", || cluster.folder.runs().join("p/latest").exists());
    cluster.wait_for_start();
    // The process writes its record again whenever a stage changes.
    let stage = || cluster.record()["stages"][0].clone();
    wait_until("the record is final", || stage()["state"] == "running" && stage()["job"]["node"].is_string());
    fs::remove_file(cluster.run_folder().join("run.json")).unwrap();
    let gc = cluster.srpipe(&["gc"]);
    assert!(gc.code == Some(1) && gc.stderr.contains("run.json is missing"), "{gc}");
    cluster.go();
    assert_done(&run.wait());
    assert_done(&cluster.srpipe(&["gc"]));
}

#[test]
fn a_link_in_place_of_a_runs_folder_is_refused() {
    let cluster = detached_with_input();
    let (folder, id) = (cluster.run_folder(), cluster.run_id());
    let moved = cluster.folder.path().join("moved");
    fs::rename(&folder, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &folder).unwrap();
    let is_refused = |output: &Output| {
        assert!(output.code == Some(1) && output.stderr.contains(&format!("{id} is a link")), "{output}");
    };
    is_refused(&cluster.srpipe(&["gc"]));
    is_refused(&cluster.srpipe(&["run", "p.yaml"]));
    is_refused(&cluster.srpipe(&["run", "p.yaml", "--detach"]));
    is_refused(&cluster.srpipe(&["status", &id]));
    assert_eq!((count_results(&cluster), cluster.calls("sbatch")), (1, 2));
    let before = fs::read(moved.join("run.json")).unwrap();
    let cancel = cluster.srpipe(&["cancel", &id]);
    assert!(cancel.code == Some(0) && cluster.state("2.0") == "CANCELLED", "{cancel}");
    assert_eq!(fs::read(moved.join("run.json")).unwrap(), before, "the link was followed");
}

#[test]
fn a_link_in_place_of_the_folder_of_jobs_is_not_followed() {
    let cluster = detached();
    let folder = cluster.run_folder().join(".slurm");
    let moved = cluster.folder.path().join("moved");
    fs::rename(&folder, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &folder).unwrap();
    for args in [&["gc"][..], &["run", "p.yaml"], &["run", "p.yaml", "--detach"]] {
        let output = cluster.srpipe(args);
        assert!(output.code == Some(1) && output.stderr.contains(".slurm is a link"), "{args:?}: {output}");
    }
    let cancel = cluster.srpipe(&["cancel", "p"]);
    assert!(cancel.code == Some(0) && cluster.state("1.0") == "CANCELLED", "{cancel}");
    assert!(!moved.join("cancelled").exists(), "the link was followed");
}

#[test]
fn the_record_of_another_run_is_damaged() {
    let cluster = detached_with_input();
    let (first, id) = (cluster.run_folder(), cluster.run_id());
    // A finished run of another pipeline, and an older run of this one.
    let finished =
        Pipeline::new().stage("other", "{kind: command, command: [sh, -c, 'echo 1 > {outputs.n}'], outputs: [n]}");
    let text = fs::read_to_string(finished.folder().path().join("p.yaml")).unwrap();
    cluster.folder.write("q.yaml", text.replacen("name: p", "name: q", 1));
    assert_done(&cluster.srpipe(&["run", "q.yaml", "--executor", "local"]));
    let of_other_pipeline = fs::read(cluster.folder.runs().join("q/latest/run.json")).unwrap();
    cluster.folder.write("r.yaml", text);
    assert_done(&cluster.srpipe(&["run", "r.yaml", "--executor", "local"]));
    let of_other_run = fs::read(cluster.folder.runs().join("p/latest/run.json")).unwrap();
    for (record, pipeline) in [(of_other_pipeline, "q"), (of_other_run, "p")] {
        let other: Value = serde_json::from_slice(&record).unwrap();
        let kept = fs::read(first.join("run.json")).unwrap();
        fs::write(first.join("run.json"), &record).unwrap();
        let named = format!("belongs to run {} of pipeline {pipeline}", other["id"].as_str().unwrap());
        let gc = cluster.srpipe(&["gc"]);
        assert!(gc.code == Some(1) && gc.stderr.contains(&named), "{gc}");
        let status = cluster.srpipe(&["status", &id]);
        assert!(status.code == Some(1) && status.stderr.contains(&named), "{status}");
        let verify = cluster.srpipe(&["verify"]);
        assert!(verify.code == Some(1) && verify.stdout.contains(&named), "{verify}");
        fs::write(first.join("run.json"), kept).unwrap();
    }
    let kept = fs::read(cluster.folder.runs().join("q/latest/run.json")).unwrap();
    fs::write(first.join("run.json"), kept).unwrap();
    let cancel = cluster.srpipe(&["cancel", &id]);
    assert!(cancel.code == Some(0) && cluster.state("2.0") == "CANCELLED", "{cancel}");
}

#[test]
fn a_run_that_was_copied_by_hand_is_reported_with_its_origin() {
    let cluster = Cluster::stub(Pipeline::small());
    assert_done(&cluster.run(&[]));
    let (folder, id) = (cluster.run_folder(), cluster.run_id());
    let copy = cluster.folder.runs().join("q").join(&id);
    fs::create_dir(copy.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-r").args([&folder, &copy]).status().unwrap().success());
    for args in [&["gc"][..], &["status", "q"], &["report", "q"], &["diff", "p", "q"], &["cancel", "q"]] {
        let output = cluster.srpipe(args);
        assert!(output.code.is_some_and(|code| code < 3), "{args:?}: {output}");
        assert!(output.stderr.contains(&format!("belongs to run {id} of pipeline p")), "{args:?}: {output}");
        assert!(output.stderr.contains("move this folder back"), "{args:?}: {output}");
    }
    fs::remove_dir_all(copy.parent().unwrap()).unwrap();
    assert_done(&cluster.srpipe(&["gc"]));
}

#[test]
fn a_run_that_was_killed_before_its_first_submission_does_not_block_other_runs_or_gc() {
    // Older versions that were killed left a run without the spec.
    for has_spec in [true, false] {
        let cluster = detached();
        assert_done(&cluster.srpipe(&["cancel", "p"]));
        let folder = cluster.run_folder();
        let record = fs::read_to_string(folder.join("run.json")).unwrap();
        let start = record.replace("\"state\": \"interrupted\"", "\"state\": \"running\"");
        let start = start.replace(env!("CARGO_PKG_VERSION"), "0.1.0");
        fs::write(folder.join("run.json"), unsealed(start.as_bytes())).unwrap();
        for entry in fs::read_dir(folder.join(".slurm")).unwrap() {
            let path = entry.unwrap().path();
            if !(has_spec && path.ends_with("charter.json")) {
                fs::remove_file(path).unwrap();
            }
        }
        fs::remove_dir_all(cluster.stub.as_ref().unwrap().join("jobs/1.0")).unwrap();
        cluster.go();
        assert_done(&cluster.run(&[]));
        assert_done(&cluster.srpipe(&["gc"]));
    }
}

#[test]
fn a_process_that_is_killed_while_it_creates_a_run_leaves_no_run() {
    let cluster = waiting();
    cluster.go();
    // Create the files that a killed process may have left.
    let folder = cluster.folder.runs().join("p/.tmp-killed");
    fs::create_dir_all(folder.join(".slurm")).unwrap();
    fs::write(folder.join(".slurm/charter.json"), "{").unwrap();
    let old = cluster.folder.runs().join("p/20261123-083227.123-k3xa");
    fs::create_dir_all(old.join(".slurm")).unwrap();
    fs::write(old.join(".slurm/charter.json"), "{").unwrap();
    assert_done(&cluster.run(&[]));
    assert_done(&cluster.srpipe(&["gc"]));
    assert!(!folder.exists() && !old.exists());
}

/// Kills runs at every system call that renames a file.
#[test]
fn a_run_that_is_killed_at_any_rename_can_be_repeated() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return;
    }
    for at in 1..=7 {
        let cluster = waiting();
        let srpipe = cluster.command(&["run", "p.yaml"]);
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=/rename"]);
        command.arg(format!("--inject=/rename:signal=KILL:when={at}"));
        command.arg(srpipe.get_program()).args(srpipe.get_args());
        command.current_dir(srpipe.get_current_dir().unwrap());
        for (name, value) in srpipe.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        cluster.go();
        Running { child: child.unwrap() }.wait();
        let output = cluster.run(&[]);
        assert_eq!(output.code, Some(0), "killed at rename {at}: {output}");
        assert_done(&cluster.srpipe(&["gc"]));
    }
}

#[test]
fn huge_records_are_refused_with_the_name_of_their_file_and_the_jobs_can_be_cancelled() {
    for name in [".slurm/charter.json", ".slurm/b1.json", "run.json", "pipeline.yaml"] {
        let cluster = detached();
        // The file is sparse, so it takes no space on disk.
        let file = fs::File::options().write(true).open(cluster.run_folder().join(name)).unwrap();
        file.set_len(200 << 30).unwrap();
        let file = name.rsplit('/').next().unwrap();
        for args in [&["gc"][..], &["run", "p.yaml"], &["verify"]] {
            if name == "pipeline.yaml" && args[0] != "verify" {
                continue;
            }
            let output = cluster.srpipe(args);
            let text = output.stdout.clone() + &output.stderr;
            assert!(output.code == Some(1) && text.contains(file), "{name} {args:?}: {output}");
            assert!(text.contains("214748364800 bytes"), "{name} {args:?}: {output}");
        }
        let cancel = cluster.srpipe(&["cancel", &cluster.run_id()]);
        assert!(cancel.code == Some(0) && cluster.state("1.0") == "CANCELLED", "{name}: {cancel}");
    }
}

#[test]
fn following_a_log_ends_with_an_error_if_the_record_is_lost() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 2] =
        [("is missing", |path| fs::remove_file(path).unwrap()), ("is damaged", |path| drop(damage(path)))];
    for (words, change) in changes {
        let cluster = detached();
        wait_until("the stage has a key", || cluster.status()["stages"][0]["state"] == "running");
        let mut logs = cluster.start(&["logs", "wait", "-f"]);
        std::thread::sleep(Duration::from_millis(500));
        assert!(logs.child.try_wait().unwrap().is_none());
        change(&cluster.run_folder().join("run.json"));
        let output = logs.wait();
        assert!(output.code == Some(1) && output.stderr.contains(&format!("run.json {words}")), "{output}");
    }
}
