//! End-to-end tests of claims and their output.

mod common;

use common::{Folder, Pipeline};
use serde_json::Value;

/// Returns a comparison of two tiny models with a claim. `more` contains further parameters of
/// both `train` stages and of both `sample` stages.
fn with_claim(more: [&str; 2]) -> Folder {
    let model = |name: &str, kind: &str| {
        let params = "optim: {steps: 3, lr: 0.1, batch_size: 2}, validation: {every: 1, images: 2}";
        let model = format!("model: {{base_channels: 2, attention: {{kind: {kind}}}}}");
        (name.to_string(), format!("{{kind: train, data: pairs, {model}, {params}{}}}", more[0]))
    };
    let sample = |model: &str| {
        (
            format!("of_{model}"),
            format!("{{kind: sample, model: {model}, data: pairs, samples: 1, sampler: {{steps: 1}}{}}}", more[1]),
        )
    };
    let stages = [model("with", "seed"), model("without", "none"), sample("with"), sample("without")];
    let pipeline = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 8, validation: 4, test: 4}")
        .stage("pairs", "{kind: degrade, input: images, scale: 4}");
    let pipeline = stages.iter().fold(pipeline, |pipeline, (name, yaml)| pipeline.stage(name, yaml));
    let compare = "{kind: compare, arms: {with: of_with, without: of_without}, rows: 1, \
                   claims: {quality: {arm: with, control: without}}}";
    pipeline.stage("compare", compare).folder()
}

/// Returns the claim in the summary of the latest run.
fn claim_of(folder: &Folder) -> Value {
    let summary = folder.runs().join("p/latest/compare/summary.json");
    serde_json::from_slice::<Value>(&std::fs::read(summary).unwrap()).unwrap()["claims"][0].clone()
}

#[test]
fn the_suggested_command_runs_the_full_study() {
    let folder = with_claim(["", ""]);
    let run = folder.run(&["--set", "seed=5", "--set", "stages.with.seed=4"]);
    assert_eq!(claim_of(&folder)["n"], 1);
    let command = run.stdout.lines().skip_while(|line| !line.ends_with("The full study:")).nth(1).unwrap().trim();
    assert_eq!(command, "srpipe run p.yaml --sweep seed=0,1,2,3,4,5,6,7", "{run}");
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let study = folder.srpipe(&words);
    assert_eq!(study.code, Some(0), "{study}");
    assert!(!study.stdout.contains("by design"), "{study}");
    assert_eq!(claim_of(&folder)["n"], 8);
}

#[test]
fn the_suggestion_explains_how_to_edit_the_file_if_no_command_suffices() {
    for own in [", seed: 3", ", matrix: {seed: [3, 4]}"] {
        let folder = with_claim([own, ""]);
        let run = folder.run(&[]);
        let advice = "  train all claimed arms with the same 8 seeds: in the pipeline file, set \
                      `matrix: { seed: [0, 1, 2, 3, 4, 5, 6, 7] }` and remove `seed` from their stages and `defaults`\n";
        assert!(run.stdout.contains(advice), "{run}");
    }
}

#[test]
fn sampling_one_model_with_many_seeds_counts_as_one_seed() {
    let folder = with_claim(["", ", matrix: {seed: [0, 1, 2, 3, 4, 5, 6, 7]}"]);
    let run = folder.run(&[]);
    assert_eq!(run.code, Some(0), "{run}");
    let claim = claim_of(&folder);
    assert_eq!(
        (&claim["n"], &claim["by_design"], &claim["verdict"]),
        (&1.into(), &true.into(), &"inconclusive".into())
    );
    // `diff` shows what varies, and that the runs draw different numbers of samples.
    let first = std::fs::read_link(folder.runs().join("p/latest")).unwrap();
    folder.run(&["--set", "stages.of_with.samples=2", "--set", "stages.of_without.samples=2"]);
    let diff = folder.srpipe(&["diff", first.file_name().unwrap().to_str().unwrap(), "p"]);
    for text in [
        "(8 sampling seeds of one training run, K = 1)",
        "(8 sampling seeds of one training run, K = 2)",
        "± is the standard deviation over 8 sampling seeds of one training run",
        "different numbers of samples per image (K = 1 before, 2 after)",
    ] {
        assert!(diff.stdout.contains(text), "{text}: {diff}");
    }
}

fn sweep(seeds: usize) -> String {
    let seeds: Vec<String> = (0..seeds).map(|seed| seed.to_string()).collect();
    format!("seed={}", seeds.join(","))
}

