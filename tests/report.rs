//! The report that each run writes, and `srpipe report`.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Folder, Pipeline};

const MODEL: &str = "kind: train, data: pairs, model: {base_channels: 4, channel_mults: [1]}, \
                     optim: {steps: 4, batch_size: 4}, validation: {every: 2, images: 4}";

/// Returns a pipeline that compares two tiny models, with a claim.
fn compared_models() -> Pipeline {
    Pipeline::small()
        .stage("one", &format!("{{{MODEL}}}"))
        .stage("two", &format!("{{{MODEL}, diffusion: {{objective: regression}}}}"))
        .stage("draw_one", "{kind: sample, model: one, data: pairs, samples: 2, sampler: {steps: 2}}")
        .stage("draw_two", "{kind: sample, model: two, data: pairs}")
        .stage(
            "compare",
            "{kind: compare, arms: {first: draw_one, second: draw_two}, \
             claims: {better: {arm: second, control: bicubic, endpoint: psnr_mean}}}",
        )
}

/// Returns the path of the latest report.
fn latest_report(folder: &Folder) -> PathBuf {
    folder.runs().join("p/latest/report.html")
}

#[test]
fn a_run_writes_a_report_with_every_arm_and_escaped_names() {
    let folder = compared_models().folder();
    let output = folder.run(&["--set", "description=<b>so</b>"]);
    assert_eq!(output.code, Some(0), "{output}");
    assert!(output.stdout.contains("runs/p/latest/report.html\n"), "{output}");
    let page = fs::read_to_string(latest_report(&folder)).unwrap();
    assert!(page.len() < 1_000_000, "{}", page.len());
    assert!(page.contains("&lt;b&gt;so&lt;") && !page.contains("<b>so</b>"));
    // 4 test images per column; the arms also show further views of each.
    assert_eq!(page.matches("alt=\"HR, image ").count(), 4);
    assert_eq!(page.matches("alt=\"first, image ").count(), 4 * 6);
    assert_eq!(page.matches("alt=\"second, image ").count(), 4 * 2);
    for part in ["Tested claim: second is better than bicubic", "inconclusive", "id=\"losses\"", "id=\"spectra-1\""] {
        assert!(page.contains(part), "{part}");
    }
    let key = folder.srpipe(&["status", "p", "--json"]);
    let key: serde_json::Value = serde_json::from_str(&key.stdout).unwrap();
    assert!(page.contains(key["stages"][0]["key"].as_str().unwrap()));

    // Rewriting the report gives the same bytes, on stdout and in a file.
    let again = folder.srpipe(&["report", "p.yaml", "-o", "-"]);
    assert!(again.stdout == page, "{}", again.stderr);
    let of_folder = folder.srpipe(&["report", "runs/p/latest", "-o", "-"]);
    assert!(of_folder.stdout == page, "{}", of_folder.stderr);
    assert_eq!(folder.srpipe(&["report", "-o", "out.html"]).stdout, "out.html\n");
    assert!(fs::read_to_string(folder.path().join("out.html")).unwrap() == page);
}

#[test]
fn the_report_of_a_run_without_a_comparison_shows_samples() {
    let folder = Pipeline::small()
        .stage("one", &format!("{{{MODEL}}}"))
        .stage("draw", "{kind: sample, model: one, data: pairs, samples: 2, sampler: {steps: 2}}")
        .folder();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    let page = fs::read_to_string(latest_report(&folder)).unwrap();
    for part in
        ["This pipeline has no <code>compare</code> stage", "id=\"arms-1\"", "id=\"spectra-1\"", "id=\"losses\""]
    {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("alt=\"draw, image ").count(), 4 * 6);
    assert!(!page.contains("id=\"verdicts-1\""));
}

#[test]
fn the_report_of_a_failed_run_shows_the_available_results() {
    let folder = Pipeline::small()
        .stage("bad", "{kind: command, command: [sh, -c, 'echo <so> it goes >&2; exit 3'], outputs: [x]}")
        .folder();
    let output = folder.run(&["--keep-going", "--json"]);
    assert_eq!(output.code, Some(1), "{output}");
    let page = fs::read_to_string(latest_report(&folder)).unwrap();
    assert!(page.contains("id=\"failures\"") && page.contains("&lt;so&gt; it goes"), "the log of what failed");
    assert_eq!(page.matches("class=\"node ").count(), 4);
}

#[test]
fn a_report_can_be_opened_and_missing_runs_are_errors() {
    let folder = Pipeline::small().folder();
    let none = folder.srpipe(&["report"]);
    assert_eq!(none.code, Some(2), "{none}");
    assert!(none.stderr.contains("srpipe run"), "{none}");
    folder.run(&[]);
    let unknown = folder.srpipe(&["report", "nothing"]);
    assert_eq!(unknown.code, Some(2), "{unknown}");

    let opened = |browser: &str| {
        let output = folder.command(&["report", "p", "--open"]).env("BROWSER", browser).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(opened("true"), (Some(0), String::new()));
    for browser in ["false", "/no/such/browser"] {
        let (code, error) = opened(browser);
        assert!(code == Some(1) && error.contains("by hand") && error.contains("report.html"), "{error}");
    }
}

#[test]
fn a_report_of_damaged_results_is_refused() {
    let folder = Pipeline::small()
        .stage("sample", "{kind: sample, model: net, data: pairs, sampler: {steps: 2}}")
        .stage("net", "{kind: train, data: pairs, model: {base_channels: 8, channel_mults: [1]}, optim: {steps: 1}}")
        .stage("compare", "{kind: compare, arms: {only: sample}, rows: 1}")
        .folder();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    let page = folder.runs().join("p/latest/report.html");
    let before = std::fs::read(&page).unwrap();
    // Damage the file without changing its size and modification time.
    let blob = std::fs::canonicalize(folder.runs().join("p/latest/compare/summary.json")).unwrap();
    let time = std::fs::metadata(&blob).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[50] ^= 1;
    std::fs::set_permissions(&blob, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&blob, bytes).unwrap();
    std::fs::File::open(&blob).unwrap().set_modified(time).unwrap();
    let output = folder.srpipe(&["report", "p"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("are damaged") && output.stderr.contains("srpipe verify"), "{output}");
    assert_eq!(std::fs::read(&page).unwrap(), before, "the previous report is unchanged");
    folder.srpipe(&["verify"]);
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    assert_eq!(folder.srpipe(&["report", "p"]).code, Some(0));
}

#[test]
fn logs_are_printed_in_chunks_without_splitting_characters() {
    // Two-byte characters starting at an odd offset, so that a chunk ends in the middle of a character.
    let script = "printf x; yes é | tr -d '\\\\n' | head -c 3000000; exit 3";
    let stage = format!("{{kind: command, command: [sh, -c, \"{script}\"], outputs: [o]}}");
    let folder = Pipeline::new().stage("long", &stage).folder();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(1), "{output}");
    let log = folder.srpipe(&["logs", "long"]).stdout;
    let text = format!("x{}", "é".repeat(1_500_000));
    assert!(log.starts_with(&text), "{} bytes", log.len());
    let page = std::fs::metadata(folder.runs().join("p/latest/report.html")).unwrap();
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}
