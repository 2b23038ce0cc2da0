//! Tests of `command` stages, and of the resources of all stages.

use std::time::Duration;

use super::*;
use crate::config::*;

fn pipeline(stages: &str) -> String {
    format!("{SMALL}{stages}")
}

#[test]
fn command_inputs_refer_to_stages_and_outputs() {
    let pipeline = valid(&pipeline(
        "  score: { kind: command, command: [score, '{inputs.samples}', '{inputs.pairs}', '{seed}'], \
         inputs: { samples: samples/samples.safetensors, pairs: pairs }, outputs: [score.json], \
         resources: { cpus: 2, memory: 1 GB, gpus: 1, time: 2 h }, retry: { lost: 2 } }\n",
    ));
    let stage = pipeline.stage("score").unwrap();
    let inputs = stage.params.inputs();
    assert_eq!(
        (inputs[0].role.as_str(), inputs[0].stage.as_str(), &inputs[0].blobs),
        ("inputs.pairs", "pairs", &Blobs::All)
    );
    assert_eq!(inputs[1].blobs, Blobs::Only(vec!["samples.safetensors".into()]));
    assert_eq!(stage.params.seed(7), Some(7));
    assert_eq!(stage.resources.memory, Some(1_000_000_000));
    assert_eq!(stage.resources.time, Some(Duration::from_secs(7200)));
    assert_eq!((stage.retry.lost, stage.retry.failed), (2, 0));
    // The resolved pipeline parses to the same stage.
    let again = valid(&pipeline.resolved());
    let again = again.stage("score").unwrap();
    assert_eq!((&again.params, again.resources, again.retry), (&stage.params, stage.resources, stage.retry));
}

#[test]
fn commands_are_swept_by_their_inputs_and_their_own_matrix() {
    let text = pipeline(
        "  score: { kind: command, command: [score, '{inputs.samples}', '{inputs.model}'], \
         inputs: { samples: samples/samples.safetensors, model: model }, outputs: [score.json], \
         matrix: { env.METRIC: [l1, l2], resources.cpus: [1, 2] } }\n",
    );
    let text = text.replace("{ kind: train }", "{ kind: train, matrix: { model.base_channels: [8, 16] } }");
    let pipeline = valid(&text);
    assert_eq!(pipeline.named("score").len(), 8);
    assert_eq!(pipeline.named("score[base_channels=8,METRIC=l2,cpus=2]").len(), 1);
    let stage = pipeline.stage("score[base_channels=8,METRIC=l2,cpus=2]").unwrap();
    let StageParams::Command(params) = &stage.params else { panic!() };
    assert_eq!(params.env["METRIC"], "l2");
    assert_eq!(params.inputs["samples"], "samples[base_channels=8]/samples.safetensors");
    assert_eq!(params.inputs["model"], "model[base_channels=8]");
    assert_eq!(stage.resources.cpus, Some(2));
    let inputs = stage.params.inputs();
    assert_eq!((inputs[0].stage.as_str(), &inputs[0].blobs), ("model[base_channels=8]", &Blobs::All));
    assert_eq!(inputs[1].stage, "samples[base_channels=8]");
    let again = valid(&pipeline.resolved());
    let same = |(a, b): (&Stage, &Stage)| (&a.name, &a.params, a.resources) == (&b.name, &b.params, b.resources);
    assert!(again.stages.iter().zip(&pipeline.stages).all(same), "{}", pipeline.resolved());
}

#[test]
fn the_pipeline_sweeps_seeds_of_commands_that_use_them() {
    let seeds = |command: &str| {
        let stage = format!("  x: {{ kind: command, command: [{command}], outputs: [o] }}\n");
        valid(&pipeline(&stage).replace("stages:", "matrix: { seed: [0, 1, 2] }\nstages:")).named("x").len()
    };
    assert_eq!([seeds("a"), seeds("a, '--seed={seed}'")], [1, 3]);
}

#[test]
fn resources_can_be_set_in_defaults() {
    let text = SMALL.replace("optim: { steps: 10 } }", "optim: { steps: 10 }, resources: { cpus: 1 }, retry: 3 }");
    let pipeline = valid(&text);
    let model = pipeline.stage("model").unwrap();
    assert_eq!((model.resources.cpus, model.retry.time), (Some(1), 3));
    assert_eq!(pipeline.stage("samples").unwrap().resources, Resources::default());
}

