//! End-to-end tests of `srpipe bench`. They do not check speeds.

mod common;

use common::Pipeline;
use serde_json::Value;

/// The arguments for a minimal network. The network itself is not under test.
const TINY: [&str; 9] = ["bench", "--base-channels", "3", "--batch", "2", "--image-size", "8", "--seconds", "0"];

#[test]
fn the_json_contains_the_measurements_and_their_settings() {
    let folder = Pipeline::small().folder();
    for (backend, simd) in [("fused", "portable"), ("composed", "dfdx")] {
        let more = ["--threads", "2", "--attention", "seed", "--backend", backend, "--json"];
        let mut command = folder.command(&[&TINY[..], &more].concat());
        let output = command.env("SRPIPE_SIMD", "portable").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        let number = |name: &str| json[name].as_f64().unwrap_or_else(|| panic!("no {name} in {text}"));
        let (step, per_s) = (number("train_step_ms"), number("train_images_per_s"));
        assert!((step / 1e3 * per_s - 2.0).abs() < 1e-6, "{text}");
        assert!(number("forward_images_per_s") > 0.0 && number("gflops") > 0.0, "{text}");
        if cfg!(target_os = "linux") {
            assert!(number("peak_rss_mib") > 1.0, "{text}");
        }
        assert_eq!((&json["threads"], &json["batch"]), (&2.into(), &2.into()), "{text}");
        assert_eq!((json["simd"].as_str(), json["backend"].as_str()), (Some(simd), Some(backend)), "{text}");
        assert_eq!(json["attention"]["kind"], "seed", "{text}");
        assert_eq!(json["peak_gflops"].is_f64(), backend == "fused", "{text}");
    }
    assert!(!folder.runs().exists());
}

/// Runs the operations that a GPU would use on the CPU, for every kind of network and every prediction type.
#[test]
fn the_composed_operations_agree_with_the_kernels() {
    let folder = Pipeline::small().folder();
    let output = folder.srpipe(&["bench", "--check", "--backend", "composed", "--steps", "3", "--json"]);
    assert_eq!(output.code, Some(0), "{output}");
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&json["agrees"], &json["backend"], &json["device"]), (&true.into(), &"composed".into(), &"cpu".into()));
    let networks = json["networks"].as_array().unwrap();
    assert!(networks.len() >= 7, "{output}");
    // The outputs differ slightly, because the backends sum in different orders.
    assert!(networks.iter().all(|network| network["outputs"].as_f64().unwrap() > 0.0), "{output}");
}

#[test]
fn the_text_contains_speeds_and_estimates() {
    let folder = Pipeline::small().folder();
    let output = folder.srpipe(&TINY);
    assert_eq!(output.code, Some(0), "{output}");
    for text in ["images/s", "peak memory", "1000 optimiser steps", "an epoch of 50,000", "fused kernels ("] {
        assert!(output.stdout.contains(text), "{text} is not in {output}");
    }
}

#[test]
fn invalid_arguments_of_bench_are_reported() {
    let folder = Pipeline::small().folder();
    for (option, value) in
        [("--attention", "sede"), ("--resolutions", "7"), ("--image-size", "30"), ("--threads", "0"), ("--batch", "x")]
    {
        let output = folder.srpipe(&["bench", option, value]);
        assert_eq!(output.code, Some(2), "{output}");
        assert!(output.stderr.contains(option), "{output}");
    }
    let output = folder.srpipe(&["bench", "--device", "gpu"]);
    assert!(output.code == Some(2) && output.stderr.contains("--device"), "{output}");
    #[cfg(not(feature = "cuda"))]
    {
        let output = folder.srpipe(&["bench", "--device", "cuda"]);
        assert!(output.code == Some(2) && output.stderr.contains("--features cuda"), "{output}");
    }
    for command in [&TINY[..], &["run", "p.yaml"]] {
        let mut command = folder.command(command);
        let output = command.env("SRPIPE_SIMD", "avx3").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("SRPIPE_SIMD=avx3") && text.contains("portable"), "{text}");
    }
    assert!(!folder.runs().exists());
}
