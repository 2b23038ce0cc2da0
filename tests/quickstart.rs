//! The quickstart's results. It trains three models, so a plain `cargo test` leaves it out; `.ci/run` does not.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// In the folder of the repository, as the README says it, but for the results.
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
fn the_mean_of_every_arm_is_nearer_to_the_images_than_bicubic_enlargement() {
    let runs = tempfile::tempdir().unwrap();
    quickstart(runs.path());
    let summary = std::fs::read(runs.path().join("quickstart/latest/compare/summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    let arms = summary["arms"].as_object().unwrap();
    assert_eq!(arms.keys().collect::<Vec<_>>(), ["attention", "baseline", "bicubic", "regression"]);
    let psnr = |arm: &str| arms[arm]["psnr_mean"].as_f64().unwrap();
    for arm in ["attention", "baseline", "regression"] {
        assert!(psnr(arm) > psnr("bicubic"), "{arm}: {} dB, bicubic: {} dB", psnr(arm), psnr("bicubic"));
    }
    assert_eq!((&summary["samples"], &arms["regression"]["samples"]), (&8.into(), &1.into()));
    let again = quickstart(runs.path());
    assert!(again.starts_with("everything is known: 9 stages cached\n"), "{again}");
}
