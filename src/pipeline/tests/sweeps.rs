//! Tests of the instances of a matrix, and of errors about invalid ones.

use super::*;
use crate::config::*;

/// Returns [`SMALL`] with these parameters added to `model` and `samples`.
fn swept(model: &str, samples: &str) -> String {
    SMALL
        .replace("model: { kind: train }", &format!("model: {{ kind: train{model} }}"))
        .replace("data: pairs }\n  compare", &format!("data: pairs{samples} }}\n  compare"))
}

fn parse_sweep(text: &str, sweep: &[&str]) -> Result<Pipeline, Diagnostics> {
    parse("test.yaml", text, &Flags { set: vec![], sweep: sweep.iter().map(|s| s.to_string()).collect() })
}

fn valid_sweep(text: &str, sweep: &[&str]) -> Pipeline {
    parse_sweep(text, sweep).unwrap_or_else(|errors| panic!("{errors}"))
}

fn names(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.stages.iter().map(|s| s.name.as_str()).collect()
}

fn compare(pipeline: &Pipeline) -> &CompareParams {
    pipeline.stages.iter().find_map(|s| if let StageParams::Compare(p) = &s.params { Some(p) } else { None }).unwrap()
}

/// Returns `arm: seed stage, seed stage` for each arm.
fn arms(pipeline: &Pipeline) -> Vec<String> {
    let run = |run: &ArmRun| format!("{} {}", run.seed.as_deref().unwrap_or("-"), run.stage);
    let runs = |arm: &Arm| arm.runs.iter().map(run).collect::<Vec<_>>().join(", ");
    compare(pipeline).arms.iter().map(|(name, arm)| format!("{name}: {}", runs(arm))).collect()
}

/// Checks that the resolved pipeline parses to the same pipeline.
#[track_caller]
fn resolves(pipeline: &Pipeline) {
    let again = valid(&pipeline.resolved());
    assert_eq!(names(&again), names(pipeline), "{}", pipeline.resolved());
    for (a, b) in again.stages.iter().zip(&pipeline.stages) {
        assert_eq!((&a.params, &a.labels, &a.base), (&b.params, &b.labels, &b.base), "{}", pipeline.resolved());
    }
    assert_eq!(again.resolved(), pipeline.resolved());
}

#[test]
fn a_swept_stage_and_its_dependents_become_instances() {
    let text = swept(", matrix: { model.base_channels: [16, 8], seed: [0, 1] }", "");
    let pipeline = valid(&text);
    let labels =
        ["base_channels=16,seed=0", "base_channels=16,seed=1", "base_channels=8,seed=0", "base_channels=8,seed=1"];
    let mut expected = vec!["images".to_string(), "pairs".to_string()];
    expected.extend(labels.map(|l| format!("model[{l}]")));
    expected.extend(labels.map(|l| format!("samples[{l}]")));
    expected.push("compare".to_string());
    assert_eq!(names(&pipeline), expected);
    let model = train(&pipeline, "model[base_channels=8,seed=1]");
    assert_eq!((model.model.base_channels, model.seed, model.optim.steps), (8, Some(1), Some(10)));
    let StageParams::Sample(p) = &pipeline.stage("samples[base_channels=8,seed=1]").unwrap().params else { panic!() };
    assert_eq!((p.model.as_str(), p.data.as_str(), p.seed), ("model[base_channels=8,seed=1]", "pairs", Some(1)));
    assert_eq!(
        arms(&pipeline),
        [
            "only[base_channels=16]: 0 samples[base_channels=16,seed=0], 1 samples[base_channels=16,seed=1]",
            "only[base_channels=8]: 0 samples[base_channels=8,seed=0], 1 samples[base_channels=8,seed=1]",
        ]
    );
    let arm = &compare(&pipeline).arms["only[base_channels=8]"];
    assert_eq!(
        (arm.of.as_str(), arm.axes[0].axis.as_str(), arm.axes[0].value.as_str()),
        ("only", "base_channels", "8")
    );
    let stage = pipeline.stage("samples[base_channels=8,seed=1]").unwrap();
    assert_eq!((stage.base.as_str(), stage.labels.len()), ("samples", 2));
    resolves(&pipeline);
}

