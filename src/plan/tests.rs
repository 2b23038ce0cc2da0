//! Simulates plans of random pipelines and of a pipeline with one stage per kind.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::simulation::*;
use super::*;
use crate::config::blobs::*;
use crate::config::*;
use crate::pipeline::Stage;
use crate::store::Digest;

/// Returns a pipeline with one stage per kind. Both arms of the comparison use the same samples.
fn one_of_each() -> Pipeline {
    pipeline(vec![
        stage("images", json!({"kind": "fetch", "dataset": "synthetic"})),
        stage("pairs", json!({"kind": "degrade", "input": "images"})),
        stage("model", json!({"kind": "train", "data": "pairs"})),
        stage("samples", json!({"kind": "sample", "model": "model", "data": "pairs"})),
        stage("compare", json!({"kind": "compare", "arms": {"a": "samples", "b": "samples"}})),
    ])
}

/// Builds a pipeline stage by stage. Each choice consists of a kind, the earlier stages to read, and a parameter value.
fn grow(choices: &[(u8, prop::sample::Index, prop::sample::Index, u8)]) -> Pipeline {
    let mut stages: Vec<Stage> = vec![];
    for (i, &(kind, a, b, value)) in choices.iter().enumerate() {
        let earlier = |kind: StageKind, index: prop::sample::Index| {
            let names: Vec<_> = stages.iter().filter(|s| s.params.kind() == kind).map(|s| s.name.clone()).collect();
            (!names.is_empty()).then(|| index.get(&names).clone())
        };
        let (data, model) = (earlier(StageKind::Degrade, a), earlier(StageKind::Train, b));
        let params = match (kind % 6, earlier(StageKind::Fetch, a), data, model, earlier(StageKind::Sample, a)) {
            (1, Some(input), ..) => json!({"kind": "degrade", "input": input, "scale": 2 << (value % 2)}),
            (2, _, Some(data), ..) => json!({"kind": "train", "data": data, "optim": {"steps": value}}),
            (3 | 4, _, Some(data), Some(model), _) => {
                json!({"kind": "sample", "model": model, "data": data, "samples": value})
            }
            (5, .., Some(arm)) => {
                let arms = json!({"a": arm, "b": earlier(StageKind::Sample, b)});
                json!({"kind": "compare", "arms": arms, "rows": value})
            }
            _ => json!({"kind": "fetch", "dataset": "synthetic", "train": value}),
        };
        stages.push(stage(&format!("stage_{i}"), params));
    }
    pipeline(stages)
}

fn any_pipeline() -> impl Strategy<Value = Pipeline> {
    let choice = (any::<u8>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..4u8);
    prop::collection::vec(choice, 1..24).prop_map(|choices| grow(&choices))
}

/// Changes a parameter to a value that [`grow`] does not use. Returns the outputs that change, and whether the key
/// changes.
fn edit(params: &mut StageParams, which: bool) -> (Vec<&'static str>, bool) {
    match params {
        StageParams::Fetch(FetchParams::Synthetic(p)) if which => {
            p.train += 1000;
            (vec![TRAIN_HR], true)
        }
        StageParams::Fetch(FetchParams::Synthetic(p)) => {
            p.test += 1000;
            (vec![TEST_HR], true)
        }
        StageParams::Fetch(FetchParams::Cifar10(_) | FetchParams::Folder(_) | FetchParams::Maps(_))
        | StageParams::Select(_)
        | StageParams::Command(_) => {
            unreachable!("`grow` does not create it")
        }
        StageParams::Degrade(p) => {
            p.scale = 8;
            (vec![TRAIN_LR, VALIDATION_LR, TEST_LR], true)
        }
        StageParams::Train(p) if which => {
            p.optim.lr *= 2.0;
            (vec![WEIGHTS, EMA, LOSS], true)
        }
        StageParams::Train(p) => {
            p.validation.every += 1;
            (vec![], true)
        }
        StageParams::Sample(p) if which => {
            p.samples += 10;
            (vec![SAMPLES], true)
        }
        StageParams::Sample(p) => {
            p.batch_size += 1;
            (vec![], false)
        }
        StageParams::Compare(p) => {
            p.rows += 10;
            (vec![METRICS, SUMMARY], true)
        }
    }
}

