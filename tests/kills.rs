//! Kills a small pipeline with a `train` stage at random moments: the next run gives the same results as an undisturbed
//! run.
//!
//! `SRPIPE_TEST_KILLS=100 cargo test --test kills` runs a hundred rounds instead of five.

mod common;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use common::{Folder, Pipeline, is_alive, sha256, signal, wait_until};
use serde_json::Value;

fn pipeline() -> Pipeline {
    Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 16, validation: 4, test: 2}")
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage(
            "model",
            "{kind: train, data: pairs, model: {base_channels: 4}, optim: {steps: 150, batch_size: 4}, \
             validation: {every: 50}}",
        )
        .stage("samples", "{kind: sample, model: model, data: pairs, samples: 2, sampler: {steps: 4}}")
        .stage("compare", "{kind: compare, arms: {only: samples}, rows: 1}")
        .stage(
            "count",
            "{kind: command, command: [sh, -c, 'wc -c <{inputs.x} >{outputs.n}'], \
             inputs: {x: samples/samples.safetensors}, outputs: [n]}",
        )
}

/// Returns the digests of all outputs of the latest run, including pictures.
fn results(folder: &Folder) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for stage in ["model", "samples", "compare", "count"] {
        for entry in fs::read_dir(folder.runs().join("p/latest").join(stage)).unwrap().map(|entry| entry.unwrap()) {
            let name = format!("{stage}/{}", entry.file_name().to_str().unwrap());
            found.insert(name, sha256(&fs::read(entry.path()).unwrap()));
        }
    }
    found
}

/// Returns a random number in [0, 1).
fn random() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

#[test]
fn runs_killed_at_random_moments_resume_with_identical_results() {
    let rounds = std::env::var("SRPIPE_TEST_KILLS").map_or(5, |text| text.parse().unwrap());
    let whole = pipeline().folder();
    let start = Instant::now();
    let output = whole.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    let took = start.elapsed();
    let expected = results(&whole);
    assert!(expected.contains_key("compare/summary.json") && expected.contains_key("model/weights.safetensors"));

    for round in 0..rounds {
        let folder = pipeline().folder();
        let run = folder.start(&["run", "p.yaml", "--json"]);
        std::thread::sleep(took.mul_f64(random()));
        let children = run.children();
        // In every third round, kill the stage's process first, and then the run immediately.
        if round % 3 == 2 {
            for pid in &children {
                let _ = signal(*pid, "KILL");
            }
        }
        let mut child = run.child;
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("no process is left", || !children.iter().any(|&pid| is_alive(pid)));
        wait_until("no lock is left", || count_locks(&folder) == 0);

        let again = folder.run(&["--json"]);
        assert_eq!(again.code, Some(0), "round {round}: {again}");
        assert_eq!(results(&folder), expected, "round {round}");
        assert_eq!(folder.srpipe(&["gc", "--keep", "1"]).code, Some(0));
        let verify: Value = serde_json::from_str(&folder.srpipe(&["verify", "--json"]).stdout).unwrap();
        assert_eq!(verify["verified"]["problems"].as_array().map(Vec::len), Some(0), "round {round}: {verify}");
        assert_eq!(verify["verified"]["unreferenced"], 0, "round {round}: {verify}");
        assert_eq!(verify["verified"]["contents"]["unfinished"], 0, "round {round}: {verify}");
        assert_eq!(count_temporary_files(&folder), 0, "round {round}");
        assert_eq!(results(&folder), expected, "round {round}, after gc");
    }
    eprintln!("{rounds} rounds, each killed within {:.1} s", Duration::as_secs_f64(&took));
}

/// Counts the work folders whose lock is held.
fn count_locks(folder: &Folder) -> usize {
    let Ok(entries) = fs::read_dir(folder.runs().join("store/work")) else { return 0 };
    let held = entries.flatten().filter(|entry| {
        let file = fs::File::open(entry.path().join("lock"));
        file.is_ok_and(|file| file.try_lock_shared().is_err())
    });
    held.count()
}

/// Counts the temporary files under `runs`.
fn count_temporary_files(folder: &Folder) -> usize {
    let is_temporary = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().starts_with(".tmp-");
    folder.snapshot().keys().filter(|path| is_temporary(path)).count()
}
