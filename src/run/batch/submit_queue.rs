//! Batches that have yet to be submitted. If it is uncertain whether a submission succeeded, the batch is submitted
//! again only after the batch system's queue has shown that it does not contain it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::job_store::Batch;
use super::poll::Poll;
use super::submit::Submitter;
use super::system::Refusal;

/// The maximum number of attempts to submit a batch.
const MAX_TRIES: u32 = 5;
/// The minimum and maximum delay before a batch is submitted again.
const DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The batches of a run, submitted or not.
pub(super) struct SubmitQueue {
    submitter: Submitter,
    unsent: Vec<Unsent>,
    /// Submitted batches, by number.
    sent: BTreeMap<usize, Sent>,
}

/// A batch without a confirmed submission.
struct Unsent {
    batch: Batch,
    tries: u32,
    next: Instant,
    /// The batch may have been submitted: only an answer to a query that started after this time shows whether it was.
    uncertain_since: Option<Instant>,
}

/// A submitted batch.
pub struct Sent {
    pub batch: Batch,
    /// Answers to queries that started before this time do not include the batch.
    pub at: Instant,
}

/// The result of an attempt to submit a batch.
pub(super) enum Attempt {
    Submitted,
    /// The batch is submitted again later.
    Postponed(String),
    Rejected(String),
}

impl SubmitQueue {
    pub(super) fn new(submitter: Submitter) -> Self {
        Self { submitter, unsent: vec![], sent: BTreeMap::new() }
    }

    pub(super) fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    /// Adds a new batch.
    pub(super) fn push(&mut self, batch: Batch) {
        self.unsent.push(Unsent { batch, tries: 0, next: Instant::now(), uncertain_since: None });
    }

    /// Adds a batch whose record an earlier process wrote. Without a job number, it may or may not have been submitted.
    pub(super) fn push_recorded(&mut self, batch: Batch) {
        let now = Instant::now();
        if batch.job.is_some() {
            self.sent.entry(batch.number).or_insert(Sent { batch, at: now });
        } else if !self.unsent.iter().any(|unsent| unsent.batch.number == batch.number) {
            self.unsent.push(Unsent { batch, tries: 0, next: now, uncertain_since: Some(now) });
        }
    }

    pub(super) fn sent(&self, number: usize) -> Option<&Sent> {
        self.sent.get(&number)
    }

    /// Submits the batches that are due, and drops those that are no longer needed.
    pub(super) fn submit_due(&mut self, poll: &Poll, is_wanted: impl Fn(usize) -> bool) -> Vec<(Batch, Attempt)> {
        let mut attempts = vec![];
        for mut unsent in std::mem::take(&mut self.unsent) {
            if !is_wanted(unsent.batch.number) {
                continue;
            }
            if let Some(since) = unsent.uncertain_since {
                let Some((asked_at, jobs)) = poll.answer_after(since) else {
                    self.unsent.push(unsent);
                    continue;
                };
                let number = unsent.batch.number;
                if let Some(job) = jobs.range((number, 0)..=(number, usize::MAX)).next().map(|(_, job)| job) {
                    let batch = Batch { job: job.number(), ..unsent.batch };
                    self.sent.insert(number, Sent { batch: batch.clone(), at: asked_at });
                    attempts.push((batch, Attempt::Submitted));
                    continue;
                }
                unsent.uncertain_since = None;
            }
            if Instant::now() < unsent.next {
                self.unsent.push(unsent);
                continue;
            }
            let batch = unsent.batch.clone();
            attempts.push((batch, self.attempt(unsent)));
        }
        attempts
    }

    fn attempt(&mut self, mut unsent: Unsent) -> Attempt {
        unsent.tries += 1;
        let (text, uncertain_since) = match self.submitter.submit(&unsent.batch, &[]) {
            Ok(job) => {
                let batch = Batch { job: Some(job), ..unsent.batch };
                self.sent.insert(batch.number, Sent { batch, at: Instant::now() });
                return Attempt::Submitted;
            }
            // There will be room when other jobs of this run have ended.
            Err(Refusal::TooManyJobs(text)) if !self.sent.is_empty() => {
                unsent.tries = unsent.tries.min(MAX_TRIES - 1);
                (text, None)
            }
            Err(Refusal::Uncertain(text)) if unsent.tries < MAX_TRIES => (text, Some(Instant::now())),
            Err(Refusal::Permanent(text) | Refusal::TooManyJobs(text) | Refusal::Uncertain(text)) => {
                return Attempt::Rejected(format!("{} rejected the job: {text}", self.submitter.system.name()));
            }
        };
        unsent.next = Instant::now() + (DELAY.0 * 2u32.pow(unsent.tries)).min(DELAY.1);
        unsent.uncertain_since = uncertain_since;
        self.unsent.push(unsent);
        Attempt::Postponed(format!("not submitted yet: {text}"))
    }
}