#[test]
fn a_study_that_grows_after_a_verdict_is_exploratory() {
    let folder = with_claim(["", ""]);
    let three = folder.run(&["--sweep", &sweep(3)]);
    assert!(!three.stdout.contains("exploratory"), "{three}");
    let six = folder.run(&["--sweep", &sweep(6)]);
    assert!(!six.stdout.contains("exploratory"), "three seeds cannot decide a claim: {six}");
    let seven = folder.run(&["--sweep", &sweep(7)]);
    assert!(seven.stdout.contains("(exploratory)"), "{seven}");
    assert!(seven.stdout.contains("it was already tested with 6 seeds"), "{seven}");
    let report = std::fs::read_to_string(folder.runs().join("p/latest/report.html")).unwrap();
    assert!(report.contains("(exploratory)"));
    // The look is still recorded, although the study of six seeds is no longer the previous run.
    let other = folder.run(&["--sweep", &sweep(7), "--set", "stages.compare.rows=2"]);
    assert!(other.stdout.contains("(exploratory)"), "{other}");
    for args in [["status", "p", "--json"], ["report", "p", "--json"]] {
        let json: Value = serde_json::from_str(&folder.srpipe(&args).stdout).unwrap();
        let claim = &json["claims"][0];
        assert_eq!((&claim["stage"], &claim["claim"], &claim["n"]), (&"compare".into(), &"quality".into(), &7.into()));
        assert!(claim["exploratory"].as_str().unwrap().contains("already tested with 6 seeds"), "{claim}");
    }
}

#[test]
fn the_history_of_a_question_does_not_depend_on_names_or_samplers() {
    let folder = with_claim(["", ""]);
    let json = |pipeline: &str| -> Value {
        let status = folder.srpipe(&["status", pipeline, "--json"]);
        serde_json::from_str::<Value>(&status.stdout).unwrap()["claims"][0]["exploratory"].clone()
    };
    folder.run(&["--sweep", &sweep(6)]);
    assert!(json("p").is_null());
    let text = std::fs::read_to_string(folder.path().join("p.yaml")).unwrap();
    // The validation loss is a property of the trained networks, so another sampler does not change the question.
    let renamed = text
        .replace("name: p", "name: q")
        .replace("compare: {", "verdicts: {")
        .replace("arms: {with:", "arms: {attention:")
        .replace("quality: {arm: with,", "other: {endpoint: val_loss, arm: attention,")
        .replace("steps: 1}}", "steps: 2}}");
    folder.write("q.yaml", renamed);
    let seven = folder.srpipe(&["run", "q.yaml", "--sweep", &sweep(7)]);
    assert!(seven.stdout.contains("other: exploratory, because it was already tested with 6 seeds"), "{seven}");
    // The first answer stays what it was.
    folder.run(&["--sweep", &sweep(6), "--set", "stages.compare.rows=2"]);
    assert!(json("p").is_null() && json("q").is_string());
    // A claim that was added after its endpoint was shown.
    let added = "stages.compare.claims={ late: { arm: with, control: without, endpoint: psnr_sample } }";
    let late = folder.run(&["--sweep", &sweep(6), "--set", added]);
    assert!(late.stdout.contains("with 6 seeds was shown before the claim was made"), "{late}");
}

#[test]
fn planned_looks_are_not_exploratory() {
    let folder = with_claim(["", ""]);
    let run =
        |seeds: usize| folder.run(&["--sweep", &sweep(seeds), "--set", "stages.compare.seeds={ plan: 8, looks: 2 }"]);
    let between = run(6);
    assert!(between.stdout.contains("the claim has 6 seeds, but its tests are planned at 4, 8"), "{between}");
    assert_eq!(claim_of(&folder)["verdict"], "inconclusive");
    let last = run(8);
    assert!(
        last.stdout.contains("2 planned looks at a study of 8 seeds") && !last.stdout.contains("exploratory"),
        "{last}"
    );
    assert_eq!(claim_of(&folder)["look"]["plan"], 8);
}

#[test]
fn copies_of_one_training_count_once() {
    let copy = |from: &str| {
        format!(
            "{{kind: command, command: [sh, -c, \"cp {{inputs.s}}/* outputs/\"], inputs: {{s: {from}}}, \
             outputs: [samples.safetensors, test_hr.safetensors, test_lr.safetensors, loss.csv]}}"
        )
    };
    let model = "{kind: train, data: pairs, model: {base_channels: 2}, optim: {steps: 1, batch_size: 2}}";
    let sample = |model: &str| {
        format!(
            "{{kind: sample, model: {model}, data: pairs, samples: 2, sampler: {{steps: 1}}, matrix: {{seed: [0, 1, 2]}}}}"
        )
    };
    let folder = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 8, validation: 4, test: 4}")
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage("one", model)
        .stage("two", &model.replace("data: pairs", "data: pairs, seed: 3"))
        .stage("of_one", &sample("one"))
        .stage("of_two", &sample("two"))
        .stage("copy_one", &copy("of_one"))
        .stage("copy_two", &copy("of_two"))
        .stage(
            "compare",
            "{kind: compare, arms: {one: copy_one, two: copy_two}, rows: 1, \
                claims: {any: {arm: one, control: two, endpoint: crps}}}",
        )
        .folder();
    let run = folder.run(&[]);
    assert_eq!(run.code, Some(0), "{run}");
    assert!(run.stdout.contains("± is the standard deviation over 3 sampling seeds of one training run"), "{run}");
    assert!(run.stdout.contains("any: n = 1: 3 seeds that share training runs"), "{run}");
    assert_eq!((&claim_of(&folder)["n"], &claim_of(&folder)["pairs"]), (&1.into(), &3.into()));
}

