//! Sharing of results: exported archives and shared caches.

#[path = "sharing/caches.rs"]
mod caches;
mod common;
#[path = "sharing/hostile_archives.rs"]
mod hostile_archives;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::{Folder, Output, Pipeline, sealed, wait_until};
use serde_json::json;

#[test]
fn an_existing_file_is_overwritten_only_with_force() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let file = folder.path().join("p.tar");
    std::fs::write(&file, "other content").unwrap();
    let refused = folder.srpipe(&["export", "p", "p.tar"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("p.tar already exists: overwrite it with --force"), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), b"other content");
    assert_eq!(folder.srpipe(&["export", "p", "p.tar", "--force"]).code, Some(0));
    assert!(std::fs::read(&file).unwrap().len() > 1000);
}

#[test]
fn a_run_is_exported_and_imported() {
    for name in ["run.tar", "run.tar.gz"] {
        let from = Pipeline::small().folder();
        from.run(&[]);
        let export = from.srpipe(&["export", "p", name]);
        assert_eq!(export.code, Some(0), "{export}");
        assert!(export.stdout.contains("3 results in "), "{export}");
        let to = Pipeline::small().folder();
        fs::copy(from.path().join(name), to.path().join(name)).unwrap();
        let import = to.srpipe(&["import", name]);
        assert_eq!(import.code, Some(0), "{import}");
        assert!(to.runs().join("p/latest/pairs/test_lr.safetensors").is_file());
        assert!(to.run(&[]).stdout.starts_with("nothing to do"));
        assert_eq!(to.srpipe(&["verify"]).code, Some(0));
        // Importing again has no effect.
        assert_eq!(to.srpipe(&["import", name]).code, Some(0));
        assert_eq!(to.srpipe(&["status", "p"]).code, Some(0));
    }
    let folder = Pipeline::small().folder();
    assert_eq!(folder.srpipe(&["export", "p", "x.tar"]).code, Some(2));
    assert_eq!(folder.srpipe(&["import", "none.tar"]).code, Some(2));
}

/// The name and content of a file in an archive.
type Entry = (String, Vec<u8>);

/// Returns the entries of an archive, in order.
fn entries(archive: &Path) -> Vec<Entry> {
    let mut tar = tar::Archive::new(fs::File::open(archive).unwrap());
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_string(), bytes)
    });
    entries.collect()
}

/// Returns an archive of these entries, whatever their names.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Write the name directly, as an attacker would: the library refuses such names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Returns the runs that `runs` and `status` list, and the names of the folders in `runs`.
fn listed_runs(folder: &Folder) -> (serde_json::Value, serde_json::Value, Vec<String>) {
    let json = |args: &[&str], field: &str| {
        let output = folder.srpipe(args);
        serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))[field]
            .take()
    };
    let entries = fs::read_dir(folder.runs()).into_iter().flatten().map(|entry| entry.unwrap());
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let names = names.filter(|name| name != "store" && name != "CACHEDIR.TAG").collect();
    (json(&["runs", "--json"], "runs"), json(&["status", "--json"], "pipelines"), names)
}

