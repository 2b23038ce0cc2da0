//! The stdout of a stage's process, which carries its events.

use std::io::Write;
use std::sync::OnceLock;

use super::batch::EventSeal;

/// Seals the events of this process, if it is a job.
static SEAL: OnceLock<EventSeal> = OnceLock::new();

/// Seals all later events.
pub(super) fn seal_events(seal: EventSeal) {
    // A process runs one job, so the seal never changes.
    let _ = SEAL.set(seal);
}

/// Writes one line to stdout. Errors are ignored: if the parent is gone, stdin ends too, which stops the stage.
pub fn send<T: serde::Serialize>(event: &T) {
    let line = serde_json::to_string(event).expect("events are plain data");
    let line = match SEAL.get() {
        Some(seal) => seal.seal(&line),
        None => line,
    };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
