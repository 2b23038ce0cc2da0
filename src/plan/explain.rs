//! Why a stage runs: what differs from the nearest of what was made before. And about how long it takes, from what that
//! took.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::state::preimage_without_inputs;
use super::{BackendClass, Plan, Preimage, Sources, StageState};
use crate::config::StageKind;
use crate::store::{Action, Key};

/// What was made before, newest first.
#[derive(Debug, Default)]
pub struct History {
    made: BTreeMap<StageKind, Vec<Made>>,
}

/// One result, whether or not its blobs are still there.
#[derive(Debug)]
pub struct Made {
    pub key: Key,
    preimage: Preimage,
    facts: Facts,
    prints: Prints,
    seconds: f64,
}

/// More results of a kind than these are not looked at.
const MOST: usize = 2000;

/// A part of what a result depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// By its path in the stage.
    Param(String),
    Seed,
    Backend,
    /// What srpipe computes for stages of this kind.
    CodeVersion,
    /// Content from outside, by what it is to the stage.
    Source(String),
    /// A blob of an input.
    Input {
        role: String,
        blob: String,
    },
}

type Facts = BTreeMap<Field, Value>;

/// A field that is not as it was; absent where there was or is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub field: Field,
    pub before: Option<Value>,
    pub now: Option<Value>,
}

/// Why a stage is as it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Its result is there.
    Known,
    /// Nothing of its kind was made before.
    New,
    /// Its very result was made before, and a blob of it is gone.
    Lost,
    /// It was asked to run whether or not its result is known.
    Forced,
    /// These fields differ from the nearest that was made before, which has `key`.
    Changed { key: Key, differences: Vec<Difference> },
    /// As far as it can be told before its inputs are there, all is as it was.
    Waits,
}

impl History {
    pub fn new(actions: Vec<(Key, Action)>) -> Self {
        let mut newest = actions;
        newest.sort_by(|a, b| b.1.cost.finished_at.cmp(&a.1.cost.finished_at));
        let mut made: BTreeMap<StageKind, Vec<Made>> = BTreeMap::new();
        for (key, action) in newest {
            // What another version wrote in another form cannot be compared.
            let Some(preimage) = Preimage::of(&action) else { continue };
            let of_kind = made.entry(preimage.kind).or_default();
            if of_kind.len() < MOST {
                let facts = facts(&preimage);
                let prints = prints(&facts, true);
                of_kind.push(Made { key, facts, prints, preimage, seconds: action.cost.seconds });
            }
        }
        Self { made }
    }

    /// The result that differs least in `facts`; of several, the newest. `inputs`: whether those count.
    fn nearest(&self, kind: StageKind, facts: &Facts, inputs: bool) -> Option<(&Made, Vec<Difference>)> {
        let now = prints(facts, inputs);
        let mut best: Option<(&Made, Weight)> = None;
        for made in self.made.get(&kind).into_iter().flatten() {
            let least = best.map_or(Weight::MAX, |(_, least)| least);
            if let Some(weight) = weight_below(least, &made.prints, &now, inputs) {
                best = Some((made, weight));
            }
        }
        best.map(|(made, _)| (made, differences(&made.facts, facts, inputs)))
    }
}

/// Everything that a stage of a plan needs an answer for.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub reason: Reason,
    /// What it took, or would take as far as results of its kind tell.
    pub seconds: Option<f64>,
}

/// Why each stage of `plan` is as it is; `forced` are to run in any case.
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
                return Explanation { reason: Reason::Known, seconds: Some(action.cost.seconds) };
            }
            StageState::Ready { preimage, .. } => (preimage.clone(), true),
            StageState::Waiting { .. } => (preimage_without_inputs(stage, sources, backend), false),
        };
        let Some((made, differences)) = history.nearest(stage.kind, &facts(&preimage), inputs) else {
            return Explanation { reason: Reason::New, seconds: None };
        };
        let seconds = made.seconds * ratio(&preimage, &made.preimage);
        let reason = match differences.is_empty() {
            true if forced.contains(&index) => Reason::Forced,
            true if inputs => Reason::Lost,
            true => Reason::Waits,
            false => Reason::Changed { key: made.key.clone(), differences },
        };
        Explanation { reason, seconds: Some(seconds).filter(|s| s.is_finite()) }
    };
    plan.stages.iter().zip(states).enumerate().map(one).collect()
}

/// The fields of a preimage.
fn facts(preimage: &Preimage) -> Facts {
    let mut facts = Facts::new();
    leaves(&preimage.params, String::new(), &mut |path, value| {
        facts.insert(Field::Param(path), value.clone());
    });
    facts.extend(preimage.seed.map(|seed| (Field::Seed, seed.into())));
    facts.extend(
        preimage
            .backend
            .map(|backend| (Field::Backend, if backend == BackendClass::Cpu { "cpu".into() } else { "cuda".into() })),
    );
    facts.insert(Field::CodeVersion, preimage.code_version.into());
    for (name, digest) in &preimage.sources {
        facts.insert(Field::Source(name.clone()), digest.as_str().into());
    }
    for (role, blobs) in &preimage.inputs {
        for (blob, digest) in blobs {
            facts.insert(Field::Input { role: role.clone(), blob: blob.clone() }, digest.as_str().into());
        }
    }
    facts
}

