//! Tracks which stages of a run are cached. That changes when a stage was computed or a blob is damaged, and a forced
//! stage counts as not cached until it has run.

use std::collections::BTreeSet;

use anyhow::Result;

use super::prepared::Prepared;
use crate::plan::{ActionCache, BackendClass, Plan, Sources, StageState, advance};
use crate::store::{Action, Digest, Key, Store};

/// The state of every stage, from the plan, the store and the set of forced stages.
pub(super) struct CacheState<'a> {
    plan: &'a Plan,
    sources: &'a Sources,
    backend: BackendClass,
    store: &'a Store,
    states: Vec<StageState>,
    /// Forced stages that have not run yet.
    forced: BTreeSet<usize>,
    /// Their keys, which do not count as cached until then.
    hidden: BTreeSet<Key>,
    /// Damaged blobs whose producers were rerun.
    rerun_for: BTreeSet<Digest>,
}

/// A store without the keys of forced stages.
pub(super) struct Visible<'a> {
    pub(super) store: &'a Store,
    pub(super) hidden: &'a BTreeSet<Key>,
}

impl ActionCache for Visible<'_> {
    fn action(&self, key: &Key) -> Option<Action> {
        if self.hidden.contains(key) { None } else { ActionCache::action(self.store, key) }
    }
}

impl<'a> CacheState<'a> {
    pub(super) fn new(prepared: &'a Prepared, store: &'a Store) -> Self {
        let mut cache = Self {
            plan: &prepared.plan,
            sources: &prepared.sources,
            backend: prepared.backend(),
            store,
            states: prepared.states.clone(),
            forced: prepared.forced.clone(),
            hidden: BTreeSet::new(),
            rerun_for: BTreeSet::new(),
        };
        cache.hide();
        cache
    }

    pub(super) fn states(&self) -> &[StageState] {
        &self.states
    }

    pub(super) fn into_states(self) -> Vec<StageState> {
        self.states
    }

    pub(super) fn key(&self, stage: usize) -> Option<&Key> {
        self.states[stage].key()
    }

    pub(super) fn is_forced(&self, stage: usize) -> bool {
        self.forced.contains(&stage)
    }

    /// Hides the keys of forced stages. Must be called after inputs of forced stages may have been computed.
    pub(super) fn hide(&mut self) {
        let forced: Vec<usize> = self.forced.iter().copied().collect();
        for stage in forced {
            let Some(key) = self.key(stage).filter(|key| !self.hidden.contains(key)) else { continue };
            self.hidden.insert(key.clone());
            if matches!(self.states[stage], StageState::Cached { .. }) {
                self.advance(stage);
            }
        }
    }

    /// Records that the result of `stage` is in the store, which makes all stages with the same key cached.
    pub(super) fn computed(&mut self, stage: usize) {
        let key = self.key(stage).cloned();
        let same: Vec<usize> = (0..self.states.len()).filter(|&other| self.key(other) == key.as_ref()).collect();
        if let Some(key) = &key {
            self.hidden.remove(key);
        }
        for other in same {
            self.forced.remove(&other);
            self.advance(other);
        }
    }

    /// Returns the cached stages that produced a blob; none if they were returned for this blob before.
    pub(super) fn producers(&mut self, blob: &Digest) -> Vec<usize> {
        let produces_it = |state: &StageState| match state {
            StageState::Cached { action, .. } => action.outputs.values().any(|output| output == blob),
            _ => false,
        };
        let producers: Vec<usize> =
            (0..self.states.len()).filter(|&producer| produces_it(&self.states[producer])).collect();
        if producers.is_empty() || self.rerun_for.insert(blob.clone()) { producers } else { vec![] }
    }

    /// Removes the results of these stages so that they run again. Returns the stages that are no longer cached.
    pub(super) fn forget(&mut self, producers: &[usize]) -> Result<Vec<usize>> {
        for &producer in producers {
            if let Some(key) = self.key(producer).cloned() {
                self.store.remove_action(&key)?;
            }
        }
        let affected: BTreeSet<usize> = producers.iter().flat_map(|&producer| self.advance(producer)).collect();
        Ok(affected.into_iter().filter(|&stage| !matches!(self.states[stage], StageState::Cached { .. })).collect())
    }

    /// Updates the state of a stage and of everything that depends on it. Returns their indices.
    fn advance(&mut self, stage: usize) -> Vec<usize> {
        let visible = Visible { store: self.store, hidden: &self.hidden };
        advance(self.plan, &mut self.states, stage, &visible, self.sources, self.backend)
    }
}
