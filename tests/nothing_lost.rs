//! Robustness and recovery: concurrent runs, damaged and missing blobs, full disks, read-only stores.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use common::{Folder, Pipeline};
use serde_json::{Value, json};

impl Folder {
    /// Changes the content of the blob behind a link, and returns its path.
    fn change_blob(&self, link: &str, change: impl Fn(&mut Vec<u8>)) -> PathBuf {
        let blob = fs::canonicalize(self.runs().join("p/latest").join(link)).unwrap();
        let mut bytes = fs::read(&blob).unwrap();
        change(&mut bytes);
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, bytes).unwrap();
        blob
    }

    /// Runs the pipeline and returns the states of its stages.
    fn stages(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["--json"], args].concat());
        assert_eq!(output.code, Some(0), "{output}");
        output.finished()["stages"].clone()
    }

    /// Returns the number of blobs in the store.
    fn blobs(&self) -> usize {
        let shards = fs::read_dir(self.runs().join("store/blobs")).unwrap();
        shards.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
    }
}

#[test]
fn four_runs_at_once_compute_each_key_once() {
    // Each execution appends a line to a file outside the store.
    let folder = Pipeline::new().folder();
    let count = |name: &str, inputs: &str| {
        let log = folder.path().join("count");
        let script = format!("echo {name} >>{}; sleep 0.1; echo {name} >{{outputs.o}}", log.display());
        format!("  {name}: {{kind: command, command: [sh, -c, '{script}'], inputs: {inputs}, outputs: [o]}}\n")
    };
    let stages = [count("a", "{}"), count("b", "{}"), count("c", "{x: a, y: b/o}"), count("d", "{x: c}")].concat();
    folder.write("p.yaml", format!("name: p\nstages:\n{stages}"));
    let runs: Vec<_> = (0..4).map(|_| folder.start(&["run", "p.yaml", "--json"])).collect();
    let outputs: Vec<_> = runs.into_iter().map(|run| run.wait()).collect();
    for output in &outputs {
        assert_eq!((output.code, &output.finished()["state"]), (Some(0), &json!("ok")), "{output}");
    }
    let mut counted: Vec<String> =
        fs::read_to_string(folder.path().join("count")).unwrap().lines().map(str::to_string).collect();
    counted.sort();
    assert_eq!(counted, ["a", "b", "c", "d"]);
    assert!(fs::read_dir(folder.runs().join("store/work")).unwrap().next().is_none(), "work is cleaned up");
}

#[test]
fn a_damaged_blob_is_detected_and_recomputed() {
    let folder = Pipeline::small().folder();
    let all_cached = json!({"images": "cached", "pairs": "cached", "others": "cached"});
    folder.run(&[]);
    // The blob is modified without changing its length, truncated, and (below) removed.
    let changes: [fn(&mut Vec<u8>); 2] = [|bytes| *bytes.last_mut().unwrap() ^= 1, |bytes| bytes.truncate(9)];
    for change in changes {
        let blob = folder.change_blob("pairs/train_lr.safetensors", change);
        let output = folder.run(&["--json"]);
        assert_eq!(output.finished()["stages"]["pairs"], "ran", "{output}");
        assert!(output.stdout.contains("its result is damaged: train_lr.safetensors"), "{output}");
        assert_eq!(folder.stages(&[]), all_cached);
        assert!(blob.is_file());
    }
    let blob = fs::canonicalize(folder.runs().join("p/latest/images/test_hr.safetensors")).unwrap();
    fs::remove_file(&blob).unwrap();
    let output = folder.run(&["--json"]);
    assert_eq!(output.code, Some(0), "{output}");
    assert!(output.stdout.contains("test_hr.safetensors is missing"), "{output}");
    assert!(blob.is_file());
    assert_eq!(folder.stages(&[]), all_cached);
}