#[test]
fn instances_that_differ_only_in_seeds_form_one_arm() {
    let pipeline = valid(&swept(", matrix: { seed: [3, 4] }", ""));
    assert_eq!(arms(&pipeline), ["only: 3 samples[seed=3], 4 samples[seed=4]"]);
    // With two seed axes, both identify a repetition.
    let pipeline = valid(&swept(", matrix: { seed: [3, 4] }", ", matrix: { seed: [5] }"));
    assert_eq!(
        arms(&pipeline),
        ["only: 3,5 samples[model.seed=3,samples.seed=5], 4,5 samples[model.seed=4,samples.seed=5]"]
    );
    resolves(&pipeline);
}

#[test]
fn combinations_can_be_excluded_and_included() {
    let matrix = "{ model.base_channels: [8, 16], seed: [0, 1], \
                  exclude: [{ base_channels: 16, seed: 1e0 }], include: [{ model.base_channels: 32, seed: 7 }, { seed: 9 }] }";
    let pipeline = valid(&swept(&format!(", matrix: {matrix}"), ""));
    assert_eq!(
        names(&pipeline)[2..7],
        [
            "model[base_channels=8,seed=0]",
            "model[base_channels=8,seed=1]",
            "model[base_channels=16,seed=0]",
            "model[base_channels=32,seed=7]",
            "model[seed=9]"
        ]
    );
    assert_eq!(train(&pipeline, "model[seed=9]").model.base_channels, 32);
    resolves(&pipeline);
    let listed =
        "{ include: [{ model.base_channels: 8, optim.lr: 1e-3 }, { model.base_channels: 16, optim.lr: 5e-4 }] }";
    let pipeline = valid(&swept(&format!(", matrix: {listed}"), ""));
    assert_eq!(names(&pipeline)[2..4], ["model[base_channels=8,lr=1e-3]", "model[base_channels=16,lr=5e-4]"]);
    resolves(&pipeline);
}

#[test]
fn inputs_are_joined_on_shared_axes_and_crossed_on_others() {
    // The model has the scale of its pairs, and samples use pairs of the model's scale.
    let text = "\
name: scales
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images, matrix: { scale: [2, 4] } }
  model: { kind: train, data: pairs, optim: { steps: 1 }, matrix: { seed: [0, 1] } }
  samples: { kind: sample, model: model, data: pairs }
";
    let pipeline = valid(text);
    let samples: Vec<&str> = names(&pipeline).into_iter().filter(|n| n.starts_with("samples")).collect();
    assert_eq!(
        samples,
        ["samples[scale=2,seed=0]", "samples[scale=2,seed=1]", "samples[scale=4,seed=0]", "samples[scale=4,seed=1]"]
    );
    let StageParams::Sample(p) = &pipeline.stage("samples[scale=4,seed=0]").unwrap().params else { panic!() };
    assert_eq!((p.model.as_str(), p.data.as_str()), ("model[scale=4,seed=0]", "pairs[scale=4]"));
    resolves(&pipeline);
    // Axes of different stages are not joined, even if values are equal.
    let text = text.replace("data: pairs }", "data: others }")
        + "  others: { kind: degrade, input: images, scale: 2, matrix: { method: [area, bicubic] } }\n";
    let text = text.replace("matrix: { scale: [2, 4] }", "scale: 2, matrix: { method: [area, bilinear] }");
    let pipeline = valid(&text);
    assert_eq!(names(&pipeline).iter().filter(|n| n.starts_with("samples")).count(), 8);
    assert!(
        pipeline.stage("samples[pairs.method=area,seed=0,others.method=bicubic]").is_some(),
        "{:?}",
        names(&pipeline)
    );
}

#[test]
fn references_can_be_swept() {
    let text = SMALL.replace("model: model, data: pairs }", "data: pairs, matrix: { model: [model, other] } }")
        + "  other: { kind: train, matrix: { seed: [0, 1] } }\n";
    let pipeline = valid(&text);
    let samples: Vec<&str> = names(&pipeline).into_iter().filter(|n| n.starts_with("samples")).collect();
    assert_eq!(samples, ["samples[model=model]", "samples[seed=0,model=other]", "samples[seed=1,model=other]"]);
    assert_eq!(compare(&pipeline).arms["only[model=other]"].runs.len(), 2);
    resolves(&pipeline);
    assert_eq!(
        messages(&text.replace("[model, other]", "[model, otter, pairs]"), &[]),
        [
            "`model` refers to `otter`, but there is no such stage",
            "`model` must refer to a train or select stage, but `pairs` is a degrade stage"
        ]
    );
}

