//! End-to-end tests of sweeps and of the output about them.

mod common;

use common::{Folder, Pipeline};
use serde_json::Value;

/// Returns a pipeline with a sweep over four tiny training runs.
fn pipeline() -> Folder {
    Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 8, validation: 4, test: 4}")
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage(
            "model",
            "{kind: train, data: pairs, model: {base_channels: 2}, optim: {steps: 1, batch_size: 2}, \
             matrix: {optim.lr: [1e-3, 0.002], seed: [0, 1]}}",
        )
        .stage("samples", "{kind: sample, model: model, data: pairs, samples: 1, sampler: {steps: 1}}")
        .stage("compare", "{kind: compare, arms: {model: samples}, rows: 1}")
        .folder()
}

/// Runs srpipe and parses its JSON output.
fn json(folder: &Folder, args: &[&str]) -> Value {
    let output = folder.srpipe(args);
    assert_eq!(output.code, Some(0), "{output}");
    let value: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"));
    assert_eq!(value["schema"], 1, "{value}");
    value
}

#[test]
fn a_sweep_is_planned_run_and_compared() {
    let folder = pipeline();
    let plan = folder.srpipe(&["plan", "p.yaml"]);
    assert!(
        plan.stdout.ends_with("8 instances, 3 shared, 0 cached, no time estimate: no similar stage has run before\n"),
        "{plan}"
    );
    assert!(!folder.runs().exists(), "a plan writes nothing");
    let run = folder.run(&[]);
    assert_eq!(run.code, Some(0), "{run}");
    assert!(run.stdout.contains(" ± "), "{run}");
    let latest = folder.runs().join("p/latest");
    assert!(latest.join("samples[lr=2e-3,seed=1]/samples.safetensors").is_file());
    let summary: Value = serde_json::from_slice(&std::fs::read(latest.join("compare/summary.json")).unwrap()).unwrap();
    let arm = &summary["arms"]["model[lr=1e-3]"];
    let seeds = ["0", "1"].map(|seed| arm["seeds"][seed]["psnr_mean"].as_f64().unwrap());
    assert!((arm["psnr_mean"].as_f64().unwrap() - (seeds[0] + seeds[1]) / 2.0).abs() < 1e-12, "{summary}");
    assert!(arm["psnr_mean_sd"].is_number() && arm["axes"]["lr"] == "1e-3", "{summary}");
    let metrics = std::fs::read_to_string(latest.join("compare/metrics.csv")).unwrap();
    assert!(metrics.starts_with("image,split,arm,seed,training,lr,psnr_sample,"), "{metrics}");
    // A header, and four images for each of five rows: two arms with two seeds, and bicubic.
    assert_eq!(metrics.lines().count(), 1 + 4 * 5);

    // The stored resolved pipeline and the same sweep on the command line give the same stages.
    let resolved = latest.join("pipeline.yaml");
    let again = folder.srpipe(&["run", resolved.to_str().unwrap()]);
    assert!(again.stdout.starts_with("nothing to do: all 11 stages are cached\n"), "{again}");
    let flags = ["--sweep", "stages.model.optim.lr=0.001,2e-3", "--sweep", "stages.model.seed=0,1"];
    let again = folder.run(&flags);
    assert!(again.stdout.starts_with("nothing to do: all 11 stages are cached\n"), "{again}");

    // After a value is added, only the new instances run.
    let wider = ["--sweep", "stages.model.seed=0,1,2", "--json"];
    let planned = json(&folder, &[&["plan", "p.yaml"], &wider[..]].concat());
    let to_run = |stage: &&Value| stage["state"] != "cached";
    let names = planned["stages"].as_array().unwrap().iter().filter(to_run).map(|s| s["name"].as_str().unwrap());
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "model[lr=1e-3,seed=2]",
            "model[lr=2e-3,seed=2]",
            "samples[lr=1e-3,seed=2]",
            "samples[lr=2e-3,seed=2]",
            "compare"
        ]
    );
    let summary = &planned["summary"];
    assert_eq!((&summary["instances"], &summary["shared"], &summary["cached"]), (&12.into(), &3.into(), &10.into()));
    assert!(summary["seconds"].as_f64().unwrap() > 0.0 && summary["without_estimate"] == 0, "{summary}");
    let run = folder.run(&wider);
    let ran = run.finished()["stages"].as_object().unwrap().values().filter(|state| *state == "ran").count();
    assert_eq!(ran, 5, "{run}");
}

