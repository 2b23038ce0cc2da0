//! Follows the events of stages that other processes run, without writing anything or blocking.

use super::tail::Tail;
use crate::stages::StageEvent;
use crate::store::files::read_tail;
use crate::store::{Key, Store};

/// A reader of the events of the work on a key, from the first one.
pub struct Events {
    tail: Tail,
}

impl Events {
    pub fn of(store: &Store, key: &Key) -> Self {
        Self { tail: Tail::new(store.events_path(key)) }
    }

    /// Returns the events since the last call.
    pub fn read_new(&mut self, store: &Store, key: &Key) -> Vec<StageEvent> {
        // The file is moved when the work is done.
        self.tail.set_path(store.events_path(key));
        let mut events = vec![];
        let parse = |line: &String| serde_json::from_str(line).ok();
        self.tail.read_lines(|lines| events.extend(lines.iter().filter_map(parse)));
        events
    }
}

/// Returns the last progress of the work on a key.
pub fn last_progress(store: &Store, key: &Key) -> Option<StageEvent> {
    let text = read_tail(&store.events_path(key), 16 << 10)?;
    let events = text.lines().rev().filter_map(|line| serde_json::from_str::<StageEvent>(line).ok());
    events.into_iter().find(|event| matches!(event, StageEvent::Progress { .. }))
}