#[test]
fn verify_finds_unread_damage_and_the_next_run_repairs_it() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let good = folder.srpipe(&["verify"]);
    assert_eq!(good.code, Some(0), "{good}");
    assert!(good.stdout.contains("store: 3 results in ") && good.stdout.contains("all results are intact"), "{good}");
    // Silent disk corruption does not change the modification time.
    let blob = fs::canonicalize(folder.runs().join("p/latest/pairs/test_lr.safetensors")).unwrap();
    let time = fs::metadata(&blob).unwrap().modified().unwrap();
    folder.change_blob("pairs/test_lr.safetensors", |bytes| *bytes.last_mut().unwrap() ^= 1);
    fs::File::open(&blob).unwrap().set_modified(time).unwrap();
    assert!(folder.run(&[]).stdout.starts_with("nothing to do"));
    let bad = folder.srpipe(&["verify"]);
    assert_eq!(bad.code, Some(1), "{bad}");
    assert!(bad.stdout.contains("damaged: p/pairs: test_lr.safetensors is damaged"), "{bad}");
    let json: Value = serde_json::from_str(&folder.srpipe(&["verify", "--json"]).stdout).unwrap();
    assert_eq!(json["verified"]["problems"][0]["problem"], "damaged", "{json}");
    assert_eq!(folder.stages(&[])["pairs"], "ran");
    assert_eq!(folder.srpipe(&["verify"]).code, Some(0));
}

#[test]
fn half_written_files_are_not_results() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let store = folder.runs().join("store");
    // Truncate every action to half its length, and leave a half-written blob, an empty run record and half a stat
    // cache.
    for shard in fs::read_dir(store.join("actions")).unwrap() {
        for action in fs::read_dir(shard.unwrap().path()).unwrap() {
            let path = action.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    let why = folder.srpipe(&["why", "p.yaml", "images"]);
    assert!(
        why.stdout.contains("images reruns: it ran before, but its record or a blob is missing or damaged"),
        "{why}"
    );
    fs::write(store.join("blobs/.tmp-half"), b"ha").unwrap();
    fs::write(store.join("stat-cache.json"), b"{\"half").unwrap();
    let damaged = fs::canonicalize(folder.runs().join("p/latest")).unwrap();
    fs::write(damaged.join("run.json"), b"").unwrap();
    assert_eq!(folder.srpipe(&["status"]).code, Some(0));
    assert_eq!(folder.srpipe(&["verify"]).code, Some(1));
    assert_eq!(folder.stages(&[]), json!({"images": "ran", "pairs": "ran", "others": "ran"}));
    let verified = folder.srpipe(&["verify"]);
    assert_eq!(verified.code, Some(1), "{verified}");
    assert!(
        verified.stdout.contains("run.json is damaged") && verified.stdout.contains("remove the folder"),
        "{verified}"
    );
    fs::remove_dir_all(damaged).unwrap();
    assert_eq!(folder.srpipe(&["verify"]).code, Some(0));
    assert_eq!(folder.srpipe(&["gc"]).code, Some(0));
    assert!(!store.join("blobs/.tmp-half").exists());
}

#[test]
fn a_full_disk_is_reported_and_the_next_run_resumes() {
    let folder = Pipeline::small().folder();
    // Limit the size of files, which fails like a full disk except for the error code.
    let limited = format!(
        "trap '' XFSZ; ulimit -f 8; exec {} run p.yaml --json --set stages.images.train=64",
        env!("CARGO_BIN_EXE_srpipe")
    );
    let output = std::process::Command::new("sh").args(["-c", &limited]).current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("writing ") && text.contains("File too large"), "{text}");
    assert_eq!(folder.stages(&["--set", "stages.images.train=64"])["others"], "ran");
    let gc = folder.srpipe(&["gc", "--json"]);
    let gc: Value = serde_json::from_str(&gc.stdout).unwrap();
    assert_eq!((&gc["removed"]["blobs"], &gc["removed"]["temporaries"]), (&json!(0), &json!(0)), "{gc}");
}

