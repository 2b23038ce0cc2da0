//! Altering one byte of a file under `runs` never changes a result: the next run gives the same results or reports the
//! damaged file.
//!
//! `SRPIPE_TEST_FLIPS=20` alters 20 bytes of each file instead of one.

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Folder, Pipeline, wait_until};
use serde_json::Value;

fn pipeline() -> Folder {
    let train = "{kind: train, data: pairs, model: {base_channels: 8, channel_mults: [1, 2]}, \
                 optim: {steps: 12, batch_size: 2}}";
    let sample = "{kind: sample, model: model, data: pairs, sampler: {steps: 2}}";
    let files =
        "{kind: command, command: [sh, -c, 'wc -c <script.txt >{outputs.o}'], outputs: [o], files: [script.txt]}";
    let folder = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 8, validation: 4, test: 2}")
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage("model", train)
        .stage("samples", sample)
        .stage("compare", "{kind: compare, arms: {only: samples}, rows: 1}")
        .stage("files", files)
        .folder();
    folder.write("script.txt", "some text");
    folder
}

/// Returns the outputs of every stage and the metrics of the run.
fn results(folder: &Folder) -> (BTreeMap<String, BTreeMap<String, String>>, Value) {
    let stages = ["images", "pairs", "model", "samples", "compare", "files"];
    let digests = stages.map(|stage| (stage.to_string(), folder.digests(stage)));
    let status = folder.srpipe(&["status", "p", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).expect(&status.stdout);
    let stages = status["stages"].as_array().unwrap().iter();
    let figures = stages.map(|stage| {
        let mut figures = stage["metrics"].clone();
        // Throughput differs between runs.
        if let Some(figures) = figures.as_object_mut() {
            figures.retain(|name, _| !name.ends_with("_per_s") && name != "data_wait");
        }
        (stage["name"].as_str().unwrap().to_string(), figures)
    });
    (digests.into(), Value::Object(figures.collect()))
}

/// Returns the non-empty files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut unvisited = vec![folder.to_path_buf()];
    while let Some(path) = unvisited.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            unvisited.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if metadata.is_file() && metadata.len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Flips random bits, one at a time, in every file in the subfolder `below` of the `runs` of `prepared`, and runs the
/// pipeline after each.
fn flip_bits(prepared: &Folder, below: &str, expected: &(BTreeMap<String, BTreeMap<String, String>>, Value)) {
    let flips: u64 = std::env::var("SRPIPE_TEST_FLIPS").map_or(1, |text| text.parse().unwrap());
    let folder = pipeline();
    std::fs::copy(prepared.path().join("p.yaml"), folder.path().join("p.yaml")).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut tried = 0;
    for path in files(&prepared.runs().join(below)) {
        for _ in 0..flips {
            let _ = std::fs::remove_dir_all(folder.runs());
            let copied = Command::new("cp").arg("-a").args([prepared.runs(), folder.runs()]).status().unwrap();
            assert!(copied.success());
            let relative = path.strip_prefix(prepared.runs()).unwrap();
            let path = folder.runs().join(relative);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (at, bit) = ((random >> 33) as usize % bytes.len(), random >> 29 & 7);
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, bytes).unwrap();
            tried += 1;
            let what = format!("bit {bit} of byte {at} of {}", relative.display());
            let output = folder.run(&[]);
            assert!(!output.stderr.contains("panicked"), "{what}: {output}");
            if output.code == Some(0) {
                assert_eq!(&results(&folder), expected, "{what}: {output}");
            } else {
                assert!(output.stderr.contains(relative.file_name().unwrap().to_str().unwrap()), "{what}: {output}");
            }
        }
    }
    println!("{tried} flips");
}

#[test]
fn altered_bytes_of_a_finished_run_change_no_result() {
    let folder = pipeline();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    // A digest is cached only if the file has not changed for two seconds.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    folder.run(&[]);
    assert!(folder.runs().join("store/stat-cache.json").exists());
    let expected = results(&folder);
    flip_bits(&folder, "", &expected);
}

#[test]
fn altered_bytes_of_an_interrupted_run_change_no_result() {
    let folder = pipeline();
    let yaml = std::fs::read_to_string(folder.path().join("p.yaml")).unwrap().replace("steps: 12,", "steps: 400,");
    folder.write("p.yaml", &yaml);
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    let expected = results(&folder);
    std::fs::remove_dir_all(folder.runs()).unwrap();
    // Interrupted training saves a snapshot.
    let run = folder.start(&["run", "p.yaml"]);
    let work = folder.runs().join("store/work");
    let has_begun = |path: &PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"steps\""));
    wait_until("training is running", || work.is_dir() && files(&work).iter().any(has_begun));
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert!(files(&work).iter().any(|path| path.ends_with("snapshot.safetensors")));
    flip_bits(&folder, "store/work", &expected);
}
