//! Explains why stages run, by their differences from the most similar past result, and estimates how long they take.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::state::preimage_without_inputs;
use super::{BackendClass, Plan, Preimage, Sources, StageState};
use crate::config::StageKind;
use crate::store::{Action, Key};

/// All past results.
#[derive(Debug, Default)]
pub struct History {
    /// By kind, the newest first.
    results: BTreeMap<StageKind, Vec<PastResult>>,
}

/// A past result, whose blobs may have been removed.
#[derive(Debug)]
struct PastResult {
    key: Key,
    preimage: Preimage,
    fields: Fields,
    fingerprint: Fingerprint,
    seconds: f64,
}

/// The maximum number of results to consider per kind.
const MAX_RESULTS: usize = 2000;

/// A part of a preimage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// A parameter, by its path in the stage.
    Param(String),
    Seed,
    Backend,
    /// The version of the kind's implementation.
    CodeVersion,
    /// External content, by its role.
    Source(String),
    /// The content of a blob of an input.
    Input {
        role: String,
        blob: String,
    },
}

type Fields = BTreeMap<Field, Value>;

/// A field whose value changed. `before` or `now` is None if the field did not exist.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub field: Field,
    pub before: Option<Value>,
    pub now: Option<Value>,
}

/// Why a stage is cached, runs or waits.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Its result is cached.
    Cached,
    /// There is no past result of its kind.
    New,
    /// It ran before, but its record or a blob is missing.
    Lost,
    /// The user forced it to run.
    Forced,
    /// These fields differ from the most similar past result, which has the key `key`.
    Changed { key: Key, differences: Vec<Difference> },
    /// It depends on stages that run. Everything else is the same as in a past result.
    Waiting,
}

impl History {
    /// Creates a history from recorded actions in any order.
    pub fn new(actions: Vec<(Key, Action)>) -> Self {
        let mut newest = actions;
        newest.sort_by(|a, b| b.1.cost.finished_at.cmp(&a.1.cost.finished_at));
        let mut results: BTreeMap<StageKind, Vec<PastResult>> = BTreeMap::new();
        for (key, action) in newest {
            // Records of other versions may have another format.
            let Some(preimage) = Preimage::of(&action) else { continue };
            let of_kind = results.entry(preimage.kind).or_default();
            if of_kind.len() < MAX_RESULTS {
                let fields = fields(&preimage);
                let fingerprint = fingerprint(&fields, true);
                of_kind.push(PastResult { key, fields, fingerprint, preimage, seconds: action.cost.seconds });
            }
        }
        Self { results }
    }

    /// Returns the past result that is most similar to `fields`, and the differences; of several, the newest. Ignores
    /// inputs if `inputs` is false.
    fn nearest(&self, kind: StageKind, fields: &Fields, inputs: bool) -> Option<(&PastResult, Vec<Difference>)> {
        let now = fingerprint(fields, inputs);
        let mut best: Option<(&PastResult, Weight)> = None;
        for result in self.results.get(&kind).into_iter().flatten() {
            let least = best.map_or(Weight::MAX, |(_, least)| least);
            if let Some(weight) = weight_below(least, &result.fingerprint, &now, inputs) {
                best = Some((result, weight));
            }
        }
        best.map(|(result, _)| (result, differences(&result.fields, fields, inputs)))
    }
}

/// The explanation of one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub reason: Reason,
    /// The time that it took, or an estimate; None if there is no comparable past result.
    pub seconds: Option<f64>,
}