#[test]
fn plan_power_estimates_seeds_and_time() {
    let folder = with_claim(["", ""]);
    let power = || -> Value {
        let output = folder.srpipe(&["plan", "p.yaml", "--power", "--json"]);
        let value: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"));
        value["claims"][0].clone()
    };
    assert!(power()["n"].is_null() && power()["claim"] == "quality");
    folder.run(&["--sweep", &sweep(3)]);
    let found = power();
    // The file itself has one seed, but the latest run shows how much results vary.
    assert_eq!((&found["n"], &found["margin"]), (&3.into(), &1.0.into()));
    assert!(!found["seeds_for_power"].is_null(), "{found}");
    // The margin of the file counts, and another endpoint is another question.
    let with = |set: &str| -> Value {
        let output = folder.srpipe(&["plan", "p.yaml", "--power", "--json", "--set", set]);
        serde_json::from_str::<Value>(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))["claims"][0].clone()
    };
    let wide = with("stages.compare.claims.quality.margin=1000000");
    assert_eq!((&wide["n"], &wide["margin"]), (&3.into(), &1e6.into()));
    assert_eq!(wide["seeds_for_power"], serde_json::json!({"seeds": 6}));
    let four = with(
        "stages.compare.claims={ a: { arm: with, control: without, endpoint: val_loss, margin: 1000000 }, \
         b: { arm: with, control: without, endpoint: val_loss }, \
         c: { arm: with, control: without, endpoint: val_loss }, \
         d: { arm: with, control: without, endpoint: val_loss } }",
    );
    assert_eq!((&four["n"], &four["seeds_for_power"]), (&3.into(), &serde_json::json!({"seeds": 8})));
    let other = with("stages.compare.claims={ quality: { arm: with, control: without, endpoint: psnr_sample } }");
    assert!(other["n"].is_null() && other["seeds_for_power"].is_null(), "{other}");
    assert_eq!(other["endpoint"], "psnr_sample");
    let text = folder.srpipe(&["plan", "p.yaml", "--power", "--sweep", &sweep(3)]).stdout;
    assert!(text.contains("seeds for 80 %") && text.contains("quality"), "{text}");
}

#[test]
fn losses_are_compared_only_if_they_measure_the_same() {
    let model = |data: &str, channels: usize| {
        format!(
            "{{kind: train, data: {data}, model: {{base_channels: {channels}}}, optim: {{steps: 2, batch_size: 2}}, \
             validation: {{every: 1, images: 2}}}}"
        )
    };
    let sample =
        |model: &str| format!("{{kind: sample, model: {model}, data: pairs, samples: 2, sampler: {{steps: 1}}}}");
    let images = "{kind: fetch, dataset: synthetic, train: 8, validation: 4, test: 4}";
    let folder = Pipeline::new()
        .stage("images", images)
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage("more", &images.replace("train: 8", "train: 16"))
        .stage("other", "{kind: degrade, input: more, scale: 4}")
        .stage("base", &model("pairs", 2))
        .stage("wide", &model("pairs", 4))
        .stage("foreign", &model("other", 2))
        .stage("of_base", &sample("base"))
        .stage("of_wide", &sample("wide"))
        .stage("of_foreign", &sample("foreign"))
        .stage(
            "compare",
            "{kind: compare, arms: {base: of_base, wide: of_wide, foreign: of_foreign}, control: base, rows: 1}",
        )
        .folder();
    let run = folder.run(&[]);
    assert_eq!(run.code, Some(0), "{run}");
    let latest = folder.runs().join("p/latest");
    let summary = std::fs::read(latest.join("compare/summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    let differences = summary["differences"].as_array().unwrap();
    let arms_by = |metric: &str| -> Vec<&str> {
        let of = differences.iter().filter(|difference| difference["metric"] == metric);
        of.map(|difference| difference["arm"].as_str().unwrap()).collect()
    };
    assert_eq!((arms_by("heldout_loss"), arms_by("crps")), (vec!["wide"], vec!["foreign", "wide"]));
    let report = std::fs::read_to_string(latest.join("report.html")).unwrap();
    let leads = report.split("id=\"leads-1\"").nth(1).unwrap().split("</section>").next().unwrap();
    assert!(leads.contains("wide") && !leads.contains("foreign"), "{leads}");

    let first = latest.canonicalize().unwrap();
    folder.run(&["--set", "stages.wide.diffusion.objective=eps"]);
    let diff = folder.srpipe(&["diff", first.to_str().unwrap(), "p"]);
    assert!(diff.stdout.contains("not comparable: `diffusion.objective` differs"), "{diff}");
}
