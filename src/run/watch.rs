//! Where runs stand, for those who did not start them. Reads only, and waits for nothing.

use super::tail::Tail;
use crate::stages::StageEvent;
use crate::store::files::read_tail;
use crate::store::{Key, Store};

/// What the work on a key tells, from its beginning.
pub struct Events {
    tail: Tail,
}

impl Events {
    pub fn of(store: &Store, key: &Key) -> Self {
        Self { tail: Tail::new(store.events_path(key)) }
    }

    /// What is new since the last time.
    pub fn news(&mut self, store: &Store, key: &Key) -> Vec<StageEvent> {
        // It moves when the work is done.
        self.tail.moved_to(store.events_path(key));
        self.tail.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The last progress that the work on `key` told.
pub fn last_progress(store: &Store, key: &Key) -> Option<StageEvent> {
    let text = read_tail(&store.events_path(key), 16 << 10)?;
    let events = text.lines().rev().filter_map(|line| serde_json::from_str::<StageEvent>(line).ok());
    events.into_iter().find(|event| matches!(event, StageEvent::Progress { .. }))
}