/// Explains the state of each stage of `plan`. `forced` contains the indices of the stages that run in any case.
pub fn explain(
    plan: &Plan,
    states: &[StageState],
    forced: &BTreeSet<usize>,
    sources: &Sources,
    backend: BackendClass,
    history: &History,
) -> Vec<Explanation> {
    let one = |(index, (stage, state)): (usize, (&super::PlannedStage, &StageState))| {
        let (preimage, inputs) = match state {
            StageState::Cached { action, .. } => {
                return Explanation { reason: Reason::Cached, seconds: Some(action.cost.seconds) };
            }
            StageState::Ready { preimage, .. } => (preimage.clone(), true),
            StageState::Waiting { .. } => (preimage_without_inputs(stage, sources, backend), false),
        };
        let Some((past, differences)) = history.nearest(stage.kind, &fields(&preimage), inputs) else {
            return Explanation { reason: Reason::New, seconds: None };
        };
        let seconds = past.seconds * ratio(&preimage, &past.preimage);
        let reason = match differences.is_empty() {
            true if forced.contains(&index) => Reason::Forced,
            true if inputs => Reason::Lost,
            true => Reason::Waiting,
            false => Reason::Changed { key: past.key.clone(), differences },
        };
        Explanation { reason, seconds: Some(seconds).filter(|s| s.is_finite()) }
    };
    plan.stages.iter().zip(states).enumerate().map(one).collect()
}

/// Returns the fields of a preimage.
fn fields(preimage: &Preimage) -> Fields {
    let mut fields = Fields::new();
    leaves(&preimage.params, String::new(), &mut |path, value| {
        fields.insert(Field::Param(path), value.clone());
    });
    fields.extend(preimage.seed.map(|seed| (Field::Seed, seed.into())));
    fields.extend(
        preimage
            .backend
            .map(|backend| (Field::Backend, if backend == BackendClass::Cpu { "cpu".into() } else { "cuda".into() })),
    );
    fields.insert(Field::CodeVersion, preimage.code_version.into());
    for (name, digest) in &preimage.sources {
        fields.insert(Field::Source(name.clone()), digest.as_str().into());
    }
    for (role, blobs) in &preimage.inputs {
        for (blob, digest) in blobs {
            fields.insert(Field::Input { role: role.clone(), blob: blob.clone() }, digest.as_str().into());
        }
    }
    fields
}

/// Calls `see` with the path of each value that is neither a mapping nor null.
pub fn leaves(value: &Value, path: String, see: &mut dyn FnMut(String, &Value)) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, path, see);
            }
        }
        Value::Null => {}
        _ => see(path, value),
    }
}

/// The distance between two results. Parameters weigh most, then the seed, then the content of inputs, since this
/// usually changes because of a change upstream. A single number, so that comparing is fast.
type Weight = u64;

/// The weight of an input. There are far fewer than a thousand inputs.
const INPUT: Weight = 1;

/// Returns the weight of a field.
fn weight_of(field: &Field) -> Weight {
    match field {
        Field::Input { .. } => INPUT,
        Field::Seed => 1000,
        Field::Param(_) | Field::Backend | Field::CodeVersion | Field::Source(_) => 1_000_000,
    }
}

/// For each field, its hash, its weight and the hash of its value; sorted. Makes it fast to compare thousands of stages
/// with thousands of results.
type Fingerprint = Vec<(u64, Weight, u64)>;

fn fingerprint(fields: &Fields, inputs: bool) -> Fingerprint {
    let hash = |value: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        value(&mut hasher);
        hasher.finish()
    };
    let counted = fields.iter().filter(|(field, _)| inputs || !matches!(field, Field::Input { .. }));
    let one = |(field, value): (&Field, &Value)| {
        (hash(&|hasher| field.hash(hasher)), weight_of(field), hash(&|hasher| value.hash(hasher)))
    };
    let mut fingerprint: Fingerprint = counted.map(one).collect();
    fingerprint.sort_unstable();
    fingerprint
}