#[test]
fn shared_axes_apply_to_stages_that_do_not_set_the_parameter() {
    let text = SMALL.to_string()
        + "  other: { kind: train, optim: { lr: 0.5 } }\n  second: { kind: sample, model: other, data: pairs }\n";
    let text = text.replace("only: samples", "only: samples, two: second");
    let pipeline = valid_sweep(&text, &["defaults.train.optim.lr=1e-3,2e-3", "seed=0,1"]);
    assert_eq!(
        names(&pipeline)[2..8],
        [
            "model[lr=1e-3,seed=0]",
            "model[lr=1e-3,seed=1]",
            "model[lr=2e-3,seed=0]",
            "model[lr=2e-3,seed=1]",
            "samples[lr=1e-3,seed=0]",
            "samples[lr=1e-3,seed=1]"
        ]
    );
    let StageParams::Sample(p) = &pipeline.stage("samples[lr=1e-3,seed=1]").unwrap().params else { panic!() };
    assert_eq!(p.seed, Some(1), "the pipeline's seed reaches every stage that has one");
    assert_eq!(train(&pipeline, "other[seed=1]").optim.lr, 0.5);
    assert_eq!(
        arms(&pipeline),
        [
            "only[lr=1e-3]: 0 samples[lr=1e-3,seed=0], 1 samples[lr=1e-3,seed=1]",
            "only[lr=2e-3]: 0 samples[lr=2e-3,seed=0], 1 samples[lr=2e-3,seed=1]",
            "two: 0 second[seed=0], 1 second[seed=1]",
        ]
    );
    assert_eq!(pipeline.stage("pairs").unwrap().labels, []);
    resolves(&pipeline);
    let in_file = text.replace("train: { data: pairs,", "train: { data: pairs, matrix: { optim.lr: [1e-3, 0.002] },");
    let in_file = valid(&in_file.replace("name: small", "name: small\nmatrix: { seed: [0, 1] }"));
    assert_eq!(names(&in_file), names(&pipeline));
}

#[test]
fn flags_override_a_matrix_in_the_file() {
    let text =
        swept(", matrix: { model.base_channels: [8, 16], seed: [0, 1], exclude: [{ base_channels: 8, seed: 1 }] }", "");
    let replaced =
        valid_sweep(&text.replace(", exclude: [{ base_channels: 8, seed: 1 }]", ""), &["stages.model.seed=5"]);
    assert_eq!(names(&replaced)[2..4], ["model[base_channels=8,seed=5]", "model[base_channels=16,seed=5]"]);
    let set = valid_with(&text, &["stages.model.model.base_channels=32"]);
    assert_eq!(names(&set)[2..4], ["model[seed=0]", "model[seed=1]"]);
    assert_eq!(train(&set, "model[seed=1]").model.base_channels, 32);
    resolves(&set);
    let all = valid_with(&text, &["stages.model.model.base_channels=32", "stages.model.seed=3"]);
    assert_eq!(names(&all), ["images", "pairs", "model", "samples", "compare"]);
    resolves(&all);
}

#[test]
fn parameters_that_determine_other_defaults_can_be_swept() {
    let text = "\
name: x
stages:
  images: { kind: fetch, train: 9, matrix: { dataset: [synthetic] } }
  model: { kind: train, data: pairs, optim: { steps: 4 }, matrix: { optim.epochs: [1, 2], model.attention: [{ kind: seed }, { }] } }
  pairs: { kind: degrade, input: images }
";
    let pipeline = valid(text);
    assert_eq!(names(&pipeline)[2], "model[dataset=synthetic,epochs=1,attention=(kind:seed)]");
    assert_eq!(train(&pipeline, names(&pipeline)[2]).optim.steps, None);
    resolves(&pipeline);
}

