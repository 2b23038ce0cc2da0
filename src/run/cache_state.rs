//! What a run takes for known, and how that changes: a stage was computed, a blob is damaged, a result is to be made
//! once more although it is there.

use std::collections::BTreeSet;

use anyhow::Result;

use super::prepare::Prepared;
use crate::plan::{BackendClass, Known, Plan, Sources, StageState, advance};
use crate::store::{Action, Digest, Key, Store};

/// The state of every stage, by the plan's rules, as far as the store and what was forced tell.
pub struct CacheState<'a> {
    plan: &'a Plan,
    sources: &'a Sources,
    backend: BackendClass,
    store: &'a Store,
    states: Vec<StageState>,
    /// Stages that have yet to run although they are known.
    forced: BTreeSet<usize>,
    /// Their keys, which count as unknown until then.
    hidden: BTreeSet<Key>,
    /// Damaged blobs that were asked to be made again.
    healed: BTreeSet<Digest>,
}

/// A store without the keys that are to be computed once more.
pub struct Visible<'a> {
    pub store: &'a Store,
    pub hidden: &'a BTreeSet<Key>,
}

impl Known for Visible<'_> {
    fn action(&self, key: &Key) -> Option<Action> {
        if self.hidden.contains(key) { None } else { Known::action(self.store, key) }
    }
}

impl<'a> CacheState<'a> {
    pub fn new(prepared: &'a Prepared, store: &'a Store) -> Self {
        let mut knowledge = Self {
            plan: &prepared.plan,
            sources: &prepared.sources,
            backend: prepared.backend(),
            store,
            states: prepared.states.clone(),
            forced: prepared.forced.clone(),
            hidden: BTreeSet::new(),
            healed: BTreeSet::new(),
        };
        knowledge.hide();
        knowledge
    }

    pub fn states(&self) -> &[StageState] {
        &self.states
    }

    pub fn into_states(self) -> Vec<StageState> {
        self.states
    }

    pub fn key(&self, stage: usize) -> Option<&Key> {
        self.states[stage].key()
    }

    pub fn is_forced(&self, stage: usize) -> bool {
        self.forced.contains(&stage)
    }

    /// Takes forced stages whose key has become known for unknown. To be called when inputs of theirs may have come.
    pub fn hide(&mut self) {
        let forced: Vec<usize> = self.forced.iter().copied().collect();
        for stage in forced {
            let Some(key) = self.key(stage).filter(|key| !self.hidden.contains(key)) else { continue };
            self.hidden.insert(key.clone());
            if matches!(self.states[stage], StageState::Cached { .. }) {
                self.advance(stage);
            }
        }
    }

    /// The result of `stage` is in the store: whatever has the same key is known now too.
    pub fn computed(&mut self, stage: usize) {
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

    /// The stages whose known result has this blob, unless that was asked before.
    pub fn makers(&mut self, blob: &Digest) -> Vec<usize> {
        let makes_it = |state: &StageState| match state {
            StageState::Cached { action, .. } => action.outputs.values().any(|output| output == blob),
            _ => false,
        };
        let makers: Vec<usize> = (0..self.states.len()).filter(|&maker| makes_it(&self.states[maker])).collect();
        if makers.is_empty() || self.healed.insert(blob.clone()) { makers } else { vec![] }
    }

    /// Forgets the results of these stages, so that they are made again. Gives the stages that are no longer known.
    pub fn forget(&mut self, makers: &[usize]) -> Result<Vec<usize>> {
        for &maker in makers {
            if let Some(key) = self.key(maker).cloned() {
                self.store.forget(&key)?;
            }
        }
        let seen: BTreeSet<usize> = makers.iter().flat_map(|&maker| self.advance(maker)).collect();
        Ok(seen.into_iter().filter(|&stage| !matches!(self.states[stage], StageState::Cached { .. })).collect())
    }

    /// Looks again at what is known of a stage and of all that depends on it.
    fn advance(&mut self, stage: usize) -> Vec<usize> {
        let known = Visible { store: self.store, hidden: &self.hidden };
        advance(self.plan, &mut self.states, stage, &known, self.sources, self.backend)
    }
}
