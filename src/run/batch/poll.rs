//! Queries the batch system about a run's jobs. The system serves thousands of users, so one query covers all jobs, and
//! the interval between queries grows while nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::request::Request;
use super::system::{BatchSystem, JobState, Jobs};

/// The minimum and maximum interval between two queries, and what each job adds to the minimum.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(30);
const PER_JOB: Duration = Duration::from_millis(10);

/// The last answer of the batch system about a run's jobs, and the time of the next query.
pub(super) struct Poll {
    system: Arc<dyn BatchSystem>,
    run_id: String,
    /// When the run began, for the accounting.
    since: String,
    /// Receives the answers.
    answers: Sender<Request>,
    /// The last answer, and the time of its query; later changes are not visible in it.
    queue: Option<(Instant, Jobs)>,
    accounts: BTreeMap<String, JobState>,
    has_accounting: bool,
    is_querying: bool,
    next: Instant,
    interval: Duration,
    is_silent: bool,
}

impl Poll {
    pub(super) fn new(system: Arc<dyn BatchSystem>, run_id: String, since: String, answers: Sender<Request>) -> Self {
        Self {
            system,
            run_id,
            since,
            answers,
            queue: None,
            accounts: BTreeMap::new(),
            has_accounting: true,
            is_querying: false,
            next: Instant::now(),
            interval: MIN_INTERVAL,
            is_silent: false,
        }
    }

    /// Returns the last answer, with the time of its query, if the query started after `since`.
    pub(super) fn answer_after(&self, since: Instant) -> Option<(Instant, &Jobs)> {
        self.queue.as_ref().filter(|(asked_at, _)| *asked_at > since).map(|(asked_at, jobs)| (*asked_at, jobs))
    }

    /// Returns the state of a job in the accounting.
    pub(super) fn accounted(&self, id: &str) -> Option<&JobState> {
        self.accounts.get(id)
    }

    /// Schedules a query soon, because something has changed.
    pub(super) fn query_soon(&mut self) {
        self.interval = MIN_INTERVAL;
        self.next = self.next.min(Instant::now() + MIN_INTERVAL);
    }

    /// Starts a query if one is due, without waiting for the answer. `needs_accounting`: some jobs are missing from the
    /// queue.
    pub(super) fn query_if_due(&mut self, needs_accounting: bool) {
        if self.is_querying || Instant::now() < self.next {
            return;
        }
        let (system, answers, run_id) = (self.system.clone(), self.answers.clone(), self.run_id.clone());
        let since = (needs_accounting && self.has_accounting).then(|| self.since.clone());
        let query = move || {
            let asked_at = Instant::now();
            if let Some(since) = since {
                let _ = answers.send(Request::AccountingAnswer(system.accounting(&run_id, &since)));
            }
            let _ = answers.send(Request::QueueAnswer { asked_at, answer: system.queue(&run_id) });
        };
        self.is_querying = thread::Builder::new().name("queue".into()).spawn(query).is_ok();
        self.next = Instant::now() + MAX_INTERVAL;
    }

    /// Handles an answer about `jobs` jobs. Returns a message if the system stopped or resumed answering.
    pub(super) fn handle_queue(&mut self, asked_at: Instant, answer: Result<Jobs>, jobs: usize) -> Option<String> {
        self.is_querying = false;
        let min = (PER_JOB * u32::try_from(jobs).unwrap_or(u32::MAX)).clamp(MIN_INTERVAL, MAX_INTERVAL);
        let name = self.system.name();
        let message = match answer {
            Ok(jobs) => {
                let same = self.queue.as_ref().is_some_and(|(_, before)| *before == jobs);
                self.interval = if same { (self.interval * 3 / 2).clamp(min, MAX_INTERVAL) } else { min };
                self.queue = Some((asked_at, jobs));
                std::mem::take(&mut self.is_silent).then(|| format!("{name} answers again"))
            }
            Err(error) => {
                self.interval = (self.interval * 2).min(MAX_INTERVAL);
                let is_new = !std::mem::replace(&mut self.is_silent, true);
                is_new.then(|| format!("{name} does not answer ({error:#}); jobs continue"))
            }
        };
        self.next = Instant::now() + self.interval;
        message
    }

    pub(super) fn handle_accounting(&mut self, answer: Result<Option<BTreeMap<String, JobState>>>) {
        match answer {
            Ok(Some(accounts)) => self.accounts = accounts,
            Ok(None) => self.has_accounting = false,
            // The next query may be answered.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use anyhow::anyhow;

    use super::super::system::QueuedJob;
    use super::*;
    use crate::run::slurm::Slurm;

    fn poll() -> Poll {
        Poll::new(Arc::new(Slurm::new(Default::default())), "run".into(), String::new(), channel().0)
    }

    fn one(node: &str) -> Jobs {
        Jobs::from([((1, 0), QueuedJob { id: "7".into(), state: JobState::Running { node: node.into() } })])
    }

    #[test]
    fn the_interval_grows_while_nothing_changes() {
        let mut poll = poll();
        let mut intervals = vec![];
        for node in ["a", "a", "a", "b"] {
            poll.handle_queue(Instant::now(), Ok(one(node)), 1);
            intervals.push(poll.interval.as_millis());
        }
        assert_eq!(intervals, [1000, 1500, 2250, 1000]);
        (0..20).for_each(|_| drop(poll.handle_queue(Instant::now(), Ok(one("b")), 1)));
        assert_eq!(poll.interval, MAX_INTERVAL);
        poll.handle_queue(Instant::now(), Ok(one("a")), 1000);
        assert_eq!(poll.interval.as_secs(), 10);
        poll.query_soon();
        assert_eq!(poll.interval, MIN_INTERVAL);
    }

    #[test]
    fn a_system_that_does_not_answer_is_reported_once_and_the_last_answer_stays() {
        let mut poll = poll();
        let start = Instant::now();
        let asked_at = start + Duration::from_secs(1);
        assert_eq!(poll.handle_queue(asked_at, Ok(one("a")), 1), None);
        let message = poll.handle_queue(asked_at, Err(anyhow!("timed out")), 1).unwrap();
        assert_eq!(message, "Slurm does not answer (timed out); jobs continue");
        assert_eq!(poll.handle_queue(asked_at, Err(anyhow!("timed out")), 1), None);
        assert_eq!(poll.answer_after(start).unwrap().1, &one("a"));
        assert!(poll.answer_after(asked_at).is_none());
        assert_eq!(poll.handle_queue(asked_at, Ok(one("a")), 1).unwrap(), "Slurm answers again");
    }
}
