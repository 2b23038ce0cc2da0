//! Tests of the parsed values of valid files.

use super::*;
use crate::config::*;

fn names(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.stages.iter().map(|s| s.name.as_str()).collect()
}

#[test]
fn the_pipelines_of_the_repository_are_valid() {
    let stages = FILES.map(|file| valid(file).stages.len());
    assert_eq!(stages, [9, 9, 7, 14, 7, 11]);
    assert_eq!(
        names(&valid(ABLATION)),
        [
            "cifar",
            "pairs",
            "regression",
            "baseline",
            "attention",
            "sample_regression",
            "sample_baseline",
            "sample_attention",
            "compare"
        ]
    );
}

#[test]
fn the_tutorial_template_has_the_settings_of_the_tutorial() {
    let pipeline = valid(SEED);
    for (stage, kind) in [("original", AttentionKind::None), ("attention", AttentionKind::Sagan)] {
        let p = train(&pipeline, stage);
        assert_eq!(p.model, ModelParams::tutorial(32, kind));
        let d = &p.diffusion;
        assert_eq!((d.schedule, d.timesteps, d.beta_start, d.beta_end), (ScheduleKind::Linear, 1000, 1e-4, 0.02));
        assert_eq!((d.objective, d.target), (PredictionType::Eps, Target::Image));
        let o = &p.optim;
        assert_eq!((o.lr, o.batch_size, o.steps, o.epochs), (1e-4, 32, None, Some(5)));
        assert_eq!((o.warmup, o.decay, o.clip, o.ema, o.flips), (0.0, Decay::None, None, 0.0, false));
    }
    let StageParams::Sample(p) = &pipeline.stage("sample_original").unwrap().params else { panic!() };
    assert_eq!((p.sampler.method, p.sampler.steps, p.weights), (SamplerMethod::Ddpm, 1000, Weights::Raw));
    let StageParams::Degrade(p) = &pipeline.stage("pairs").unwrap().params else { panic!() };
    assert_eq!((p.method, p.scale), (DegradeMethod::Bilinear, 4));
}

#[test]
fn flags_override_the_file() {
    let pipeline = valid_with(
        ABLATION,
        &[
            "defaults.train.model.base_channels=16",
            "defaults.train.optim.steps=1500",
            "stages.cifar.url=file:/tmp/cifar-10-mini-binary.tar.gz",
            "stages.attention.optim.lr=2e-3",
            "seed=7",
            "device=cuda:1",
            "name=mine",
        ],
    );
    let (baseline, attention) = (train(&pipeline, "baseline"), train(&pipeline, "attention"));
    assert_eq!((baseline.model.base_channels, baseline.optim.steps, baseline.optim.lr), (16, Some(1500), 1e-3));
    // A parameter of the stage does not replace the other defaults.
    assert_eq!((attention.optim.lr, attention.optim.steps), (2e-3, Some(1500)));
    let StageParams::Fetch(FetchParams::Cifar10(p)) = &pipeline.stages[0].params else { panic!() };
    assert_eq!(p.url.as_ref().map(SecretUrl::expose), Some("file:/tmp/cifar-10-mini-binary.tar.gz"));
    assert_eq!((pipeline.seed, pipeline.device, pipeline.name.as_str()), (7, Device::Cuda(1), "mine"));
}

#[test]
fn later_flags_override_earlier_ones_and_missing_mappings_are_created() {
    let sets = ["stages.model.model.base_channels=8", "stages.model.model={base_channels: 4}", "stages.model.seed=3"];
    let pipeline = valid_with(SMALL, &sets);
    assert_eq!(train(&pipeline, "model").model.base_channels, 4);
    assert_eq!(train(&pipeline, "model").seed, Some(3));
}

#[test]
fn names_with_dots_can_be_set() {
    let text = SMALL.replace("  model: {", "  v1.0: {").replace("model: model", "model: v1.0");
    assert_eq!(train(&valid_with(&text, &["stages.v1.0.optim.lr=0.5"]), "v1.0").optim.lr, 0.5);
}

