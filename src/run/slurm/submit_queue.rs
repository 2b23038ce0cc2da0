//! Batches on their way to Slurm. One that Slurm did not answer about is handed over again only after its queue has shown
//! that it is not there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::job_store::Batch;
use super::poll::Poll;
use super::queue::Refusal;
use super::submit::Submitter;

/// How often a batch is handed over, when the queue never has it.
const MAX_TRIES: u32 = 5;
/// Before it is handed over once more, at least and at most.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

pub struct SubmitQueue {
    submitter: Submitter,
    unsent: Vec<Unsent>,
    /// What Slurm has, by number.
    sent: BTreeMap<usize, Sent>,
}

/// A batch that Slurm has not taken for all we know.
struct Unsent {
    batch: Batch,
    tries: u32,
    next: Instant,
    /// Slurm may have it: only an answer to a question of later than this tells.
    uncertain_since: Option<Instant>,
}

pub struct Sent {
    pub batch: Batch,
    /// Answers to questions of earlier say nothing of it.
    pub at: Instant,
}

/// What became of an attempt to hand over a batch.
pub enum Submission {
    Sent,
    /// Slurm may take it later.
    PutOff(String),
    GivenUp(String),
}

impl SubmitQueue {
    pub fn new(submitter: Submitter) -> Self {
        Self { submitter, unsent: vec![], sent: BTreeMap::new() }
    }

    pub fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    /// A new batch.
    pub fn put(&mut self, batch: Batch) {
        self.unsent.push(Unsent { batch, tries: 0, next: Instant::now(), uncertain_since: None });
    }

    /// One that was written down before this process began.
    pub fn track_submitted(&mut self, batch: Batch) {
        let now = Instant::now();
        if batch.job.is_some() {
            self.sent.entry(batch.number).or_insert(Sent { batch, at: now });
        } else if !self.unsent.iter().any(|unsent| unsent.batch.number == batch.number) {
            self.unsent.push(Unsent { batch, tries: 0, next: now, uncertain_since: Some(now) });
        }
    }

    pub fn sent(&self, number: usize) -> Option<&Sent> {
        self.sent.get(&number)
    }

    /// Hands over what is due. A batch that is not wanted any more is dropped.
    pub fn send(&mut self, poll: &Poll, is_wanted: impl Fn(usize) -> bool) -> Vec<(Batch, Submission)> {
        let mut news = vec![];
        for mut unsent in std::mem::take(&mut self.unsent) {
            if !is_wanted(unsent.batch.number) {
                continue;
            }
            if let Some(since) = unsent.uncertain_since {
                let Some((asked_at, jobs)) = poll.after(since) else {
                    self.unsent.push(unsent);
                    continue;
                };
                let number = unsent.batch.number;
                if let Some(row) = jobs.range((number, 0)..=(number, usize::MAX)).next().map(|(_, row)| row) {
                    let batch = Batch { job: row.job(), ..unsent.batch };
                    self.sent.insert(number, Sent { batch: batch.clone(), at: asked_at });
                    news.push((batch, Submission::Sent));
                    continue;
                }
                unsent.uncertain_since = None;
            }
            if Instant::now() < unsent.next {
                self.unsent.push(unsent);
                continue;
            }
            let batch = unsent.batch.clone();
            news.push((batch, self.attempt(unsent)));
        }
        news
    }

    fn attempt(&mut self, mut unsent: Unsent) -> Submission {
        unsent.tries += 1;
        let (text, uncertain_since) = match self.submitter.submit(&unsent.batch, &[]) {
            Ok(job) => {
                let batch = Batch { job: Some(job), ..unsent.batch };
                self.sent.insert(batch.number, Sent { batch, at: Instant::now() });
                return Submission::Sent;
            }
            // As long as others of this run go on, there will be room.
            Err(Refusal::TooMany(text)) if !self.sent.is_empty() => {
                unsent.tries = unsent.tries.min(MAX_TRIES - 1);
                (text, None)
            }
            Err(Refusal::Uncertain(text)) if unsent.tries < MAX_TRIES => (text, Some(Instant::now())),
            Err(Refusal::Never(text) | Refusal::TooMany(text) | Refusal::Uncertain(text)) => {
                return Submission::GivenUp(format!("sbatch does not take the job: {text}"));
            }
        };
        unsent.next = Instant::now() + (WAIT.0 * 2u32.pow(unsent.tries)).min(WAIT.1);
        unsent.uncertain_since = uncertain_since;
        self.unsent.push(unsent);
        Submission::PutOff(format!("not submitted yet: {text}"))
    }
}
