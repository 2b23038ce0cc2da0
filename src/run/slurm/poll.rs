//! What Slurm said last of a run's jobs, and when it is asked again. Its controller serves thousands: it is asked one
//! question for all jobs, further and further apart while nothing changes.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::job_outcome::JobState;
use super::monitor::Request;
use super::queue::{self, Jobs};

/// Between two questions, at least and at most; and what a job adds to the least.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(30);
const PER_JOB: Duration = Duration::from_millis(10);

pub struct Poll {
    run: String,
    /// When the run began, for the accounting.
    since: String,
    timeout: Duration,
    /// Where answers go.
    answers: Sender<Request>,
    /// The last answer, and when it was asked for: it tells of nothing later.
    queue: Option<(Instant, Jobs)>,
    accounts: BTreeMap<String, JobState>,
    has_accounting: bool,
    is_asking: bool,
    next: Instant,
    interval: Duration,
    is_silent: bool,
}

impl Poll {
    pub fn new(run: String, since: String, timeout: Duration, answers: Sender<Request>) -> Self {
        Self {
            run,
            since,
            timeout,
            answers,
            queue: None,
            accounts: BTreeMap::new(),
            has_accounting: true,
            is_asking: false,
            next: Instant::now(),
            interval: LEAST,
            is_silent: false,
        }
    }

    /// The last answer to a question of later than `since`.
    pub fn after(&self, since: Instant) -> Option<(Instant, &Jobs)> {
        self.queue.as_ref().filter(|(asked_at, _)| *asked_at > since).map(|(asked_at, jobs)| (*asked_at, jobs))
    }

    /// What the accounting said of a job that is not in the queue.
    pub fn accounted(&self, id: &str) -> Option<&JobState> {
        self.accounts.get(id)
    }

    /// Something has changed: an answer that tells of it is wanted.
    pub fn soon(&mut self) {
        self.interval = LEAST;
        self.next = self.next.min(Instant::now() + LEAST);
    }

    /// Asks when it is time to, and does not wait for the answer. `accounts`: whether there are jobs that the queue does not
    /// tell of.
    pub fn ask(&mut self, accounts: bool) {
        if self.is_asking || Instant::now() < self.next {
            return;
        }
        let (answers, run, since, timeout) = (self.answers.clone(), self.run.clone(), self.since.clone(), self.timeout);
        let accounts = accounts && self.has_accounting;
        let ask = move || {
            let asked_at = Instant::now();
            if accounts {
                let _ = answers.send(Request::Accounts(queue::sacct(&run, &since, timeout)));
            }
            let _ = answers.send(Request::Queue { asked_at, answer: queue::squeue(&run, timeout) });
        };
        self.is_asking = thread::Builder::new().name("squeue".into()).spawn(ask).is_ok();
        self.next = Instant::now() + MOST;
    }

    /// An answer about `jobs` jobs has come, or none; gives what is to be told of that.
    pub fn handle_queue(&mut self, asked_at: Instant, answer: Result<Jobs>, jobs: usize) -> Option<String> {
        self.is_asking = false;
        let least = (PER_JOB * u32::try_from(jobs).unwrap_or(u32::MAX)).clamp(LEAST, MOST);
        let news = match answer {
            Ok(jobs) => {
                let same = self.queue.as_ref().is_some_and(|(_, before)| *before == jobs);
                self.interval = if same { (self.interval * 3 / 2).clamp(least, MOST) } else { least };
                self.queue = Some((asked_at, jobs));
                std::mem::take(&mut self.is_silent).then(|| "Slurm answers again".to_string())
            }
            Err(error) => {
                self.interval = (self.interval * 2).min(MOST);
                let is_news = !std::mem::replace(&mut self.is_silent, true);
                is_news.then(|| format!("Slurm does not answer ({error:#}); jobs go on"))
            }
        };
        self.next = Instant::now() + self.interval;
        news
    }

    pub fn handle_accounts(&mut self, answer: Result<BTreeMap<String, JobState>>) {
        match answer {
            Ok(accounts) => self.accounts = accounts,
            // There is none, as on many clusters; any other error may pass.
            Err(error) => self.has_accounting = !format!("{error:#}").contains("disabled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use anyhow::anyhow;

    use super::super::queue::Row;
    use super::*;

    fn poll() -> Poll {
        Poll::new("run".into(), String::new(), Duration::from_secs(1), channel().0)
    }

    fn one(node: &str) -> Jobs {
        Jobs::from([((1, 0), Row { id: "7".into(), state: JobState::Running { node: node.into() } })])
    }

    #[test]
    fn questions_are_further_apart_while_nothing_changes() {
        let mut poll = poll();
        let mut intervals = vec![];
        for node in ["a", "a", "a", "b"] {
            poll.handle_queue(Instant::now(), Ok(one(node)), 1);
            intervals.push(poll.interval.as_millis());
        }
        assert_eq!(intervals, [1000, 1500, 2250, 1000]);
        (0..20).for_each(|_| drop(poll.handle_queue(Instant::now(), Ok(one("b")), 1)));
        assert_eq!(poll.interval, MOST);
        poll.handle_queue(Instant::now(), Ok(one("a")), 1000);
        assert_eq!(poll.interval.as_secs(), 10);
        poll.soon();
        assert_eq!(poll.interval, LEAST);
    }

    #[test]
    fn silence_is_told_once_and_takes_nothing_back() {
        let mut poll = poll();
        let start = Instant::now();
        let asked_at = start + Duration::from_secs(1);
        assert_eq!(poll.handle_queue(asked_at, Ok(one("a")), 1), None);
        let told = poll.handle_queue(asked_at, Err(anyhow!("timed out")), 1).unwrap();
        assert_eq!(told, "Slurm does not answer (timed out); jobs go on");
        assert_eq!(poll.handle_queue(asked_at, Err(anyhow!("timed out")), 1), None);
        assert_eq!(poll.after(start).unwrap().1, &one("a"));
        assert!(poll.after(asked_at).is_none());
        assert_eq!(poll.handle_queue(asked_at, Ok(one("a")), 1).unwrap(), "Slurm answers again");
    }
}
