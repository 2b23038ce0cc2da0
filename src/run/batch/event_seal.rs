//! Checksums of the events in a job's output. They are the only protection against an output that was altered or that
//! belongs to another job.
//!
//! The last member of a sealed line is `"check"`, the first half of the hexadecimal SHA-256 of the job's identity (run,
//! batch, task) and the line without that member:
//!
//! ```text
//! {"event":"started","check":"<32 hexadecimal digits>"}
//! ```

use super::system::{TaskId, tag};
use crate::store::Digest;

const MEMBER: &str = ",\"check\":\"";
const END: &str = "\"}";
const DIGITS: usize = 32;

/// Seals and checks the events of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSeal {
    /// Identifies the job.
    job: String,
    /// Whether all events of the job are sealed. Those of older versions are not.
    is_required: bool,
}

impl EventSeal {
    pub fn new(run_id: &str, (batch, task): TaskId, is_required: bool) -> Self {
        Self { job: format!("{run_id} {}_{task}\n", tag(batch)), is_required }
    }

    /// Seals a line, which must be a JSON object with at least one member.
    pub fn seal(&self, line: &str) -> String {
        let body = line.strip_suffix('}').expect("events are objects");
        format!("{body}{MEMBER}{}{END}", self.digits(body))
    }

    /// Whether a line is an event of this job, as it was written.
    pub(super) fn accepts(&self, line: &str) -> bool {
        match split(line) {
            Some((body, digits)) => self.digits(body) == digits,
            None => !self.is_required,
        }
    }

    fn digits(&self, body: &str) -> String {
        let digest = Digest::of(&[self.job.as_bytes(), body.as_bytes()].concat());
        digest.as_str()[..DIGITS].to_string()
    }
}

/// Splits a sealed line into the sealed part and the digits of the seal.
fn split(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_suffix(END)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    Some((rest.strip_suffix(MEMBER)?, digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::protocol::{Event, ProcessEvent};

    const RUN: &str = "20261123-083227.123-k3xa";

    fn seal(task: TaskId) -> EventSeal {
        EventSeal::new(RUN, task, true)
    }

    #[test]
    fn sealed_events_can_be_read_and_are_accepted_for_their_job_only() {
        let line = seal((1, 2)).seal(r#"{"event":"done","adopted":true}"#);
        let event: Event = serde_json::from_str(&line).unwrap();
        assert_eq!(event, Event::Process(ProcessEvent::Done { adopted: true }));
        assert!(seal((1, 2)).accepts(&line));
        assert!(!seal((1, 1)).accepts(&line) && !seal((2, 2)).accepts(&line));
        assert!(!EventSeal::new("20261123-083227.123-k3xb", (1, 2), true).accepts(&line));
    }

    #[test]
    fn altered_events_are_not_accepted() {
        let line = seal((1, 0)).seal(r#"{"event":"started"}"#);
        for at in 0..line.len() {
            for bit in 0..7 {
                let mut altered = line.clone().into_bytes();
                altered[at] ^= 1 << bit;
                assert!(!seal((1, 0)).accepts(&String::from_utf8(altered).unwrap()), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn unsealed_events_are_accepted_only_from_older_versions() {
        let line = r#"{"event":"started"}"#;
        assert!(!seal((1, 0)).accepts(line));
        let old = EventSeal::new(RUN, (1, 0), false);
        assert!(old.accepts(line));
        assert!(old.accepts(&old.seal(line)) && !old.accepts(&seal((1, 1)).seal(line)));
    }
}