#[test]
fn why_names_the_parameter_with_its_position_and_the_dependents() {
    let folder = pipeline();
    folder.run(&[]);
    let before = folder.snapshot();
    let text = std::fs::read_to_string(folder.path().join("p.yaml")).unwrap();
    folder.write("p.yaml", text.replace("scale: 4", "scale: 2").replace("[1e-3, 0.002]", "[1e-3, 0.004]"));
    let why = |stage: &str| folder.srpipe(&["why", "p.yaml", stage]).stdout;
    assert_eq!(why("pairs"), "pairs reruns: scale 4 → 2 (p.yaml:6:41); 9 stages depend on it\n");
    let line = text.lines().position(|line| line.starts_with("  model:")).unwrap() + 1;
    let column = text.lines().nth(line - 1).unwrap().find("0.002").unwrap() + 1;
    assert_eq!(
        why("model[lr=4e-3,seed=1]"),
        format!(
            "model[lr=4e-3,seed=1] runs: compared with the most similar result, optim.lr 0.002 → 0.004 \
                 (p.yaml:{line}:{column}); depends on pairs; 2 stages depend on it\n"
        )
    );
    assert_eq!(why("model").lines().count(), 4, "the name of a swept stage must select all its instances");
    assert!(why("images").starts_with("images is cached (key "));
    assert!(
        why("compare").starts_with("compare depends on ") || why("compare").contains("the arms changed"),
        "{}",
        why("compare")
    );
    let unknown = folder.srpipe(&["why", "p.yaml", "modle"]);
    assert_eq!(unknown.code, Some(2), "{unknown}");
    let json = json(&folder, &["why", "p.yaml", "pairs", "--json"]);
    let stage = &json["stages"][0];
    assert_eq!((&stage["reason"], &stage["state"]), (&"changed".into(), &"ready".into()), "{json}");
    let difference = &stage["differences"][0];
    assert_eq!(
        [&difference["field"], &difference["before"], &difference["now"], &difference["place"]],
        [&Value::from("scale"), &4.into(), &2.into(), &"p.yaml:6:41".into()]
    );
    assert_eq!(folder.snapshot(), before, "`why` writes nothing");
}

#[test]
fn runs_are_listed_and_compared() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    folder.run(&["--set", "stages.pairs.scale=8", "--set", "stages.others.method=bicubic"]);
    let table = folder.srpipe(&["runs"]).stdout;
    let headings: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(headings, ["run", "state", "age", "took", "method", "scale"], "{table}");
    assert_eq!(table.lines().count(), 3);
    let chosen = json(&folder, &["runs", "p", "--filter", "pairs.scale>=8", "--json"]);
    assert_eq!(chosen["runs"].as_array().unwrap().len(), 1, "{chosen}");
    assert_eq!(chosen["runs"][0]["params"]["stages.others.method"], "bicubic");
    let sorted = json(&folder, &["runs", "--sort", "pairs.scale", "--json"]);
    assert_eq!(sorted["runs"][1]["id"], chosen["runs"][0]["id"]);
    assert_eq!(folder.srpipe(&["runs", "--filter", "scale"]).code, Some(2));
    assert_eq!(folder.srpipe(&["runs", "nothing"]).code, Some(2));

    let ids = [0, 1].map(|i| sorted["runs"][i]["id"].as_str().unwrap().to_string());
    let diff = folder.srpipe(&["diff", &ids[0], "p"]).stdout;
    let lines: Vec<Vec<&str>> = diff.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["stages.others.method", "area", "bicubic"], ["stages.pairs.scale", "4", "8"]], "{diff}");
    let diff = json(&folder, &["diff", &ids[0], &ids[1], "--json"]);
    assert_eq!(diff["params"]["stages.pairs.scale"], serde_json::json!(["4", "8"]));
    let same = folder.srpipe(&["diff", &ids[0], &ids[0]]);
    assert!(same.stdout.contains("have the same parameters"), "{same}");
    assert_eq!(folder.srpipe(&["diff", &ids[0], "nothing"]).code, Some(2));
}

#[test]
fn graphs_show_stages_with_their_states() {
    let folder = pipeline();
    let ascii = folder.srpipe(&["graph", "p.yaml"]).stdout;
    assert_eq!(
        ascii,
        "images                fetch    would run\n\
         └─ pairs              degrade  waiting\n   \
         └─ model × 4       train    4 waiting\n      \
         └─ samples × 4  sample   4 waiting  (and pairs)\n         \
         └─ compare   compare  waiting\n"
    );
    folder.run(&[]);
    let dot = folder.srpipe(&["graph", "p.yaml", "--format", "dot"]).stdout;
    assert!(dot.starts_with("digraph \"p\" {") && dot.contains("n2 [label=\"model × 4\\ntrain: 4 cached\""), "{dot}");
    assert!(dot.contains("n1 -> n2;") && dot.contains("n2 -> n3;"), "{dot}");
    let mermaid = folder.srpipe(&["graph", "p.yaml", "--format", "mermaid", "--all"]).stdout;
    assert!(
        mermaid.starts_with("graph LR\n") && mermaid.contains("[\"model[lr=1e-3,seed=0]<br>train: cached\"]"),
        "{mermaid}"
    );
    assert_eq!(json(&folder, &["graph", "p.yaml", "--json"])["nodes"][2]["states"]["cached"], 4);
}