/// Returns the outputs that change if these inputs (role and blob) change.
fn spread(kind: StageKind, changed: &[(String, &'static str)]) -> Vec<&'static str> {
    let is_changed = |role: &str, name: &str| changed.iter().any(|(r, n)| r == role && *n == name);
    let pairs = [(TRAIN_HR, TRAIN_LR), (VALIDATION_HR, VALIDATION_LR), (TEST_HR, TEST_LR)];
    match kind {
        StageKind::Fetch => vec![],
        StageKind::Degrade => {
            pairs.iter().filter(|(hr, _)| is_changed("input", hr)).flat_map(|&(hr, lr)| [hr, lr]).collect()
        }
        StageKind::Train => vec![WEIGHTS, EMA, LOSS],
        StageKind::Sample => {
            let data = [TEST_HR, TEST_LR].into_iter().filter(|name| is_changed("data", name));
            data.chain(is_changed("model", LOSS).then_some(LOSS)).chain([SAMPLES]).collect()
        }
        StageKind::Compare => vec![METRICS, SUMMARY],
        StageKind::Select | StageKind::Command => unreachable!("`grow` does not create it"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_stage_runs_once_after_its_inputs(pipeline in any_pipeline()) {
        let plan = plan(&pipeline);
        let mut world = World::new();
        check_states(&plan, &states_of(&plan, &world));
        let (states, ran) = run_all(&plan, &mut world);
        prop_assert_eq!(&keys(&states).into_iter().collect::<BTreeSet<_>>(), &ran);
        prop_assert!(states.iter().all(is_cached));
        let (again, ran) = run_all(&plan, &mut world);
        prop_assert!(ran.is_empty() && again == states);
    }

    #[test]
    fn an_edit_changes_only_keys_that_depend_on_it(
        pipeline in any_pipeline(),
        index in any::<prop::sample::Index>(),
        which: bool,
    ) {
        let before = plan(&pipeline);
        let mut world = World::new();
        let (states, _) = run_all(&before, &mut world);

        let mut edited = pipeline.clone();
        let index = index.index(edited.stages.len());
        let (blobs, key_changes) = edit(&mut edited.stages[index].params, which);
        let mut changed_blobs: Vec<Vec<&'static str>> = vec![vec![]; edited.stages.len()];
        let mut changed_keys = vec![];
        for (i, stage) in before.stages.iter().enumerate() {
            let inputs = stage.inputs.iter().flat_map(|input| {
                let changed = changed_blobs[input.stage].iter().filter(|name| input.blobs.contains(name));
                changed.map(|name| (input.role.clone(), *name))
            });
            let inputs: Vec<_> = inputs.collect();
            if i == index {
                changed_blobs[i] = blobs.clone();
                changed_keys.extend(key_changes.then_some(i));
            } else if !inputs.is_empty() {
                changed_blobs[i] = spread(stage.kind, &inputs);
                changed_keys.push(i);
            }
        }

        let after = plan(&edited);
        let (new_states, ran) = run_all(&after, &mut world);
        let (old, new) = (keys(&states), keys(&new_states));
        let differ: Vec<usize> = (0..old.len()).filter(|&i| old[i] != new[i]).collect();
        prop_assert_eq!(&differ, &changed_keys);
        prop_assert_eq!(ran, changed_keys.iter().map(|&i| new[i].clone()).collect::<BTreeSet<_>>());
        // After undoing the edit, nothing runs.
        let (back, ran) = run_all(&before, &mut world);
        prop_assert!(ran.is_empty() && back == states);
    }

    #[test]
    fn names_of_stages_do_not_matter(pipeline in any_pipeline()) {
        let mut renamed = pipeline.clone();
        let new = |name: &mut String| name.insert_str(0, "other_");
        for stage in &mut renamed.stages {
            new(&mut stage.name);
            stage.params.rename_inputs(new);
        }
        let mut world = World::new();
        let (states, _) = run_all(&plan(&pipeline), &mut world);
        let (same, ran) = run_all(&plan(&renamed), &mut world);
        prop_assert!(ran.is_empty() && same == states);
    }
}

/// Returns the stages whose keys change after `change` is applied to [`one_of_each`] and all stages have run.
fn changed_by(change: impl FnOnce(&mut Pipeline), backend: BackendClass) -> Vec<String> {
    let mut world = World::new();
    let before = one_of_each();
    let mut after = before.clone();
    change(&mut after);
    let mut run = |pipeline: &Pipeline, backend| {
        let plan = plan(pipeline);
        for _ in &plan.stages {
            for state in states(&plan, &world, &Sources::new(), backend) {
                if let StageState::Ready { key, preimage } = state {
                    // Make outputs independent of the backend, to see only direct effects.
                    world.insert(key, action(&Preimage { backend: None, ..preimage }));
                }
            }
        }
        keys(&states(&plan, &world, &Sources::new(), backend))
    };
    let (old, new) = (run(&before, BackendClass::Cpu), run(&after, backend));
    let differ = (0..old.len()).filter(|&i| old[i] != new[i]);
    differ.map(|i| before.stages[i].name.clone()).collect()
}

#[test]
fn edges_are_unique() {
    let plan = plan(&one_of_each());
    let dependencies: Vec<_> = plan.stages.iter().map(|stage| stage.dependencies.clone()).collect();
    let dependents: Vec<_> = plan.stages.iter().map(|stage| stage.dependents.clone()).collect();
    assert_eq!(dependencies, [vec![], vec![0], vec![1], vec![1, 2], vec![3]]);
    assert_eq!(dependents, [vec![1], vec![2, 3], vec![3], vec![4], vec![]]);
    assert_eq!(plan.stages[4].inputs.len(), 2);
}

#[test]
fn only_stages_that_draw_numbers_read_the_seed() {
    let seeds: Vec<_> = plan(&one_of_each()).stages.iter().map(|stage| stage.seed).collect();
    assert_eq!(seeds, [Some(0), None, Some(0), Some(0), None]);
    assert_eq!(changed_by(|p| p.seed = 1, BackendClass::Cpu), ["images", "pairs", "model", "samples", "compare"]);
    // A stage's own seed overrides the pipeline's. Repeating the pipeline's seed changes nothing.
    let own = |seed| {
        move |p: &mut Pipeline| match &mut p.stages[2].params {
            StageParams::Train(train) => train.seed = Some(seed),
            _ => unreachable!(),
        }
    };
    assert_eq!(changed_by(own(1), BackendClass::Cpu), ["model", "samples", "compare"]);
    assert!(changed_by(own(0), BackendClass::Cpu).is_empty());
}

#[test]
fn an_input_recomputed_with_the_same_bytes_reruns_no_dependents() {
    let measure_more_often = |p: &mut Pipeline| match &mut p.stages[2].params {
        StageParams::Train(train) => train.validation.every = 10,
        _ => unreachable!(),
    };
    assert_eq!(changed_by(measure_more_often, BackendClass::Cpu), ["model"]);
}

#[test]
fn only_stages_that_run_networks_read_the_backend() {
    assert_eq!(changed_by(|_| {}, BackendClass::Cuda), ["model", "samples"]);
    assert!(changed_by(|_| {}, BackendClass::Cpu).is_empty());
}

#[test]
fn the_names_of_arms_matter() {
    let rename = |p: &mut Pipeline| match &mut p.stages[4].params {
        StageParams::Compare(compare) => {
            let arm = compare.arms.remove("a").unwrap();
            compare.arms.insert("z".to_string(), Arm { of: "z".to_string(), ..arm });
        }
        _ => unreachable!(),
    };
    assert_eq!(changed_by(rename, BackendClass::Cpu), ["compare"]);
}

#[test]
fn the_key_depends_on_the_archive_but_not_on_its_url() {
    let fetch = |url: &str| {
        plan(&pipeline(vec![stage(
            "cifar",
            json!({"kind": "fetch", "dataset": "cifar10", "url": url, "mirrors": [url]}),
        )]))
    };
    let key = |plan: &Plan, archive: &[u8]| {
        let sources = [("cifar".to_string(), [("archive".to_string(), Digest::of(archive))].into())].into();
        states(plan, &World::new(), &sources, BackendClass::Cpu)[0].key().unwrap().clone()
    };
    assert_eq!(key(&fetch("file:a"), b"1"), key(&fetch("https://b"), b"1"));
    assert_ne!(key(&fetch("file:a"), b"1"), key(&fetch("file:a"), b"2"));
}

#[test]
fn stages_with_equal_keys_are_updated_together() {
    let mut twice = one_of_each();
    let mut twin = twice.stages[1].clone();
    twin.name = "twin".to_string();
    twice.stages.push(twin);
    let plan = plan(&twice);
    let mut world = World::new();
    let (states, ran) = run_all(&plan, &mut world);
    assert_eq!(states[1], states[5]);
    assert_eq!(ran.len(), 5);
    // Removing the result affects both.
    let mut states = states;
    world.remove(states[1].key().unwrap());
    let seen = advance(&plan, &mut states, 5, &world, &Sources::new(), BackendClass::Cpu);
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    assert_eq!(states, states_of(&plan, &world));
}

#[test]
fn a_result_with_a_missing_output_is_not_cached() {
    let plan = plan(&one_of_each());
    let mut world = World::new();
    let (states, _) = run_all(&plan, &mut world);
    let StageState::Cached { key, action } = &states[2] else { unreachable!() };
    let mut lacking = action.clone();
    lacking.outputs.remove(LOSS);
    let mut other = action.clone();
    other.outputs.insert("other.csv".to_string(), action.outputs[LOSS].clone());
    for wrong in [lacking, other] {
        world.insert(key.clone(), wrong);
        assert!(matches!(states_of(&plan, &world)[2], StageState::Ready { .. }));
    }
    // This output is optional.
    let mut more = action.clone();
    more.outputs.insert(ATTENTION.to_string(), action.outputs[LOSS].clone());
    world.insert(key.clone(), more);
    assert!(is_cached(&states_of(&plan, &world)[2]));
}

#[test]
fn ten_thousand_stages_are_planned_in_a_second() {
    let mut stages = vec![stage("images", json!({"kind": "fetch", "dataset": "synthetic"}))];
    stages.push(stage("pairs", json!({"kind": "degrade", "input": "images"})));
    stages.extend(
        (0..10_000).map(|i| stage(&format!("model[seed={i}]"), json!({"kind": "train", "data": "pairs", "seed": i}))),
    );
    let pipeline = pipeline(stages);
    let mut world = World::new();
    let start = cpu_seconds();
    let plan = plan(&pipeline);
    for i in 0..2 {
        let StageState::Ready { key, preimage } = &states_of(&plan, &world)[i] else { unreachable!() };
        world.insert(key.clone(), action(preimage));
    }
    let ready = states_of(&plan, &world).iter().filter(|state| matches!(state, StageState::Ready { .. })).count();
    assert_eq!(ready, 10_000);
    if let (Some(start), Some(end)) = (start, cpu_seconds()) {
        assert!(end - start < 1.0, "{} s", end - start);
    }
}

/// Returns the CPU time of this thread in seconds, if available. Unlike wall time, it does not depend on other
/// processes.
fn cpu_seconds() -> Option<f64> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    schedstat.split(' ').next()?.parse::<f64>().ok().map(|ns| ns * 1e-9)
}

/// Parses a pipeline with a sweep over `lrs` and `seeds`, with the keys of each stage in the order `order`.
fn swept(lrs: &[String], seeds: &[u64], order: &[usize]) -> Pipeline {
    let sorted = |parts: &[&str]| {
        let chosen = order.iter().filter(|&&i| i < parts.len()).map(|&i| parts[i].to_string());
        chosen.collect::<Vec<_>>().join(", ")
    };
    let model =
        sorted(&["kind: train", "data: pairs", "optim: { steps: 3, batch_size: 1e1 }", "model: { base_channels: 8 }"]);
    let samples = sorted(&["kind: sample", "model: model", "data: pairs", "samples: 2"]);
    let text = format!(
        "name: x\nstages:\n  images: {{ dataset: synthetic, kind: fetch }}\n  pairs: {{ input: images, kind: degrade }}\n  \
         model: {{ {model}, matrix: {{ optim.lr: [{}], seed: {seeds:?} }} }}\n  samples: {{ {samples} }}\n  \
         compare: {{ kind: compare, arms: {{ a: samples }} }}\n",
        lrs.join(", ")
    );
    crate::pipeline::parse("x.yaml", text, &crate::pipeline::Flags::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs all stages and returns their keys by name.
fn keys_by_name(pipeline: &Pipeline, world: &mut World) -> std::collections::BTreeMap<String, crate::store::Key> {
    let plan = plan(pipeline);
    let (states, _) = run_all(&plan, world);
    plan.stages.iter().map(|stage| stage.name.clone()).zip(keys(&states)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keys_do_not_depend_on_the_order_or_spelling_in_the_file(
        exponents in prop::collection::btree_set(1..9u32, 1..4),
        order in Just((0..4).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let short: Vec<String> = exponents.iter().map(|e| format!("1e-{e}")).collect();
        let long: Vec<String> = exponents.iter().map(|e| format!("{:.*}", *e as usize, 10f64.powi(-(*e as i32)))).collect();
        let mut world = World::new();
        let one = keys_by_name(&swept(&short, &[0, 1], &[0, 1, 2, 3]), &mut world);
        prop_assert_eq!(one, keys_by_name(&swept(&long, &[0, 1], &order), &mut world));
    }

    #[test]
    fn an_axis_value_changes_only_the_keys_of_its_instances(
        lrs in prop::collection::btree_set(1..100u32, 1..4),
        seeds in prop::collection::btree_set(0..100u64, 1..4),
        which in any::<prop::sample::Index>(),
    ) {
        let text = |lr: &u32| format!("{lr}e-3");
        let seeds: Vec<u64> = seeds.into_iter().collect();
        let before: Vec<String> = lrs.iter().map(text).collect();
        let mut after = before.clone();
        let changed = which.index(after.len());
        after[changed] = "5.0e-1".to_string();
        let mut world = World::new();
        let old = keys_by_name(&swept(&before, &seeds, &[0, 1, 2, 3]), &mut world);
        let new = keys_by_name(&swept(&after, &seeds, &[0, 1, 2, 3]), &mut world);
        prop_assert_eq!(old.len(), 3 + 2 * lrs.len() * seeds.len());
        for (name, key) in &new {
            match old.get(name) {
                Some(known) => prop_assert_eq!(known == key, name != "compare", "{}", name),
                None => prop_assert!(name.contains("lr=0.5"), "{}", name),
            }
        }
        prop_assert_eq!(new.len(), old.len());
        // All instances have different keys.
        prop_assert_eq!(new.values().collect::<BTreeSet<_>>().len(), new.len());
    }
}