/// Every value that is no mapping, by its path. What is null is not given.
fn leaves(value: &Value, path: String, see: &mut dyn FnMut(String, &Value)) {
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

/// How far apart two results are: by parameters first, of which a seed is the least; by the content of inputs only then,
/// since that mostly follows from a change further up. One number, so that it compares quickly.
type Weight = u64;

/// Of a difference in the content of an input. There are far fewer fields than a thousand.
const INPUT: Weight = 1;

/// What a difference in a field weighs.
fn weight_of(field: &Field) -> Weight {
    match field {
        Field::Input { .. } => INPUT,
        Field::Seed => 1000,
        _ => 1_000_000,
    }
}

/// Hashes of fields, with their weights and the hashes of their values, sorted: thousands of stages are held against
/// thousands of results.
type Prints = Vec<(u64, Weight, u64)>;

fn prints(facts: &Facts, inputs: bool) -> Prints {
    let print = |value: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        value(&mut hasher);
        hasher.finish()
    };
    let counted = facts.iter().filter(|(field, _)| inputs || !matches!(field, Field::Input { .. }));
    let one = |(field, value): (&Field, &Value)| {
        (print(&|hasher| field.hash(hasher)), weight_of(field), print(&|hasher| value.hash(hasher)))
    };
    let mut prints: Prints = counted.map(one).collect();
    prints.sort_unstable();
    prints
}

/// How far apart two are; None where that is not less than `least`.
fn weight_below(least: Weight, before: &Prints, now: &Prints, inputs: bool) -> Option<Weight> {
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
        weight += differs.map_or(0, |print| if inputs || print.1 != INPUT { print.1 } else { 0 });
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
    None
}

fn differences(before: &Facts, now: &Facts, inputs: bool) -> Vec<Difference> {
    let mut found = vec![];
    for_each_difference(before, now, inputs, |field, before, now| {
        found.push(Difference { field: field.clone(), before: before.cloned(), now: now.cloned() });
    });
    found.sort_by(|a, b| a.field.cmp(&b.field));
    found
}

fn for_each_difference(
    before: &Facts,
    now: &Facts,
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

/// How much longer a stage takes than another of its kind; not a number where nobody can tell.
fn ratio(now: &Preimage, before: &Preimage) -> f64 {
    // The time that another program takes is unknown.
    let is_other_program = now.kind.is_user_defined() && now.params["command"] != before.params["command"];
    if is_other_program { f64::NAN } else { effort(now, before) }
}

/// The arithmetic of a stage beside that of another of its kind, as far as their parameters tell.
fn effort(now: &Preimage, before: &Preimage) -> f64 {
    let times = |path: &&str| {
        let [now, before] = [now, before].map(|preimage| preimage.params.pointer(path).and_then(Value::as_f64));
        match (now, before) {
            (None, None) => 1.0,
            (Some(now), Some(before)) => now / before,
            // Steps beside epochs, some images beside all.
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
    fn without_a_past_everything_is_new() {
        let all = explained(&small(model(16, 100)), &World::new(), BackendClass::Cpu);
        assert!(all.iter().all(|e| *e == Explanation { reason: Reason::New, seconds: None }));
    }

    #[test]
    fn a_change_is_told_against_the_nearest_and_takes_as_long_as_it_is_more_work() {
        let world = world_of(&[small(model(16, 100)), small(model(64, 900))]);
        let all = explained(&small(model(32, 100)), &world, BackendClass::Cpu);
        assert_eq!(all[0], Explanation { reason: Reason::Known, seconds: Some(60.0) });
        let Reason::Changed { differences, .. } = &all[2].reason else { panic!("{:?}", all[2]) };
        assert_eq!(*differences, [changed("model.base_channels", json!(16), json!(32))]);
        assert_eq!(all[2].seconds, Some(240.0));
        assert_eq!(all[3].reason, Reason::Waits);
        // Of equally near ones the newest.
        let all = explained(&small(model(32, 500)), &world, BackendClass::Cpu);
        let Reason::Changed { differences, .. } = &all[2].reason else { panic!("{:?}", all[2]) };
        assert_eq!(differences[0], changed("model.base_channels", json!(64), json!(32)));
    }

    #[test]
    fn inputs_and_what_is_no_parameter_count_too() {
        let world = world_of(&[small(model(16, 100))]);
        let all = explained(&small(model(16, 100)), &world, BackendClass::Cuda);
        let Reason::Changed { differences, .. } = &all[2].reason else { panic!("{:?}", all[2]) };
        assert_eq!((&differences[0].field, differences.len()), (&Field::Backend, 1));
        // The seed of the images reaches the pairs as other content, and the model by itself.
        let mut other = small(model(16, 100));
        other.seed = 1;
        let mut known = world.clone();
        let all = explained(&other, &world, BackendClass::Cpu);
        let Reason::Changed { differences, .. } = &all[0].reason else { panic!("{:?}", all[0]) };
        assert_eq!(*differences, [Difference { field: Field::Seed, before: Some(json!(0)), now: Some(json!(1)) }]);
        let first = plan(&other);
        let StageState::Ready { key, preimage } = &states_of(&first, &known)[0] else { panic!() };
        known.insert(key.clone(), action(preimage));
        let all = explained(&other, &known, BackendClass::Cpu);
        let Reason::Changed { differences, .. } = &all[1].reason else { panic!("{:?}", all[1]) };
        assert!(differences.iter().all(|d| matches!(&d.field, Field::Input { role, .. } if role == "input")));
        assert_eq!(differences.len(), 3);
    }

    #[test]
    fn a_result_that_is_gone_is_told_from_one_that_never_was() {
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
        assert_eq!((&all[2].reason, &all[3].reason), (&Reason::Lost, &Reason::Waits));
        let all = explain(&[2, 3]);
        assert_eq!((&all[2].reason, &all[3].reason), (&Reason::Forced, &Reason::Forced));
    }
}