#[test]
fn many_instances_are_summarised() {
    let folder = pipeline();
    let seeds = (0..50).map(|seed| seed.to_string()).collect::<Vec<_>>().join(",");
    let sweep = format!("stages.model.seed={seeds}");
    let status = folder.srpipe(&["status", "p.yaml", "--sweep", &sweep]);
    assert!(status.stdout.contains("model[…] × 100    train    100 waiting"), "{status}");
    assert!(status.stdout.lines().count() < 10, "{status}");
    let all = folder.srpipe(&["status", "p.yaml", "--sweep", &sweep, "--all"]);
    assert!(all.stdout.contains("model[lr=1e-3,seed=49]"), "{all}");
    let plan = folder.srpipe(&["plan", "p.yaml", "--sweep", &sweep]);
    assert!(plan.stdout.contains("100 run") && plan.stdout.lines().count() < 10, "{plan}");
}

/// Returns a sweep whose best model is selected on validation images.
fn selection() -> Folder {
    let sample = |model: &str, more: &str| {
        format!("{{kind: sample, model: {model}, data: pairs, samples: 2, sampler: {{steps: 1}}{more}}}")
    };
    Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 8, validation: 3, test: 5}")
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage(
            "model",
            "{kind: train, data: pairs, model: {base_channels: 2}, optim: {steps: 1, batch_size: 2}, \
             matrix: {optim.lr: [1e-3, 0.5], seed: [0, 1]}}",
        )
        .stage("validate", &sample("model", ", split: validation"))
        .stage("compare", "{kind: compare, arms: {model: validate}, rows: 1}")
        .stage("best", "{kind: select, from: compare, by: crps}")
        .stage("test", &sample("best", ""))
        .stage("result", "{kind: compare, arms: {best: test}, rows: 1}")
        .folder()
}

#[test]
fn a_model_is_selected_on_validation_images_and_reported_on_test_images() {
    let folder = selection();
    let run = folder.run(&[]);
    assert_eq!(run.code, Some(0), "{run}");
    let latest = folder.runs().join("p/latest");
    let summary = |stage: &str| -> Value {
        serde_json::from_slice(&std::fs::read(latest.join(stage).join("summary.json")).unwrap()).unwrap()
    };
    let (validation, test) = (summary("compare"), summary("result"));
    assert_eq!((&validation["images"], &validation["split"]), (&3.into(), &"validation".into()));
    assert_eq!((&test["images"], &test["split"]), (&5.into(), &Value::Null));
    // The candidate with the smaller mean, as `compare` measured it.
    let crps = |lr: &str| validation["arms"][format!("model[lr={lr}]")]["crps"].as_f64().unwrap();
    let lr = if crps("1e-3") < crps("0.5") { "1e-3" } else { "0.5" };
    for seed in [0, 1] {
        let read = |stage: String, blob: &str| std::fs::read(latest.join(stage).join(blob)).unwrap();
        for blob in ["ema.safetensors", "weights.safetensors", "loss.csv"] {
            let selected = read(format!("best[seed={seed}]"), blob);
            assert!(selected == read(format!("model[lr={lr},seed={seed}]"), blob), "{blob} of seed {seed}");
        }
        let candidates = String::from_utf8(read(format!("best[seed={seed}]"), "selection.csv")).unwrap();
        let rows: Vec<&str> = candidates.lines().collect();
        assert!(rows[0].starts_with("rank,arm,metric,split,value,sd,seeds"), "{candidates}");
        assert!(rows[1].starts_with(&format!("1,model[lr={lr}],crps,validation,")) && rows.len() == 3, "{candidates}");
    }
    for text in
        ["compare: 3 validation images", "result: 5 test images", "the best of 2 by crps on the validation images"]
    {
        assert!(run.stdout.contains(text), "{text}: {run}");
    }
    assert!(run.stdout.contains("the model of best was selected by the validation results"), "{run}");
    let csv = std::fs::read_to_string(latest.join("compare/metrics.csv")).unwrap();
    assert!(csv.lines().skip(1).all(|row| row.contains(",validation,")), "{csv}");
    let report = std::fs::read_to_string(latest.join("report.html")).unwrap();
    for text in ["3 validation images", "5 test images", "the best of 2 by crps"] {
        assert!(report.contains(text), "{text}");
    }
    // Nothing runs again, and the test images are sampled only with the selected model.
    let again = folder.run(&[]);
    assert!(again.stdout.starts_with("nothing to do"), "{again}");
    assert!(!run.stdout.contains("test[lr"), "{run}");
}
