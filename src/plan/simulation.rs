//! Simulated stages for tests: outputs are digests that depend on the same things as those of real stages.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;
use crate::config::blobs::*;
use crate::pipeline::Stage;
use crate::store::canonical_json;
use crate::store::{Action, Artifact, Cost, Digest, Key};

pub(super) type World = BTreeMap<Key, Action>;

pub(super) fn stage(name: &str, params: Value) -> Stage {
    Stage::new(name, serde_json::from_value(params).unwrap())
}

pub(super) fn pipeline(stages: Vec<Stage>) -> Pipeline {
    Pipeline::of_stages(stages)
}

/// Returns the outputs of a stage with this preimage.
fn run(preimage: &Preimage) -> Artifact {
    let of = |value: Value| Digest::of(canonical_json(&value).as_bytes());
    let passed = |role: &str, name: &str| preimage.inputs[role][name].clone();
    let all = |name: &str| {
        let mut preimage = preimage.to_value();
        // Here, `validation` does not change the outputs. In preimages it has its older name.
        preimage["params"].as_object_mut().unwrap().remove("heldout");
        of(json!([preimage, name]))
    };
    let splits =
        [("train", TRAIN_HR, TRAIN_LR), ("validation", VALIDATION_HR, VALIDATION_LR), ("test", TEST_HR, TEST_LR)];
    let outputs: Vec<(&str, Digest)> = match preimage.kind {
        StageKind::Fetch => {
            let split = |(split, hr, _)| (hr, of(json!([preimage.seed, split, preimage.params[split]])));
            splits.map(split).into()
        }
        StageKind::Degrade => {
            let pair = |(_, hr, lr)| {
                let image = passed("input", hr);
                [(lr, of(json!([image, preimage.params]))), (hr, image)]
            };
            splits.map(pair).concat()
        }
        StageKind::Train => [WEIGHTS, EMA, LOSS].map(|name| (name, all(name))).into(),
        StageKind::Sample => {
            let hr_and_lr =
                if preimage.params["split"].is_null() { [TEST_HR, TEST_LR] } else { [VALIDATION_HR, VALIDATION_LR] };
            let data = hr_and_lr.map(|name| (name, passed("data", name)));
            [&data[..], &[(LOSS, passed("model", LOSS)), (SAMPLES, all(SAMPLES))]].concat()
        }
        StageKind::Select => {
            let candidates = preimage.inputs.iter().filter(|(role, _)| *role != "from").map(|(_, blobs)| blobs);
            let best = candidates.min_by_key(|blobs| of(json!(blobs))).expect("a selection has candidates");
            let model = [EMA, WEIGHTS, LOSS].map(|name| (name, best[name].clone()));
            model.into_iter().chain([(SELECTION, all(SELECTION))]).collect()
        }
        StageKind::Compare => [METRICS, SUMMARY, COMPARISON, LOSS_CURVES].map(|name| (name, all(name))).into(),
        StageKind::Command => {
            let declared = preimage.params["outputs"].as_array().unwrap().iter();
            declared.map(|name| name.as_str().unwrap()).map(|name| (name, all(name))).collect()
        }
    };
    outputs.into_iter().map(|(name, digest)| (name.to_string(), digest)).collect()
}

pub(super) fn action(preimage: &Preimage) -> Action {
    Action { preimage: preimage.to_value(), outputs: run(preimage), metrics: BTreeMap::new(), cost: Cost::default() }
}

pub(super) fn states_of(plan: &Plan, world: &World) -> Vec<StageState> {
    states(plan, world, &Sources::new(), BackendClass::Cpu)
}

/// Runs ready stages until there are none, the last one first. Returns the final states and the keys that ran.
pub(super) fn run_all(plan: &Plan, world: &mut World) -> (Vec<StageState>, BTreeSet<Key>) {
    let mut states = states_of(plan, world);
    let mut ran = BTreeSet::new();
    loop {
        let ready = states.iter().enumerate().rev().find_map(|(i, state)| match state {
            StageState::Ready { key, preimage } => Some((i, key.clone(), preimage.clone())),
            _ => None,
        });
        let Some((i, key, preimage)) = ready else { return (states, ran) };
        assert_eq!(preimage.key(), key);
        assert!(world.insert(key.clone(), action(&preimage)).is_none(), "a cached key ran again");
        ran.insert(key);
        let before = states.clone();
        let seen = advance(plan, &mut states, i, world, &Sources::new(), BackendClass::Cpu);
        assert_eq!(states, states_of(plan, world), "`advance` gives the same states as `states`");
        assert!((0..states.len()).all(|j| seen.contains(&j) || states[j] == before[j]));
        check_states(plan, &states);
    }
}

pub(super) fn is_cached(state: &StageState) -> bool {
    matches!(state, StageState::Cached { .. })
}

pub(super) fn check_states(plan: &Plan, states: &[StageState]) {
    for (stage, state) in plan.stages.iter().zip(states) {
        let missing: Vec<usize> = stage.dependencies.iter().copied().filter(|&i| !is_cached(&states[i])).collect();
        match state {
            StageState::Waiting { on } => assert!(!on.is_empty() && *on == missing),
            StageState::Ready { .. } | StageState::Cached { .. } => assert!(missing.is_empty()),
        }
    }
}

pub(super) fn keys(states: &[StageState]) -> Vec<Key> {
    states.iter().map(|state| state.key().expect("all stages are cached").clone()).collect()
}