#[test]
fn steps_override_epochs_of_the_defaults_and_vice_versa() {
    let given = |text: &str, sets: &[&str]| {
        let pipeline = valid_with(text, sets);
        let p = train(&pipeline, "model");
        (p.optim.steps, p.optim.epochs)
    };
    let own = SMALL.replace("{ kind: train }", "{ kind: train, optim: { epochs: 2 } }");
    assert_eq!(given(SMALL, &[]), (Some(10), None));
    assert_eq!(given(&own, &[]), (None, Some(2)));
    assert_eq!(given(SMALL, &["defaults.train.optim.epochs=3"]), (None, Some(3)));
    assert_eq!(given(&own, &["stages.model.optim.steps=4"]), (Some(4), None));
    assert_eq!(given(&own, &["defaults.train.optim.steps=4"]), (None, Some(2)));
    let both = "`optim.steps` and `optim.epochs` are mutually exclusive";
    assert_eq!(messages(SMALL, &["defaults.train.optim.epochs=3", "defaults.train.optim.steps=3"]), [both]);
    assert_eq!(messages(&own.replace("epochs: 2", "epochs: 2, steps: 1"), &[]), [both]);
}

#[test]
fn defaults_apply_to_their_kind_and_can_be_overridden() {
    let text = SMALL.replace(
        "{ kind: train }",
        "{ kind: train, model: { attention: { kind: seed } }, optim: { betas: [0.5, 0.6], clip: null } }",
    );
    let text = text.replace(
        "steps: 10 }",
        "steps: 10, betas: [0.1, 0.2], clip: 3, lr: 0.1 }, model: { base_channels: 8, attention: { kind: none } }",
    );
    let pipeline = valid(&text);
    let p = train(&pipeline, "model");
    let attention = AttentionParams { kind: AttentionKind::Sagan, ..Default::default() };
    assert_eq!(p.model, ModelParams { base_channels: 8, attention, ..Default::default() });
    assert_eq!((p.optim.betas, p.optim.clip, p.optim.lr), ([0.5, 0.6], None, 0.1));
}

#[test]
fn stages_are_sorted_topologically() {
    let text = "\
name: backwards
stages:
  compare: { kind: compare, arms: { b: s2, a: s1 } }
  s1: { kind: sample, model: m, data: pairs }
  s2: { kind: sample, model: m, data: pairs }
  m: { kind: train, data: pairs, optim: { steps: 1 } }
  pairs: { kind: degrade, input: images }
  images: { kind: fetch, dataset: synthetic }
";
    assert_eq!(names(&valid(text)), ["images", "pairs", "m", "s1", "s2", "compare"]);
}

