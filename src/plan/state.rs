//! Computes the state of each stage from the cached results.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{BackendClass, KEY_FORMAT, Plan, PlannedStage, Preimage};
use crate::config::Blobs;
use crate::store::{Action, Digest, Key, Store};

/// The digests of external content by stage and role. For example, a `fetch` stage of CIFAR-10 has the role `archive`.
pub type Sources = BTreeMap<String, BTreeMap<String, Digest>>;

/// The state of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum StageState {
    /// Its result is cached.
    Cached { key: Key, action: Action },
    /// Its inputs are cached, but its result is not.
    Ready { key: Key, preimage: Preimage },
    /// These inputs are not cached (indices, ascending).
    Waiting { on: Vec<usize> },
}

impl StageState {
    /// Returns the key; None while the stage waits, because the key depends on the content of its inputs.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Cached { key, .. } | Self::Ready { key, .. } => Some(key),
            Self::Waiting { .. } => None,
        }
    }
}

/// A source of cached results.
pub trait ActionCache {
    /// Returns the cached action of `key`.
    fn action(&self, key: &Key) -> Option<Action>;
}

impl ActionCache for Store {
    /// Treats read errors as missing; the stage then runs and reports the error.
    fn action(&self, key: &Key) -> Option<Action> {
        Store::action(self, key).ok().flatten()
    }
}

impl ActionCache for BTreeMap<Key, Action> {
    fn action(&self, key: &Key) -> Option<Action> {
        self.get(key).cloned()
    }
}

/// Returns the state of every stage. `sources` must contain the external content of all stages that read some.
pub fn states(plan: &Plan, cache: &dyn ActionCache, sources: &Sources, backend: BackendClass) -> Vec<StageState> {
    let mut states = Vec::with_capacity(plan.stages.len());
    for index in 0..plan.stages.len() {
        states.push(state(plan, index, &states, cache, sources, backend));
    }
    states
}

/// Returns the state of one stage; looks up only its dependencies.
pub fn state_of(
    plan: &Plan,
    wanted: usize,
    cache: &dyn ActionCache,
    sources: &Sources,
    backend: BackendClass,
) -> StageState {
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
            true => state(plan, index, &states, cache, sources, backend),
            false => StageState::Waiting { on: vec![] },
        });
    }
    states.pop().expect("the last state is that of `wanted`")
}

/// Updates `states` after the result of the stage `changed` was added to the cache or removed. Recomputes only the
/// stages with the same key and their dependents; returns their indices, ascending.
pub fn advance(
    plan: &Plan,
    states: &mut [StageState],
    changed: usize,
    cache: &dyn ActionCache,
    sources: &Sources,
    backend: BackendClass,
) -> Vec<usize> {
    let key = states[changed].key().cloned();
    let mut affected: Vec<bool> = states.iter().map(|state| key.is_some() && state.key() == key.as_ref()).collect();
    affected[changed] = true;
    let mut updated = vec![];
    // Dependents come later, so one pass is enough.
    for index in 0..plan.stages.len() {
        if affected[index] {
            plan.stages[index].dependents.iter().for_each(|&dependent| affected[dependent] = true);
            states[index] = state(plan, index, &states[..index], cache, sources, backend);
            updated.push(index);
        }
    }
    updated
}

/// Returns the state of one stage, given the states of the stages before it.
fn state(
    plan: &Plan,
    index: usize,
    before: &[StageState],
    cache: &dyn ActionCache,
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
            // Missing blobs are left out, which changes the key too.
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
    // Ignore records with other outputs than the stage's.
    match cache.action(&key).filter(|action| preimage.check_outputs(&action.outputs).is_ok()) {
        Some(action) => StageState::Cached { key, action },
        None => StageState::Ready { key, preimage },
    }
}

/// Returns a stage's preimage without its inputs.
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
