//! What a run takes for known.

use std::collections::BTreeSet;

use crate::plan::Known;
use crate::store::{Action, Key, Store};

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