#[test]
fn spelling_and_order_of_keys_do_not_matter() {
    let one = "\
name: a
stages:
  images: { kind: fetch, dataset: synthetic, train: 1000, test: 16 }
  pairs: { kind: degrade, input: images, scale: 4 }
  m:
    kind: train
    data: pairs
    diffusion: { beta_start: 1e-4, beta_end: 0.02, residual_scale: 4 }
    optim: { lr: 0.002, steps: 1000, warmup: 0, clip: null, flips: true }
";
    let other = "\
stages:
  images: { \"test\": 0x10, train: 1e3, dataset: 'synthetic', kind: fetch }
  pairs:
    scale: 4.0
    input: \"images\"
    kind: !!str degrade
  m:
    optim: { flips: True, clip: ~, warmup: 0.0, steps: 1_000e0, lr: 2e-3 }
    diffusion: { residual_scale: 4.0, beta_end: 2.0e-02, beta_start: 0.0001 }
    data: pairs
    kind: train
name: a
";
    let (one, other) = (valid(one), valid(&other.replace("1_000e0", "1000.0")));
    for stage in &one.stages {
        let same = &other.stage(&stage.name).unwrap().params;
        assert_eq!(&stage.params, same);
        assert_eq!(serde_json::to_string(&stage.params).unwrap(), serde_json::to_string(same).unwrap());
    }
}

#[test]
fn the_resolved_pipeline_parses_to_the_same_pipeline() {
    for text in FILES.into_iter().chain([SMALL]) {
        let pipeline = valid_with(text, &["seed=18446744073709551615"]);
        let again = valid(&pipeline.resolved());
        assert_eq!((&again.name, again.seed, again.device), (&pipeline.name, pipeline.seed, pipeline.device));
        assert_eq!(again.description, pipeline.description);
        assert_eq!(names(&again), names(&pipeline));
        for (a, b) in again.stages.iter().zip(&pipeline.stages) {
            assert_eq!(a.params, b.params);
        }
        assert_eq!(again.resolved(), pipeline.resolved());
        assert!(!pipeline.resolved().contains("defaults"));
    }
}

#[test]
fn keys_are_always_strings() {
    for name in ["True", "null", "NULL", "yes", "No", "1e3", "012", "0x1F", "0o7", "1_000", "1.0", "_", "2024-01-01"] {
        let text = SMALL.replace("  pairs: {", &format!("  {name}: {{")).replace(": pairs", &format!(": \"{name}\""));
        let pipeline = valid(&text);
        assert!(pipeline.stage(name).is_some(), "{name}");
        let again = valid(&pipeline.resolved());
        assert!(again.stage(name).is_some(), "{name}");
        assert_eq!(again.resolved(), pipeline.resolved());
    }
}

#[test]
fn positions_point_at_the_stage_the_defaults_or_the_flag() {
    let pipeline = valid_with(SMALL, &["stages.model.model.base_channels=8"]);
    let at = |stage: &str, path: &str| pipeline.position(pipeline.stage(stage)?, path).map(|p| p.to_string());
    assert_eq!(at("model", "").as_deref(), Some("test.yaml:7:3"));
    assert_eq!(at("model", "optim.steps").as_deref(), Some("test.yaml:3:34"));
    assert_eq!(at("model", "model.base_channels").as_deref(), Some("--set stages.model.model.base_channels=8"));
    assert_eq!(at("compare", "arms.only").as_deref(), Some("test.yaml:9:37"));
    assert_eq!(at("model", "diffusion.schedule"), None);
    assert_eq!(at("nobody", ""), None);
    let nearest = |path: &str| pipeline.nearest_position(pipeline.stage("model")?, path).map(|p| p.to_string());
    assert_eq!(nearest("optim.lr").as_deref(), Some("test.yaml:3:25"));
    assert_eq!(nearest("diffusion.schedule").as_deref(), Some("test.yaml:7:3"));
}

#[test]
fn anchors_aliases_and_merge_keys_are_supported() {
    let text =
        SMALL.replace("  model: { kind: train }", "  m0: &m { kind: train, seed: 1 }\n  model: { <<: *m, seed: 2 }");
    let pipeline = valid(&text);
    assert_eq!((train(&pipeline, "m0").seed, train(&pipeline, "model").seed), (Some(1), Some(2)));
}

#[test]
fn string_parameters_may_look_like_numbers() {
    let digest = "1".repeat(32) + &"2".repeat(32);
    let exponent = "1e".to_string() + &"9".repeat(62);
    for digest in [digest, exponent] {
        let text = SMALL.replace("dataset: synthetic", &format!("dataset: cifar10, url: file:x, sha256: {digest}"));
        let pipeline = valid(&text);
        let StageParams::Fetch(FetchParams::Cifar10(p)) = &pipeline.stages[0].params else { panic!() };
        assert_eq!(p.sha256.as_deref(), Some(digest.as_str()));
    }
    assert_eq!(valid(&SMALL.replace("name: small", "name: 2024")).name, "2024");
}

#[test]
fn devices_survive_a_round_trip() {
    for (text, device) in [("auto", Device::Auto), ("cpu", Device::Cpu), ("cuda:3", Device::Cuda(3))] {
        assert_eq!(text.parse(), Ok(device));
        assert_eq!(device.to_string(), text);
    }
    assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
    for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:99999999999", "CPU"] {
        assert!(text.parse::<Device>().is_err(), "{text}");
    }
}

#[test]
fn files_are_loaded_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.yaml");
    std::fs::write(&path, format!("\u{FEFF}{}", SMALL.replace('\n', "\r\n"))).unwrap();
    let pipeline = load(&path, &Flags::default()).unwrap();
    assert_eq!(pipeline.file, path);
    assert_eq!(pipeline.stages.len(), 5);
    let missing = folder.path().join("smal.yaml");
    let error = load(&missing, &Flags::default()).unwrap_err().to_string();
    let expected = format!(
        "error: cannot read the pipeline {}: no such file\nhelp: did you mean `{}`?",
        missing.display(),
        path.display()
    );
    assert_eq!(error, expected);
    assert!(load(folder.path(), &Flags::default()).unwrap_err().to_string().contains("cannot read the pipeline"));
}

#[test]
fn older_spellings_of_values_have_the_same_keys() {
    let file = |attention: &str, matches: &str, embedding: &str| {
        let model = format!(
            "{{time_embedding: {embedding}, attention: {{kind: conv_control, matches: {matches}}}, base_channels: 16}}"
        );
        let text = format!(
            "name: p\ndefaults: {{train: {{model: {{attention: {{kind: {attention}}}}}}}}}\nstages:\n  \
             images: {{kind: fetch, dataset: synthetic}}\n  pairs: {{kind: degrade, input: images}}\n  \
             a: {{kind: train, data: pairs, optim: {{steps: 1}}}}\n  \
             b: {{kind: train, data: pairs, optim: {{steps: 1}}, model: {model}}}\n  \
             c: {{kind: train, data: pairs, optim: {{steps: 1}}, matrix: {{model.attention.kind: [none, {attention}]}}}}\n"
        );
        let pipeline = valid(&text);
        // Names of instances keep the spelling.
        assert!(pipeline.stage(&format!("c[kind={attention}]")).is_some(), "{:?}", pipeline.stages);
        pipeline.stages.iter().map(|stage| stage.params.to_semantic_json()).collect::<Vec<_>>()
    };
    let old = file("seed", "seed", "seed");
    assert_eq!(old, file("sagan", "sagan", "bottleneck_mlp"));
    assert_eq!(old[2]["model"]["attention"]["kind"], "seed");
    assert_eq!(old[3]["model"]["attention"]["matches"], "seed");
}

