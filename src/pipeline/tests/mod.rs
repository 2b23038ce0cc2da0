//! Tests of whole files: parsed values, error messages, and robustness.

mod claims;
mod commands;
mod flags;
mod hostile;
mod messages;
mod not_yaml;
mod random_files;
mod random_sweeps;
mod scalars;
mod selection;
mod stages_refused;
mod sweeps;
mod trainings;
mod values;
mod values_refused;

use super::*;
use crate::config::TrainParams;

const QUICKSTART: &str = include_str!("../../../pipelines/quickstart.yaml");
const ABLATION: &str = include_str!("../../../pipelines/ablation.yaml");
const SEED: &str = include_str!("../../../pipelines/tutorial.yaml");
const SWEEP: &str = include_str!("../../../pipelines/sweep.yaml");
const FOLDER: &str = include_str!("../../../pipelines/folder.yaml");
const MAPS: &str = include_str!("../../../pipelines/maps.yaml");
const FILES: [&str; 6] = [QUICKSTART, ABLATION, SEED, SWEEP, FOLDER, MAPS];

/// A small valid pipeline that tests modify.
const SMALL: &str = "\
name: small
defaults:
  train: { data: pairs, optim: { steps: 10 } }
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images }
  model: { kind: train }
  samples: { kind: sample, model: model, data: pairs }
  compare: { kind: compare, arms: { only: samples } }
";

fn parse_with(text: &str, sets: &[&str]) -> Result<Pipeline, Diagnostics> {
    let flags = Flags { set: sets.iter().map(|s| s.to_string()).collect(), sweep: vec![] };
    parse("test.yaml", text, &flags)
}

/// Parses a valid pipeline; panics with its errors if it has any.
fn valid(text: &str) -> Pipeline {
    valid_with(text, &[])
}

fn valid_with(text: &str, sets: &[&str]) -> Pipeline {
    parse_with(text, sets).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Checks that the errors of `text` render as `expected`.
#[track_caller]
fn assert_errors(text: &str, sets: &[&str], expected: &str) {
    match parse_with(text, sets) {
        Ok(_) => panic!("the pipeline is valid"),
        Err(errors) => {
            let found = errors.render(false);
            assert!(found == expected.trim_matches('\n'), "found:\n{found}\nexpected:\n{expected}");
        }
    }
}

/// Returns the messages of all errors.
fn messages(text: &str, sets: &[&str]) -> Vec<String> {
    match parse_with(text, sets) {
        Ok(_) => vec![],
        Err(errors) => errors.errors().iter().map(|e| e.message.clone()).collect(),
    }
}

fn train<'a>(pipeline: &'a Pipeline, stage: &str) -> &'a TrainParams {
    match &pipeline.stage(stage).unwrap().params {
        StageParams::Train(p) => p,
        other => panic!("{other:?}"),
    }
}
