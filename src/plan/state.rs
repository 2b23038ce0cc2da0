//! The state of every stage, given what is known.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{BackendClass, KEY_FORMAT, Plan, PlannedStage, Preimage};
use crate::config::Blobs;
use crate::store::{Action, Digest, Key, Store};

/// Content from outside by stage and by what it is to the stage; for a `fetch` of cifar10, `archive`.
pub type Sources = BTreeMap<String, BTreeMap<String, Digest>>;

/// Where a stage stands.
#[derive(Debug, Clone, PartialEq)]
pub enum StageState {
    /// Its result is there.
    Cached { key: Key, action: Action },
    /// Its inputs are there and its result is not.
    Ready { key: Key, preimage: Preimage },
    /// These inputs are not there yet, ascending.
    Waiting { on: Vec<usize> },
}

impl StageState {
    /// None while the stage waits: its key depends on what its inputs will hold.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Cached { key, .. } | Self::Ready { key, .. } => Some(key),
            Self::Waiting { .. } => None,
        }
    }
}

/// Answers what is known of a key.
pub trait Known {
    fn action(&self, key: &Key) -> Option<Action>;
}

impl Known for Store {
    /// A store that cannot be read knows nothing; whoever then works on the key meets the error.
    fn action(&self, key: &Key) -> Option<Action> {
        Store::action(self, key).ok().flatten()
    }
}

impl Known for BTreeMap<Key, Action> {
    fn action(&self, key: &Key) -> Option<Action> {
        self.get(key).cloned()
    }
}

/// The state of every stage given what is known: a stage is ready when all its inputs are cached, and cached when its
/// key is known. Stages that read content from outside must have it in `sources`.
pub fn states(plan: &Plan, known: &dyn Known, sources: &Sources, backend: BackendClass) -> Vec<StageState> {
    let mut states = Vec::with_capacity(plan.stages.len());
    for index in 0..plan.stages.len() {
        states.push(state(plan, index, &states, known, sources, backend));
    }
    states
}

/// The state of one stage, looking at nothing but what it needs.
pub fn state_of(plan: &Plan, wanted: usize, known: &dyn Known, sources: &Sources, backend: BackendClass) -> StageState {
    let mut needed = vec![false; wanted + 1];
    needed[wanted] = true;
    for index in (0..=wanted).rev() {
        if needed[index] {
            plan.stages[index].dependencies.iter().for_each(|&dependency| needed[dependency] = true);
        }
    }
    let mut states = Vec::with_capacity(needed.len());
    for (index, is_needed) in needed.into_iter().enumerate() {
        states.push(match is_needed {
            true => state(plan, index, &states, known, sources, backend),
            false => StageState::Waiting { on: vec![] },
        });
    }
    states.pop().expect("it holds the wanted one")
}

/// Brings `states` up to date after the key of `changed` became known, or unknown: the stages of that key (there may be
/// several) and what depends on them are looked at again, nothing else. Gives those, ascending.
pub fn advance(
    plan: &Plan,
    states: &mut [StageState],
    changed: usize,
    known: &dyn Known,
    sources: &Sources,
    backend: BackendClass,
) -> Vec<usize> {
    let key = states[changed].key().cloned();
    let mut affected: Vec<bool> = states.iter().map(|state| key.is_some() && state.key() == key.as_ref()).collect();
    affected[changed] = true;
    let mut seen = vec![];
    // Dependents come later, so one pass meets all of them.
    for index in 0..plan.stages.len() {
        if affected[index] {
            plan.stages[index].dependents.iter().for_each(|&dependent| affected[dependent] = true);
            states[index] = state(plan, index, &states[..index], known, sources, backend);
            seen.push(index);
        }
    }
    seen
}

/// The state of one stage, given the states of those before it.
fn state(
    plan: &Plan,
    index: usize,
    before: &[StageState],
    known: &dyn Known,
    sources: &Sources,
    backend: BackendClass,
) -> StageState {
    let stage = &plan.stages[index];
    let is_cached = |&dependency: &usize| matches!(before[dependency], StageState::Cached { .. });
    let on: Vec<usize> = stage.dependencies.iter().copied().filter(|d| !is_cached(d)).collect();
    if !on.is_empty() {
        return StageState::Waiting { on };
    }
    let mut preimage = preimage_without_inputs(stage, sources, backend);
    for input in &stage.inputs {
        if let StageState::Cached { action, .. } = &before[input.stage] {
            // A blob that the artifact lacks is left out, which is a fact of its own.
            let read = match &input.blobs {
                Blobs::All => action.outputs.clone(),
                Blobs::Only(names) => {
                    let read = |name: &Cow<str>| Some((name.to_string(), action.outputs.get(name.as_ref())?.clone()));
                    names.iter().filter_map(read).collect()
                }
            };
            preimage.inputs.insert(input.role.clone(), read);
        }
    }
    let key = preimage.key();
    // A record whose output names differ from the stage's is not its result.
    match known.action(&key).filter(|action| preimage.check_outputs(&action.outputs).is_ok()) {
        Some(action) => StageState::Cached { key, action },
        None => StageState::Ready { key, preimage },
    }
}

/// What of a stage's preimage is known before its inputs are.
pub(super) fn preimage_without_inputs(stage: &PlannedStage, sources: &Sources, backend: BackendClass) -> Preimage {
    Preimage {
        format: KEY_FORMAT,
        kind: stage.kind,
        code_version: stage.kind.version(),
        params: stage.params.to_semantic_json(),
        seed: stage.seed,
        backend: stage.params.runs_network().then_some(backend),
        inputs: BTreeMap::new(),
        sources: sources.get(&stage.name).cloned().unwrap_or_default(),
    }
}