#[test]
fn instance_names_are_canonical_and_safe() {
    let names_of = |values: &str| {
        let pipeline = valid(&swept(&format!(", matrix: {{ optim.lr: {values} }}"), ""));
        names(&pipeline).iter().map(|n| n.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names_of("[1e-4, 2]"), names_of("[0.0001, 2.0]"));
    let text =
        "name: x\nstages:\n  images: { kind: fetch, dataset: cifar10, matrix: { url: ['file:/a/../b', 'file:c'] } }\n";
    assert_eq!(names(&valid(text)), ["images[url=file:%2Fa%2F..%2Fb]", "images[url=file:c]"]);
}

#[test]
fn the_position_of_a_swept_parameter_is_its_value() {
    let text = swept(", matrix: { model.base_channels: [8, 16], model.attention: [{ kind: seed }] }", "");
    let pipeline = valid(&text);
    let place = |stage: &str, path: &str| pipeline.position(pipeline.stage(stage)?, path).map(|p| p.to_string());
    let [of_8, of_16] =
        ["model[base_channels=8,attention=(kind:seed)]", "model[base_channels=16,attention=(kind:seed)]"];
    let column = |what: &str| text.lines().nth(6).unwrap().find(what).unwrap() + 1;
    assert_eq!(place(of_8, "model.base_channels"), Some(format!("test.yaml:7:{}", column("8,"))));
    assert_eq!(place(of_16, "model.base_channels"), Some(format!("test.yaml:7:{}", column("16]"))));
    assert_eq!(place(of_16, "model.attention.kind"), Some(format!("test.yaml:7:{}", column("kind: seed"))));
    assert_eq!(place(of_16, "optim.steps"), Some("test.yaml:3:34".to_string()));
    assert_eq!(place(of_16, ""), Some("test.yaml:7:3".to_string()));
    // An inherited axis is not a parameter of the stage.
    assert_eq!(place("samples[base_channels=8,attention=(kind:seed)]", "model.base_channels"), None);
    let flag = valid_sweep(SMALL, &["stages.model.seed=1,2"]);
    assert_eq!(
        flag.position(flag.stage("model[seed=2]").unwrap(), "seed").unwrap().to_string(),
        "--sweep stages.model.seed=1,2"
    );
}

#[test]
fn invalid_matrices_are_reported_with_snippets() {
    assert_errors(
        &swept(
            ", matrix: { model.base_chanels: [8], optim.lr: [1e-3, fast], seed: [], data: pairs, optim: { lr: [1] } }",
            "",
        ),
        &[],
        r#"
error: axis `seed` has no values
 --> test.yaml:7:90
  |
7 |   model: { kind: train, matrix: { model.base_chanels: [8], optim.lr: [1e-3, fast], seed: [], data: pairs, optim: { lr: [1] } } }
  |                                                                                          ^^

error: axis `data` must be a list of values, found `pairs`
 --> test.yaml:7:100
  |
7 |   model: { kind: train, matrix: { model.base_chanels: [8], optim.lr: [1e-3, fast], seed: [], data: pairs, optim: { lr: [1] } } }
  |                                                                                                    ^^^^^
  |
  = help: such as `data: [a, b]`

error: axis `optim` must be a list of values, found a mapping
 --> test.yaml:7:114
  |
7 |   model: { kind: train, matrix: { model.base_chanels: [8], optim.lr: [1e-3, fast], seed: [], data: pairs, optim: { lr: [1] } } }
  |                                                                                                                  ^^^^^^^^^^^
  |
  = help: give the full path of the parameter: `optim.lr`
"#,
    );
    assert_errors(
        &swept(", matrix: { model.base_chanels: [8, 16], optim.lr: [1e-3, fast] }", ""),
        &[],
        r#"
error: unknown key `base_chanels` in `model`
 --> test.yaml:7:35
  |
7 |   model: { kind: train, matrix: { model.base_chanels: [8, 16], optim.lr: [1e-3, fast] } }
  |                                   ^^^^^^^^^^^^^^^^^^
  |
  = help: did you mean `base_channels`?

error: `optim.lr` must be a number, found `fast`
 --> test.yaml:7:81
  |
7 |   model: { kind: train, matrix: { model.base_chanels: [8, 16], optim.lr: [1e-3, fast] } }
  |                                                                                 ^^^^
"#,
    );
    assert_errors(
        &SMALL.replace(
            "  model: { kind: train }\n",
            "  model:
    kind: train
    matrix:
      optim.lr: [1e-3, 0.001]
      seed: [0, 1]
      exclude: [{ sead: 1 }, { seed: 2 }, 3]
      include: [{ seed: 0, lr: 1e-3 }]
",
        ),
        &[],
        r#"
error: axis `optim.lr` has `1e-3` and `0.001`, which are the same number
  --> test.yaml:10:24
   |
10 |       optim.lr: [1e-3, 0.001]
   |                  ----  ^^^^^
   |                  |
   |                  first listed here

error: `exclude` refers to `sead`, but this matrix has no such axis
  --> test.yaml:12:19
   |
12 |       exclude: [{ sead: 1 }, { seed: 2 }, 3]
   |                   ^^^^
   |
   = help: did you mean `seed`?

error: `exclude` refers to `2`, which is not a value of axis `seed`
  --> test.yaml:12:38
   |
12 |       exclude: [{ sead: 1 }, { seed: 2 }, 3]
   |                                      ^
   |
   = help: its values: `0`, `1`

error: an entry of `exclude` must be a mapping of axes to values, found `3`
  --> test.yaml:12:43
   |
12 |       exclude: [{ sead: 1 }, { seed: 2 }, 3]
   |                                           ^
   |
   = help: such as `{ seed: 0 }`

error: this combination is already in the matrix
  --> test.yaml:13:17
   |
13 |       include: [{ seed: 0, lr: 1e-3 }]
   |                 ^^^^^^^^^^^^^^^^^^^^^
"#,
    );
}

#[test]
fn invalid_sweeps_are_refused() {
    let of = |matrix: &str| messages(&swept(&format!(", matrix: {matrix}"), ""), &[]);
    assert_eq!(of("3"), ["`matrix` must be a mapping of parameters to lists of values, found `3`"]);
    assert_eq!(of("{}"), ["`matrix` has no axes"]);
    assert_eq!(of("{ kind: [train] }"), ["`kind` cannot be swept"]);
    assert_eq!(of("{ model: [{}], model.base_channels: [2] }"), ["axes `model` and `model.base_channels` overlap"]);
    assert_eq!(of("{ seed: [1], exclude: [{ seed: 1 }] }"), ["`exclude` removes every combination"]);
    assert_eq!(of("{ seed: [1], exclude: 4 }"), ["`exclude` must be a list of combinations, found `4`"]);
    assert_eq!(
        of("{ optim.epochs: [1], optim.steps: [2] }"),
        ["`optim.steps` and `optim.epochs` are mutually exclusive"]
    );
    assert_eq!(of("{ seed: [-1] }"), ["`seed` must be at least 0, found `-1`"]);
    let at_top = |matrix: &str| messages(&format!("matrix: {matrix}\n{SMALL}"), &[]);
    assert_eq!(at_top("{ optim.lr: [1] }"), ["`optim.lr` cannot be swept here"]);
    let given = SMALL.replace("{ kind: train }", "{ kind: train, seed: 3, optim: { lr: 2 } }");
    let messages = |sweep: &[&str]| match parse_sweep(&given, sweep) {
        Ok(_) => vec![],
        Err(errors) => errors.errors().iter().map(|e| e.message.clone()).collect::<Vec<_>>(),
    };
    assert_eq!(messages(&["defaults.train.optim.lr=1,2"]), ["the axis `optim.lr` applies to no train stage"]);
    assert_eq!(messages(&["stages.modle.seed=1"]), ["there is no stage `modle`"]);
    assert_eq!(messages(&["defaults.trian.seed=1"]), ["unknown stage kind `trian`"]);
    assert_eq!(messages(&["device=cpu,cuda"]), ["`device` cannot be swept"]);
    assert_eq!(messages(&["stages.model=1"]), ["the path does not lead to a parameter"]);
    assert_eq!(messages(&["stages.model.seed"]), ["`--sweep` needs `path=value,value`"]);
    assert_eq!(messages(&["stages.model.seed="]), ["axis `seed` has no values"]);
    assert_eq!(messages(&["seed=1,2"]), Vec::<String>::new(), "samples have the pipeline's seed");
}

#[test]
fn arms_with_different_data_are_named_by_instance() {
    let text = "\
name: scales
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images, matrix: { scale: [2, 4] } }
  model: { kind: train, data: pairs, optim: { steps: 1 } }
  samples: { kind: sample, model: model, data: pairs }
  compare: { kind: compare, arms: { only: samples } }
";
    assert_eq!(
        messages(text, &[]),
        ["arms must use the same data, but `only[scale=4]` samples from `pairs[scale=4]` and `only[scale=2]` samples \
          from `pairs[scale=2]`"]
    );
}

#[test]
fn the_number_of_instances_is_limited() {
    let list = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    let matrix = format!(
        ", matrix: {{ seed: [{}], optim.batch_size: [{}], optim.lr: [{}] }}",
        list(1000),
        list(1000),
        list(1000)
    );
    assert_eq!(
        messages(&swept(&matrix, ""), &[]),
        ["this matrix creates 1000000000 instances; a pipeline may have at most 100000"]
    );
    // Crossing two small axes is limited too.
    let crossed =
        swept(&format!(", matrix: {{ seed: [{}] }}", list(1000)), &format!(", matrix: {{ seed: [{}] }}", list(1000)));
    assert_eq!(
        messages(&crossed, &[]),
        ["with stage `samples` there are at least 100002 instances; a pipeline may have at most 100000"]
    );
}
