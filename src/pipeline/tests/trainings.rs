//! Tests of the training runs that arms depend on.

use super::*;
use crate::config::*;

/// Returns the training runs that every run of the arms `x` and `y` depends on, in a pipeline with these stages.
fn trainings(stages: &str) -> Vec<Vec<Vec<usize>>> {
    let text = format!(
        "\
name: trainings
defaults:
  train: {{ data: pairs, optim: {{ steps: 10 }} }}
  sample: {{ data: pairs }}
stages:
  images: {{ kind: fetch, dataset: synthetic }}
  pairs: {{ kind: degrade, input: images }}
{stages}
  compare: {{ kind: compare, arms: {{ x: x, y: y }} }}
"
    );
    let pipeline = valid(&text);
    let StageParams::Compare(compare) = &pipeline.stage("compare").unwrap().params else { unreachable!() };
    let of_arm = |arm: &Arm| arm.runs.iter().map(|run| run.trainings.clone()).collect();
    compare.arms.values().map(of_arm).collect()
}

fn command(name: &str, inputs: &str, outputs: &str, more: &str) -> String {
    format!(
        "  {name}: {{ kind: command, command: [make, '{{seed}}'], inputs: {{ {inputs} }}, outputs: [{outputs}]{more} }}\n"
    )
}

const SAMPLES: &str = "samples.safetensors, test_hr.safetensors, test_lr.safetensors";
const SEEDS: &str = ", matrix: { seed: [0, 1] }";

#[test]
fn every_seed_is_its_own_training_run() {
    let swept = "  a: { kind: train, matrix: { seed: [0, 1] } }\n  b: { kind: train, model: { base_channels: 8 }, matrix: { seed: [0, 1] } }\n";
    let samples = "  x: { kind: sample, model: a }\n  y: { kind: sample, model: b }\n";
    assert_eq!(trainings(&format!("{swept}{samples}")), [[[0], [1]], [[2], [3]]]);
}

#[test]
fn samples_and_copies_share_a_training_run() {
    let one = "  a: { kind: train }\n  b: { kind: train, seed: 3 }\n";
    let samples = "  sa: { kind: sample, model: a, matrix: { seed: [0, 1] } }\n  sb: { kind: sample, model: b, matrix: { seed: [0, 1] } }\n";
    let copies = command("x", "s: sa", SAMPLES, "") + &command("y", "s: sb", SAMPLES, "");
    let [x, y] = &trainings(&format!("{one}{samples}{copies}"))[..] else { panic!() };
    let shared = |a: &[usize], b: &[usize]| a.iter().any(|training| b.contains(training));
    assert!(shared(&x[0], &x[1]) && shared(&y[0], &y[1]) && !shared(&x[0], &y[0]), "{x:?} {y:?}");
}

#[test]
fn identical_stages_are_one_training_run() {
    let twice = "  a: { kind: train }\n  b: { kind: train, seed: 0 }\n";
    let samples = "  x: { kind: sample, model: a }\n  y: { kind: sample, model: b, seed: 5 }\n";
    assert_eq!(trainings(&format!("{twice}{samples}")), [[[0]], [[0]]]);
}

#[test]
fn commands_count_as_training_runs() {
    let of = |stages: [String; 4]| trainings(&stages.concat());
    let sample = |name: &str, model: &str, more: &str| command(name, &format!("m: {model}"), SAMPLES, more);
    // Each command trains with its own seed.
    let [a, b] = ["a", "b"].map(|name| command(name, "d: pairs", "model.pt", SEEDS));
    let b = b.replace("make", "make2");
    assert_eq!(
        of([a.clone(), b.clone(), sample("x", "a", ""), sample("y", "b", "")]),
        [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    );
    // One training, sampled with two seeds.
    let [a, b] = [a, b].map(|stage| stage.replace(SEEDS, ""));
    assert_eq!(of([a, b, sample("x", "a", SEEDS), sample("y", "b", SEEDS)]), [[[0, 1], [0, 2]], [[3, 4], [3, 5]]]);
}

#[test]
fn commands_that_prepare_data_do_not_count_as_training_runs() {
    let data = "train_hr.safetensors, validation_hr.safetensors, test_hr.safetensors";
    let prepared = command("prepared", "d: images", data, "");
    let programs = command("x", "d: prepared", SAMPLES, SEEDS) + &command("y", "e: prepared", SAMPLES, SEEDS);
    assert_eq!(trainings(&format!("{prepared}{programs}")), [[[0], [1]], [[2], [3]]]);
    let other = command("prepared", "d: images", "features.npy", "");
    assert_eq!(trainings(&format!("{other}{programs}")), [[[0, 1], [0, 2]], [[0, 3], [0, 4]]]);
}