#[test]
fn gc_keeps_what_runs_need() {
    let folder = Pipeline::small().folder();
    let run = |train: &str| {
        let output = folder.run(&["--json", "--set", &format!("stages.images.train={train}")]);
        output.finished()["run"].as_str().unwrap().to_string()
    };
    let runs: Vec<String> = ["5", "6", "7"].map(run).into();
    let pin = folder.srpipe(&["pin", &runs[0]]);
    assert_eq!(pin.code, Some(0), "{pin}");
    let before = folder.snapshot();
    let dry = folder.srpipe(&["gc", "--keep", "1", "--dry-run"]);
    assert!(dry.stdout.contains(&format!("run p/{}", runs[1])) && dry.stdout.contains("would remove 1 run"), "{dry}");
    let changed = |folder: &Folder| {
        let mut now = folder.snapshot();
        now.retain(|path, _| !path.ends_with("gc.lock"));
        let mut then = before.clone();
        then.retain(|path, _| !path.ends_with("gc.lock"));
        now != then
    };
    assert!(!changed(&folder));
    let all = folder.blobs();
    assert_eq!(folder.srpipe(&["gc", "--keep", "1"]).code, Some(0));
    assert!(changed(&folder) && folder.blobs() < all);
    for (train, state) in [("5", "cached"), ("7", "cached"), ("6", "would_run")] {
        let set = ["status", "p.yaml", "--json", "--set", &format!("stages.images.train={train}")];
        let status: Value = serde_json::from_str(&folder.srpipe(&set).stdout).unwrap();
        assert_eq!(status["stages"][0]["state"], state, "{train}: {status}");
    }
    assert_eq!(folder.srpipe(&["unpin", &runs[0]]).code, Some(0));
    folder.srpipe(&["gc", "--max-size", "1 kB"]);
    let status = folder.srpipe(&["status"]);
    assert!(status.stdout.contains("store: 3 results in "), "{status}");
    assert_eq!(folder.srpipe(&["gc", "--max-size", "many"]).code, Some(2));
}

#[test]
fn a_read_only_store_is_reported() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    if is_root() {
        // Root ignores permissions; the store's own test runs as another user.
        return;
    }
    fs::set_permissions(folder.runs().join("store"), fs::Permissions::from_mode(0o555)).unwrap();
    assert!(folder.run(&[]).stdout.starts_with("nothing to do"));
    let output = folder.run(&["--set", "stages.images.train=9"]);
    fs::set_permissions(folder.runs().join("store"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("is not writable"), "{output}");
}

fn is_root() -> bool {
    std::process::Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

#[test]
fn links_in_runs_are_not_followed() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("run.json"), b"{}").unwrap();
    symlink(&outside, folder.runs().join("elsewhere")).unwrap();
    symlink(&outside, folder.runs().join("p/20200101-000000.000-aaaa")).unwrap();
    symlink("/dev/zero", folder.runs().join("store/blobs/zero")).unwrap();
    symlink(&outside, folder.runs().join("store/work/link")).unwrap();
    for args in [&["status"][..], &["status", "elsewhere"], &["verify"], &["gc", "--keep", "1"], &["run", "p.yaml"]] {
        let output = folder.srpipe(args);
        assert!(matches!(output.code, Some(0..=2)) && !output.stderr.contains("panicked"), "{args:?} {output}");
    }
    assert!(outside.join("run.json").exists());
    // If the pipeline's folder is a link, its runs would be written outside `runs`.
    fs::remove_dir_all(folder.runs().join("p")).unwrap();
    symlink(&outside, folder.runs().join("p")).unwrap();
    let output = folder.run(&["--set", "stages.images.train=9"]);
    assert_ne!(output.code, Some(0), "{output}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{output}");
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    // Set all modification times except those of blobs to the future.
    for (path, _) in folder.snapshot() {
        let is_blob = path.components().any(|part| part.as_os_str() == "blobs");
        if path.is_file() && !path.is_symlink() && !is_blob {
            let times = std::time::SystemTime::now() + std::time::Duration::from_secs(1_000_000);
            fs::File::options().append(true).open(&path).unwrap().set_modified(times).unwrap();
        }
    }
    assert!(folder.run(&[]).stdout.starts_with("nothing to do"));
    assert_eq!(folder.srpipe(&["status", "p.yaml"]).code, Some(0));
}