#[test]
fn invalid_commands_are_refused() {
    let wrong = |stage: &str| messages(&pipeline(&format!("  x: {{ kind: command, {stage} }}\n")), &[]);
    for (stage, expected) in [
        ("command: [], outputs: [o]", "`command` must be a list of at least 1 item, found 0 items"),
        ("command: a b, outputs: [o]", "`command` must be a list, found `a b`"),
        ("command: [a]", "stage `x` needs `outputs`"),
        ("command: ['{inputs.y}'], outputs: [o]", "`{inputs.y}` is not declared"),
        ("command: ['{outputs.p}'], outputs: [o]", "`{outputs.p}` is not declared"),
        ("command: [a], outputs: [o, o]", "the output `o` is declared twice"),
        ("command: [a], outputs: [../o]", "`../o` is not a valid output name"),
        ("command: [a], outputs: ['o\\n']", "`o\\n` is not a valid output name"),
        ("command: [a], outputs: [o], inputs: { a/b: pairs }", "`a/b` is not a valid input name"),
        (
            "command: [a], outputs: [o], inputs: { a: pears }",
            "`inputs.a` refers to `pears`, but there is no such stage",
        ),
        ("command: [a], outputs: [o], inputs: { a: pairs/none }", "stage `pairs` has no output `none`"),
        ("command: [a], outputs: [o], inputs: { a: x/o }", "circular dependency: `x` → `x`"),
        ("command: [a], outputs: [o], files: [../a]", "`../a` is not a valid path in `files`"),
        ("command: [a], outputs: [o], files: [/etc/passwd]", "`/etc/passwd` is not a valid path in `files`"),
        ("command: [a], outputs: [o], files: [inputs/a]", "`inputs/a` is not a valid path in `files`"),
        ("command: [a], outputs: [o], env: { 1A: b }", "`1A` is not a valid variable name"),
        ("command: [a], outputs: [o], matrix: { env.1A: [b] }", "`1A` is not a valid variable name"),
        ("command: [a], outputs: [o], matrix: { env.A: ['{inputs.y}'] }", "`{inputs.y}` is not declared"),
        (
            "command: [a], outputs: [o], matrix: { resources.memory: [8] }",
            "`resources.memory` must be a number with a unit, such as `8 GB` or `512 MiB`, found `8`",
        ),
        ("command: [a], outputs: [o], env: { A: \"\\0\" }", "an argument cannot contain a NUL character"),
        ("command: [a], outputs: [o], metrics: p", "`metrics` refers to `p`, which is not one of the `outputs`"),
        ("command: [a], outputs: [o], resources: { cpus: 0 }", "`resources.cpus` must be at least 1, found `0`"),
        (
            "command: [a], outputs: [o], resources: { memory: 8 }",
            "`resources.memory` must be a number with a unit, such as `8 GB` or `512 MiB`, found `8`",
        ),
        (
            "command: [a], outputs: [o], resources: { time: soon }",
            "`resources.time` must be a number with a unit, such as `90 s`, `30 min` or `2 h`, found `soon`",
        ),
        ("command: [a], outputs: [o], resources: { core: 1 }", "unknown key `core` in `resources`"),
        ("command: [a], outputs: [o], retry: many", "`retry` must be an integer, found `many`"),
        ("command: [a], outputs: [o], retry: { lots: 1 }", "unknown key `lots` in `retry`"),
    ] {
        let found = wrong(stage);
        assert!(found.iter().any(|message| message == expected), "{stage}\nfound {found:#?}\nexpected {expected}");
    }
}

#[test]
fn commands_can_replace_stages_with_the_same_outputs() {
    let made = "  own: { kind: command, command: [a], outputs: [test_hr.safetensors, test_lr.safetensors, samples.safetensors] }\n\
                \x20 both: { kind: compare, arms: { own: own, only: samples } }\n";
    valid(&pipeline(made));
    let missing = made.replace(", samples.safetensors", "");
    assert_eq!(
        messages(&pipeline(&missing), &[]),
        ["`arms.own` reads `samples.safetensors`, which the command `own` does not produce"]
    );
    // Every instance of the command must produce the outputs.
    let swept = made.replace("outputs: [", "matrix: { outputs: [[samples.safetensors], [").replace("] }\n", "]] } }\n");
    assert_eq!(
        messages(&pipeline(&swept), &[]),
        ["`arms.own` reads `test_hr.safetensors`, `test_lr.safetensors`, which the command `own` does not produce"]
    );
}

#[test]
fn a_budget_needs_a_known_image_size() {
    let text = |optim: &str| {
        let made = "train_hr.safetensors, train_lr.safetensors, validation_hr.safetensors, validation_lr.safetensors";
        format!(
            "name: own\nstages:\n  own: {{ kind: command, command: [a], outputs: [{made}] }}\n  \
             model: {{ kind: train, data: own, optim: {{ {optim} }} }}\n"
        )
    };
    valid(&text("steps: 3"));
    assert_eq!(
        messages(&text("budget: 3, gflops: 50"), &[]),
        ["`optim.budget` needs images of a known size, but the file does not define the size of `own`"]
    );
}