#[test]
fn older_names_of_keys_have_the_same_keys() {
    let file = |validation: &str, micro_batches: &str, endpoint: &str| {
        format!(
            "name: p\ndefaults: {{train: {{{validation}: {{every: 7}}, optim: {{steps: 1, batch_size: 8}}}}}}\nstages:\n  \
             images: {{kind: fetch, dataset: synthetic}}\n  pairs: {{kind: degrade, input: images}}\n  \
             a: {{kind: train, data: pairs, {validation}: {{images: 9}}, optim: {{{micro_batches}: 2}}}}\n  \
             b: {{kind: train, data: pairs, matrix: {{{validation}.images: [8, 9], optim.{micro_batches}: [1, 4],\n    \
             exclude: [{{{micro_batches}: 4, {validation}.images: 9}}]}}}}\n  \
             d: {{kind: train, data: pairs, {validation}: {{images: 9}}}}\n  \
             s: {{kind: sample, data: pairs, model: a}}\n  t: {{kind: sample, data: pairs, model: d}}\n  \
             c: {{kind: compare, arms: {{s: s, t: t}}, claims: {{x: {{arm: s, control: t, endpoint: {endpoint}}}}}}}\n"
        )
    };
    let semantic =
        |p: &Pipeline| p.stages.iter().map(|stage| stage.params.to_semantic_json()).collect::<Vec<serde_json::Value>>();
    let [old_file, new_file] =
        [file("heldout", "accumulate", "heldout_loss"), file("validation", "micro_batches", "val_loss")];
    let (old, new) = (valid(&old_file), valid(&new_file));
    assert_eq!(semantic(&old), semantic(&new));
    assert_eq!(old.stages[2].params.to_semantic_json()["heldout"], serde_json::json!({"every": 7, "images": 9}));
    assert_eq!(old.stages[2].params.to_semantic_json()["optim"]["accumulate"], 2);
    let claim = |p: &Pipeline| p.stages.last().unwrap().params.to_semantic_json()["claims"]["x"]["endpoint"].clone();
    assert_eq!(claim(&old), "heldout_loss");
    // Names of instances keep the spelling.
    assert!(old.stage("b[images=8,accumulate=4]").is_some() && new.stage("b[images=8,micro_batches=4]").is_some());
    assert_eq!(old.stages.len(), 7 + 3);

    // The resolved pipeline and flags may use either.
    for pipeline in [&old, &new] {
        assert_eq!(semantic(&valid(&pipeline.resolved())), semantic(pipeline), "{}", pipeline.resolved());
        assert!(pipeline.resolved().contains("validation:\n") && !pipeline.resolved().contains("heldout:\n"));
    }
    let position = |p: &Pipeline, path: &str| p.position(&p.stages[2], path).map(|position| position.to_string());
    assert_eq!(position(&old, "heldout.images"), position(&old, "validation.images"));
    assert!(position(&old, "optim.accumulate").is_some());
    let changed = |file: &str, path: &str| {
        let set = ["stages.a.{}.images=5", "stages.d.{}.images=5", "defaults.train.{}={every: 3}"]
            .map(|flag| flag.replace("{}", path))
            .to_vec();
        let sweep = vec![format!("stages.b.{path}.images=8,9,10")];
        semantic(&parse("p.yaml", file, &Flags { set, sweep }).unwrap())
    };
    let expected = changed(&new_file, "validation");
    assert_eq!(expected[2]["heldout"], serde_json::json!({"every": 3, "images": 5}));
    assert_eq!(expected.len(), 7 + 5);
    for (file, path) in [(&old_file, "heldout"), (&old_file, "validation"), (&new_file, "heldout")] {
        assert_eq!(changed(file, path), expected, "{path}");
    }

    let both = new_file.replace("images: 9}, optim", "images: 9}, heldout: {every: 1}, optim");
    let error = parse("p.yaml", both, &Flags::default()).unwrap_err().to_string();
    assert!(error.contains("`heldout` is an older name for `validation`, which is also set"), "{error}");
}