/// Returns the distance between two results; None if it is not less than `least`.
fn weight_below(least: Weight, before: &Fingerprint, now: &Fingerprint, inputs: bool) -> Option<Weight> {
    let (mut weight, mut i, mut j) = (0, 0, 0);
    while weight < least {
        let (a, b) = (before.get(i), now.get(j));
        let order = match (a, b) {
            (None, None) => return Some(weight),
            (Some(a), Some(b)) => a.0.cmp(&b.0),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let differs = match order {
            Ordering::Less => a,
            Ordering::Greater => b,
            Ordering::Equal => a.filter(|a| b.is_some_and(|b| a.2 != b.2)),
        };
        weight += differs.map_or(0, |(_, weight, _)| if inputs || *weight != INPUT { *weight } else { 0 });
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
    None
}

fn differences(before: &Fields, now: &Fields, inputs: bool) -> Vec<Difference> {
    let mut found = vec![];
    for_each_difference(before, now, inputs, |field, before, now| {
        found.push(Difference { field: field.clone(), before: before.cloned(), now: now.cloned() });
    });
    found.sort_by(|a, b| a.field.cmp(&b.field));
    found
}

fn for_each_difference(
    before: &Fields,
    now: &Fields,
    inputs: bool,
    mut see: impl FnMut(&Field, Option<&Value>, Option<&Value>),
) {
    let counts = |field: &Field| inputs || !matches!(field, Field::Input { .. });
    for (field, was) in before.iter().filter(|(field, _)| counts(field)) {
        if now.get(field) != Some(was) {
            see(field, Some(was), now.get(field));
        }
    }
    for (field, is) in now.iter().filter(|(field, _)| counts(field) && !before.contains_key(field)) {
        see(field, None, Some(is));
    }
}

/// Returns the ratio of two stages' running times; NaN if unknown.
fn ratio(now: &Preimage, before: &Preimage) -> f64 {
    // The time that another program takes is unknown.
    let is_other_program = now.kind.is_user_defined() && now.params["command"] != before.params["command"];
    if is_other_program { f64::NAN } else { effort(now, before) }
}

/// Estimates the ratio of two stages' work from their parameters.
fn effort(now: &Preimage, before: &Preimage) -> f64 {
    let times = |path: &&str| {
        let [now, before] = [now, before].map(|preimage| preimage.params.pointer(path).and_then(Value::as_f64));
        match (now, before) {
            (None, None) => 1.0,
            (Some(now), Some(before)) => now / before,
            // For example steps in one and epochs in the other.
            _ => f64::NAN,
        }
    };
    let [once, squared] = now.kind.time();
    let product = |paths: &[&str]| paths.iter().map(times).product::<f64>();
    product(once) * product(squared).powi(2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::simulation::*;
    use super::super::{plan, states};
    use super::*;
    use crate::pipeline::Pipeline;
    use crate::store::Cost;

    fn small(model: Value) -> Pipeline {
        pipeline(vec![
            stage("images", json!({"kind": "fetch", "dataset": "synthetic"})),
            stage("pairs", json!({"kind": "degrade", "input": "images"})),
            stage("model", model),
            stage("samples", json!({"kind": "sample", "model": "model", "data": "pairs"})),
        ])
    }

    fn model(channels: usize, steps: usize) -> Value {
        json!({"kind": "train", "data": "pairs", "model": {"base_channels": channels}, "optim": {"steps": steps}})
    }

    fn explained(pipeline: &Pipeline, world: &World, backend: BackendClass) -> Vec<Explanation> {
        let plan = plan(pipeline);
        let states = states(&plan, world, &Sources::new(), backend);
        let actions = world.iter().map(|(key, action)| (key.clone(), action.clone())).collect();
        explain(&plan, &states, &BTreeSet::new(), &Sources::new(), backend, &History::new(actions))
    }

    fn changed(field: &str, before: Value, now: Value) -> Difference {
        Difference { field: Field::Param(field.to_string()), before: Some(before), now: Some(now) }
    }

    fn world_of(pipelines: &[Pipeline]) -> World {
        let mut world = World::new();
        for (i, pipeline) in pipelines.iter().enumerate() {
            let before: Vec<Key> = world.keys().cloned().collect();
            run_all(&plan(pipeline), &mut world);
            let fresh = world.iter_mut().filter(|(key, _)| !before.contains(key));
            fresh.for_each(|(_, action)| {
                action.cost = Cost { seconds: 60.0, finished_at: format!("2026-11-2{i}"), ..Cost::default() };
            });
        }
        world
    }

    #[test]
    fn without_past_results_every_stage_is_new() {
        let all = explained(&small(model(16, 100)), &World::new(), BackendClass::Cpu);
        assert!(all.iter().all(|e| *e == Explanation { reason: Reason::New, seconds: None }));
    }

    #[test]
    fn changes_are_relative_to_the_most_similar_result_and_scale_its_time() {
        let world = world_of(&[small(model(16, 100)), small(model(64, 900))]);
        let all = explained(&small(model(32, 100)), &world, BackendClass::Cpu);
        assert_eq!(all[0], Explanation { reason: Reason::Cached, seconds: Some(60.0) });
        let Reason::Changed { differences, .. } = &all[2].reason else { panic!("{:?}", all[2]) };
        assert_eq!(*differences, [changed("model.base_channels", json!(16), json!(32))]);
        assert_eq!(all[2].seconds, Some(240.0));
        assert_eq!(all[3].reason, Reason::Waiting);
        // Of equally similar results, the newest wins.
        let all = explained(&small(model(32, 500)), &world, BackendClass::Cpu);
        let Reason::Changed { differences, .. } = &all[2].reason else { panic!("{:?}", all[2]) };
        assert_eq!(differences[0], changed("model.base_channels", json!(64), json!(32)));
    }

    #[test]
    fn backends_seeds_and_inputs_are_compared_too() {
        let world = world_of(&[small(model(16, 100))]);
        let all = explained(&small(model(16, 100)), &world, BackendClass::Cuda);
        let Reason::Changed { differences, .. } = &all[2].reason else { panic!("{:?}", all[2]) };
        assert_eq!((&differences[0].field, differences.len()), (&Field::Backend, 1));
        // The seed changes the images, and the pairs only through their content.
        let mut other = small(model(16, 100));
        other.seed = 1;
        let mut cache = world.clone();
        let all = explained(&other, &world, BackendClass::Cpu);
        let Reason::Changed { differences, .. } = &all[0].reason else { panic!("{:?}", all[0]) };
        assert_eq!(*differences, [Difference { field: Field::Seed, before: Some(json!(0)), now: Some(json!(1)) }]);
        let first = plan(&other);
        let StageState::Ready { key, preimage } = &states_of(&first, &cache)[0] else { panic!() };
        cache.insert(key.clone(), action(preimage));
        let all = explained(&other, &cache, BackendClass::Cpu);
        let Reason::Changed { differences, .. } = &all[1].reason else { panic!("{:?}", all[1]) };
        assert!(differences.iter().all(|d| matches!(&d.field, Field::Input { role, .. } if role == "input")));
        assert_eq!(differences.len(), 3);
    }

    #[test]
    fn missing_results_are_distinguished_from_new_ones() {
        let pipeline = small(model(16, 100));
        let world = world_of(std::slice::from_ref(&pipeline));
        let plan = plan(&pipeline);
        let history = History::new(world.iter().map(|(key, action)| (key.clone(), action.clone())).collect());
        let mut store = world.clone();
        store.remove(states_of(&plan, &world)[2].key().unwrap());
        let states = states_of(&plan, &store);
        let explain = |forced: &[usize]| {
            let forced = forced.iter().copied().collect();
            explain(&plan, &states, &forced, &Sources::new(), BackendClass::Cpu, &history)
        };
        let all = explain(&[]);
        assert_eq!((&all[2].reason, &all[3].reason), (&Reason::Lost, &Reason::Waiting));
        let all = explain(&[2, 3]);
        assert_eq!((&all[2].reason, &all[3].reason), (&Reason::Forced, &Reason::Forced));
    }
}
