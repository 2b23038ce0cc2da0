//! Tests of selections.

use super::*;
use crate::config::{Arm, EvaluationSplit, SelectParams};

/// A sweep with a selection on validation images; tests replace parts of it.
const FILE: &str = "\
name: selection
matrix: { seed: [0, 1] }
defaults:
  train: { data: pairs, optim: { steps: 10 } }
  sample: { data: pairs }
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images }
  unet: { kind: train, matrix: { model.base_channels: [8, 16] } }
  other: { kind: train, model: { base_channels: 32 } }
  validate: { kind: sample, model: unet, split: validation }
  choices: { kind: compare, arms: { unet: validate } }
  best: { kind: select, from: choices, by: crps }
  test: { kind: sample, model: best }
  test_other: { kind: sample, model: other }
  compare: { kind: compare, arms: { best: test, other: test_other } }
";

fn select<'a>(pipeline: &'a Pipeline, stage: &str) -> &'a SelectParams {
    match &pipeline.stage(stage).unwrap().params {
        StageParams::Select(params) => params,
        other => panic!("{other:?}"),
    }
}

fn arm<'a>(pipeline: &'a Pipeline, stage: &str, arm: &str) -> &'a Arm {
    match &pipeline.stage(stage).unwrap().params {
        StageParams::Compare(params) => &params.arms[arm],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_selection_has_an_instance_per_seed_with_the_models_of_that_seed() {
    let pipeline = valid(FILE);
    for seed in [0, 1] {
        let params = select(&pipeline, &format!("best[seed={seed}]"));
        let candidates: Vec<(&str, &str)> =
            params.candidates.iter().map(|(arm, candidate)| (arm.as_str(), candidate.stage.as_str())).collect();
        let model = |channels| format!("unet[base_channels={channels},seed={seed}]");
        assert_eq!(candidates, [("unet[base_channels=16]", &*model(16)), ("unet[base_channels=8]", &*model(8))]);
        let StageParams::Sample(test) = &pipeline.stage(&format!("test[seed={seed}]")).unwrap().params else {
            panic!()
        };
        assert_eq!((test.model.as_str(), test.split), (&*format!("best[seed={seed}]"), EvaluationSplit::Test));
    }
    assert!(pipeline.stage("choices").is_some(), "the comparison gathers all seeds");
    let without_seeds = valid(&FILE.replace("matrix: { seed: [0, 1] }\n", ""));
    assert_eq!(select(&without_seeds, "best").candidates.len(), 2);
    // Models without a swept seed are candidates for every seed.
    let fixed = "validate: { kind: sample, model: unet, split: validation }\n  \
                 validate_fixed: { kind: sample, model: fixed, split: validation }\n  \
                 fixed: { kind: train, seed: 5, model: { base_channels: 4 } }";
    let mixed = FILE.replace("validate: { kind: sample, model: unet, split: validation }", fixed);
    let mixed = valid(&mixed.replace("arms: { unet: validate }", "arms: { unet: validate, fixed: validate_fixed }"));
    assert_eq!(select(&mixed, "best[seed=1]").candidates["fixed"].stage, "fixed");
}

#[test]
fn stages_with_a_matrix_of_their_own_are_selected_by_equal_seeds() {
    let text = FILE.replace("matrix: { seed: [0, 1] }\n", "");
    let text = text.replace("model.base_channels: [8, 16] }", "model.base_channels: [8, 16], seed: [0, 1] }");
    let text = text.replace(
        "base_channels: 32 } }",
        "base_channels: 32 }, matrix: { seed: [0, 1] } }\n  validate_other: { kind: sample, model: other, split: validation }",
    );
    let pipeline = valid(&text.replace("arms: { unet: validate }", "arms: { unet: validate, other: validate_other }"));
    for seed in [0, 1] {
        let candidates = &select(&pipeline, &format!("best[seed={seed}]")).candidates;
        assert_eq!(candidates["other"].stage, format!("other[seed={seed}]"));
        assert_eq!(candidates["unet[base_channels=8]"].stage, format!("unet[base_channels=8,seed={seed}]"));
    }
    assert!(pipeline.stage("test[seed=1]").is_some() && pipeline.stage("best").is_none());
}

#[test]
fn samples_use_the_seed_of_their_model_unless_they_have_their_own() {
    let text = FILE.replace("matrix: { seed: [0, 1] }\n", "");
    let text = text.replace("model.base_channels: [8, 16] }", "model.base_channels: [8, 16], seed: [3, 4] }");
    let seed = |text: &str, stage: &str| valid(text).stage(stage).unwrap().params.seed(7);
    assert_eq!(seed(&text, "validate[base_channels=8,seed=4]"), Some(4));
    assert_eq!(seed(&text, "test[seed=3]"), Some(3), "through a selection");
    assert_eq!(seed(&text, "test_other"), Some(7), "the seed of the pipeline");
    let own = text.replace("model: unet, split: validation", "model: unet, split: validation, seed: 9");
    assert_eq!(seed(&own, "validate[base_channels=8,seed=4]"), Some(9));
}

#[test]
fn sampling_seeds_do_not_multiply_selections() {
    let text = FILE.replace("matrix: { seed: [0, 1] }\n", "");
    let text = text.replace("split: validation }", "split: validation, matrix: { seed: [3, 4, 5] } }");
    let pipeline = valid(&text);
    assert_eq!(select(&pipeline, "best").candidates.len(), 2);
    assert_eq!(arm(&pipeline, "choices", "unet[base_channels=8]").runs.len(), 3);
}

#[test]
fn comparisons_record_splits_and_selected_models() {
    let pipeline = valid(FILE);
    let of = |stage, name| -> Vec<(EvaluationSplit, bool, usize)> {
        let runs = arm(&pipeline, stage, name).runs.iter();
        runs.map(|run| (run.split, run.is_selected, run.trainings.len())).collect()
    };
    assert_eq!(of("choices", "unet[base_channels=8]"), [(EvaluationSplit::Validation, false, 1); 2]);
    // The selected model depends on the candidates with its seed.
    assert_eq!(of("compare", "best"), [(EvaluationSplit::Test, true, 2); 2]);
    assert_eq!(of("compare", "other"), [(EvaluationSplit::Test, false, 1); 2]);
    let trainings: Vec<usize> =
        arm(&pipeline, "compare", "best").runs.iter().flat_map(|run| run.trainings.clone()).collect();
    assert_eq!(trainings, [0, 1, 2, 3], "seeds share no training run");
}

/// Returns the messages of the errors after replacing `part` of the file.
fn errors(part: &str, new: &str) -> Vec<String> {
    assert!(FILE.contains(part), "{part}");
    messages(&FILE.replace(part, new), &[])
}

#[test]
fn a_selection_by_test_images_is_refused() {
    let found = errors(", split: validation", "");
    assert!(found[0].starts_with("`choices` compares test images; images that a model is selected on"), "{found:?}");
}

#[test]
fn arms_with_different_splits_are_refused() {
    let found = errors("model: best }", "model: best, split: validation }");
    assert_eq!(
        found,
        ["arms must have the same images, but `other` samples test images and `best` samples validation images"]
    );
}

#[test]
fn candidates_must_be_comparable() {
    let twice = |more: &str| {
        format!(
            "split: validation }}\n  again: {{ kind: sample, model: other, split: validation{more} }}\n  \
             more: {{ kind: compare, arms: {{ unet: validate, other: again }} }}\n  \
             best_of_more: {{ kind: select, from: more, by: BY }}"
        )
    };
    let with = |more: &str, by: &str| errors("split: validation }", &twice(more).replace("BY", by));
    assert_eq!(with("", "crps"), [""; 0]);
    let differs =
        |parameter: &str| [format!("arms `other` and `unet[base_channels=16]` of `more` differ in `{parameter}`")];
    assert_eq!(with(", sampler: { steps: 5 }", "crps"), differs("sampler"));
    assert_eq!(with(", samples: 2", "crps"), differs("samples"));
    assert_eq!(with(", weights: raw", "crps"), differs("weights"));
    assert_eq!(with("", "steps_to_loss"), ["`steps_to_loss` compares two arms, so it cannot select one of several"]);
    let regression = FILE.replace("base_channels: 32 }", "base_channels: 32 }, diffusion: { objective: regression }");
    let by = |by: &str| messages(&regression.replace("split: validation }", &twice("").replace("BY", by)), &[]);
    for metric in ["psnr_sample", "val_loss"] {
        let found = by(metric);
        assert!(found[0].starts_with(&format!("`{metric}` cannot select between `other` and")), "{found:?}");
    }
    let same = "  validate_again: { kind: sample, model: unet, split: validation }\n  \
                choices: { kind: compare, arms: { unet: validate, again: validate_again } }";
    let found = errors("  choices: { kind: compare, arms: { unet: validate } }", same);
    assert!(found[0].contains("sample the same model"), "{found:?}");
}

#[test]
fn commands_have_no_model_to_select() {
    let command = "choices: { kind: compare, arms: { unet: validate, own: own } }\n  \
                   own: { kind: command, command: [a], inputs: { d: pairs }, outputs: [samples.safetensors, \
                   validation_hr.safetensors, test_hr.safetensors, test_lr.safetensors] }";
    let found = errors("choices: { kind: compare, arms: { unet: validate } }", command);
    assert!(found.iter().any(|error| error == "arm `own` of `choices` has no model to select"), "{found:?}");
}

#[test]
fn a_claim_about_a_selected_model_is_refused() {
    let claims = "other: test_other }, claims: { c: { arm: best, control: other, endpoint: crps } } }";
    let found = errors("other: test_other } }", claims);
    assert!(found[0].starts_with("claim `c` is about `best`, whose model was selected"), "{found:?}");
}

#[test]
fn references_to_and_from_a_selection_are_checked() {
    assert_eq!(
        errors("from: choices", "from: unet"),
        ["`from` must refer to a compare stage, but `unet` is a train stage"]
    );
    assert_eq!(
        errors("model: best }", "model: choices }"),
        ["`model` must refer to a train or select stage, but `choices` is a compare stage"]
    );
    let circular = errors("model: unet, split", "model: best, split");
    assert!(circular[0].starts_with("circular dependency: "), "{circular:?}");
    let found = errors("by: crps", "by: sharpness");
    assert!(found[0].contains("`by`"), "{found:?}");
}