#[test]
fn importing_a_run_is_atomic() {
    let from = Pipeline::small().folder();
    from.run(&[]);
    from.srpipe(&["export", "p", "good.tar"]);
    let good = entries(&from.path().join("good.tar"));
    let run = good.iter().position(|(name, _)| name == "run/run.json").unwrap();
    let text = String::from_utf8(good[run].1.clone()).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let id = record["id"].as_str().unwrap();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        let mut entries = good.clone();
        entries[run].1 = sealed(&text.replacen(from, to, 1));
        archive(&entries)
    };
    let stage = |to: &str| changed("\"name\": \"pairs\"", &format!("\"name\": \"{to}\""));
    let pipeline = |to: &str| changed("\"pipeline\": \"p\"", &format!("\"pipeline\": \"{to}\""));
    let long = "x".repeat(300);
    for (what, bytes) in [
        ("a run called latest", changed(id, "latest")),
        ("a malformed run id", changed(id, "20200101")),
        ("a hidden run folder", changed(id, ".tmp-x")),
        ("a stage called run.json", stage("run.json")),
        ("a stage called RUN.JSON", stage("RUN.JSON")),
        ("a stage called pipeline.yaml", stage("pipeline.yaml")),
        ("a stage called report.html", stage("report.html")),
        ("a stage of 300 characters", stage(&long)),
        ("a hidden stage", stage(".lock")),
        ("two stages of one name", stage("images")),
        ("a pipeline called store", pipeline("store")),
        ("a pipeline called latest", pipeline("latest")),
        ("a pipeline of 300 characters", pipeline(&long)),
        ("a pipeline called ..", pipeline("..")),
    ] {
        let to = Pipeline::small().folder();
        to.write("bad.tar", bytes);
        let output = to.srpipe(&["import", "bad.tar"]);
        assert_eq!(output.code, Some(1), "{what}: {output}");
        assert_eq!(listed_runs(&to), (json!([]), json!([]), vec![]), "{what}");
        // The failed import does not prevent a later run.
        assert_eq!(to.run(&["--only", "images"]).code, Some(0), "{what}");
    }
    // An existing folder with the run's name is not a run, and is kept.
    let to = Pipeline::small().folder();
    fs::create_dir_all(to.runs().join("p").join(id).join("mine")).unwrap();
    fs::copy(from.path().join("good.tar"), to.path().join("good.tar")).unwrap();
    assert_eq!(to.srpipe(&["import", "good.tar"]).code, Some(1));
    assert_eq!(fs::read_dir(to.runs().join("p")).unwrap().count(), 1);
    assert_eq!(listed_runs(&to).0, json!([]));
}

#[test]
fn an_imported_run_has_ended_and_its_stage_names_may_be_similar() {
    let from = Pipeline::small().folder();
    from.run(&[]);
    from.srpipe(&["export", "p", "good.tar"]);
    let mut entries = entries(&from.path().join("good.tar"));
    let run = entries.iter().position(|(name, _)| name == "run/run.json").unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&entries[run].1).unwrap();
    record["state"] = json!("running");
    record["executor"] = json!("slurm");
    let stages = record["stages"].as_array_mut().unwrap();
    stages[0]["state"] = json!("running");
    stages[0]["job"] = json!({"id": "7", "node": "n1"});
    stages[1]["state"] = json!("pending");
    let names = ["a", "A", "\u{e9}", "e\u{301}"];
    for name in names {
        let mut stage = stages[2].clone();
        stage["name"] = json!(name);
        stages.push(stage);
    }
    record.as_object_mut().unwrap().remove("sha256");
    entries[run].1 = sealed(&record.to_string());
    let to = Pipeline::small().folder();
    to.write("left.tar", archive(&entries));
    assert_eq!(to.srpipe(&["import", "left.tar"]).code, Some(0));
    let status = to.srpipe(&["status", "p", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["run"]["state"], "interrupted", "{status}");
    let states: Vec<&str> = status["stages"].as_array().unwrap().iter().map(|s| s["state"].as_str().unwrap()).collect();
    assert_eq!(states[..2], ["interrupted", "skipped"]);
    assert_eq!(status["stages"][0]["job"], json!(null));
    let folder = to.runs().join("p/latest");
    for name in names {
        assert!(folder.join(name).join("train_lr.safetensors").is_file(), "{name}");
    }
    assert_eq!(to.srpipe(&["gc"]).code, Some(0));
    assert_eq!(to.run(&[]).code, Some(0));
}

#[test]
fn permissions_of_shared_files_follow_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Pipeline::small().folder();
    let shared = folder.path().join("shared");
    for (umask, file, blob) in [("077", 0o600, 0o400), ("027", 0o640, 0o440), ("022", 0o644, 0o444)] {
        let _ = fs::remove_dir_all(&shared);
        // An existing file would keep its permissions when it is replaced.
        let _ = fs::remove_file(folder.path().join("x.tar"));
        let script =
            format!("umask {umask}; \"$0\" run p.yaml && \"$0\" export p x.tar && SRPIPE_REMOTE=shared \"$0\" push p");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_srpipe")]).current_dir(folder.path());
        let output = command.env_remove("SRPIPE_RUNS").env("XDG_CONFIG_HOME", folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("x.tar")), file, "{umask}");
        for kind in ["blobs", "actions"] {
            for shard in fs::read_dir(shared.join(kind)).unwrap() {
                for entry in fs::read_dir(shard.unwrap().path()).unwrap() {
                    assert_eq!(mode(&entry.unwrap().path()), blob, "{umask}");
                }
            }
        }
    }
}
