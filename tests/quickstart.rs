//! Checks the results of the quickstart. `cargo test` skips this, because it trains three models; `.ci/run` runs it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The summary of the quickstart on x86-64 Linux with FMA.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/quickstart_summary.json");

/// Runs the quickstart in the repository as described in the README, with another folder for the results; returns
/// stdout.
fn quickstart(runs: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_srpipe"));
    command.args(["run", "pipelines/quickstart.yaml"]).env("SRPIPE_RUNS", runs);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    print!("{stdout}");
    stdout.into_owned()
}

#[test]
#[ignore = "takes a minute or two: cargo test --release --test quickstart -- --ignored"]
fn the_mean_of_every_arm_has_a_higher_psnr_than_bicubic_enlargement() {
    let runs = tempfile::tempdir().unwrap();
    quickstart(runs.path());
    let bytes = std::fs::read(runs.path().join("quickstart/latest/compare/summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&bytes).unwrap();
    let arms = summary["arms"].as_object().unwrap();
    assert_eq!(arms.keys().collect::<Vec<_>>(), ["attention", "baseline", "bicubic", "regression"]);
    let psnr = |arm: &str| arms[arm]["psnr_mean"].as_f64().unwrap();
    for arm in ["attention", "baseline", "regression"] {
        assert!(psnr(arm) > psnr("bicubic"), "{arm}: {} dB, bicubic: {} dB", psnr(arm), psnr("bicubic"));
    }
    assert_eq!((&summary["samples"], &arms["regression"]["samples"]), (&8.into(), &1.into()));
    assert_golden(&bytes, &summary);
    let again = quickstart(runs.path());
    assert!(again.starts_with("nothing to do: all 9 stages are cached\n"), "{again}");
}

/// Compares the summary with the golden one. The kernels give the same bits with every instruction set, so machines
/// differ only in the C library's `exp` and similar functions. With the C library of the golden summary, every byte
/// must match; elsewhere, every number within 2 %, or within 0.02 near zero.
fn assert_golden(bytes: &[u8], summary: &Value) {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quickstart_summary.json");
    std::fs::write(&copy, bytes).unwrap();
    let golden = std::fs::read(GOLDEN).unwrap();
    let remedy = format!("if this is intended: cp {} {GOLDEN}", copy.display());
    assert_close(summary, &serde_json::from_slice(&golden).unwrap(), "summary", &remedy);
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    if is_x86_feature_detected!("fma") {
        assert!(bytes == golden, "the summary's bytes changed; {remedy}");
    }
}

/// Fails unless two values are equal up to small differences between numbers.
fn assert_close(a: &Value, b: &Value, path: &str, remedy: &str) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{path}; {remedy}");
            a.iter().for_each(|(key, a)| assert_close(a, &b[key], &format!("{path}.{key}"), remedy));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}; {remedy}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| assert_close(a, b, &format!("{path}[{i}]"), remedy));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 0.02 * b.abs().max(1.0), "{path}: expected {b}, found {a}; {remedy}");
        }
        _ => assert_eq!(a, b, "{path}; {remedy}"),
    }
}
