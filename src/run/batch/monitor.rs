//! The thread that handles a run's jobs: it submits batches, watches their jobs, and reports their outcomes. It reads
//! events and results from files, without queries to the batch system.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;

use super::job_outcome::{Answer, JobOutcome, Loss, outcome};
use super::job_store::{Batch, BatchTask};
use super::poll::Poll;
use super::request::{ReadyStage, Request};
use super::submit::Submitter;
use super::submit_queue::{Attempt, SubmitQueue};
use super::system::{End, JobState, TaskId, tag};
use super::tracked_job::TrackedJob;
use crate::run::executor::Report;
use crate::run::protocol::{Event, ProcessEvent};
use crate::run::status::Cause;
use crate::stages::StageEvent;
use crate::store::Store;

/// The minimum and maximum interval at which files are read, and what each job adds to it.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const INTERVAL_PER_JOB: Duration = Duration::from_millis(5);
/// The delay before another attempt to cancel jobs.
const CANCEL_DELAY: Duration = Duration::from_secs(2);

/// The jobs of a run, and the means to submit and watch them.
pub(super) struct Monitor {
    store: Store,
    requests: Receiver<Request>,
    reports: Sender<Report>,
    /// Reports are sent together, because the scheduler looks at the whole run after each message.
    pending_reports: RefCell<Vec<Report>>,
    submit_queue: SubmitQueue,
    poll: Poll,
    run_start: Option<Timestamp>,
    /// By stage.
    tracked: BTreeMap<usize, TrackedJob>,
    /// Jobs of this run that an earlier process submitted, by stage: the batch and the index in it.
    earlier: BTreeMap<usize, (Batch, usize)>,
    last_batch: usize,
    to_cancel: BTreeSet<usize>,
    cancel_at: Instant,
    /// Stages whose jobs were cancelled on request.
    cancelled: BTreeSet<usize>,
    /// `srpipe cancel` was called.
    is_ending: bool,
}

impl Monitor {
    pub(super) fn new(
        submitter: Submitter,
        store: Store,
        poll: Poll,
        run_start: Option<Timestamp>,
        requests: Receiver<Request>,
        reports: Sender<Report>,
    ) -> Result<Self> {
        let batches = submitter.job_store.batches()?;
        let last_batch = batches.last().map_or(0, |batch| batch.number);
        let tasks = |batch: Batch| {
            let stages = batch.stages.clone().into_iter().enumerate();
            stages.map(move |(task, stage)| (stage, (batch.clone(), task)))
        };
        Ok(Self {
            // The last batch that contains a stage counts.
            earlier: batches.into_iter().flat_map(tasks).collect(),
            last_batch,
            store,
            requests,
            reports,
            pending_reports: RefCell::default(),
            submit_queue: SubmitQueue::new(submitter),
            poll,
            run_start,
            tracked: BTreeMap::new(),
            to_cancel: BTreeSet::new(),
            cancel_at: Instant::now(),
            cancelled: BTreeSet::new(),
            is_ending: false,
        })
    }

    /// Runs until it is asked to stop.
    pub(super) fn run(mut self) {
        loop {
            let jobs = u32::try_from(self.tracked.len()).unwrap_or(u32::MAX);
            let mut wait = INTERVAL_PER_JOB.saturating_mul(jobs).clamp(INTERVAL.0, INTERVAL.1);
            loop {
                match self.requests.recv_timeout(wait) {
                    Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(request) => self.handle(request),
                    Err(RecvTimeoutError::Timeout) => break,
                }
                wait = Duration::ZERO;
            }
            if !self.is_ending && self.submitter().job_store.is_cancelled() {
                self.is_ending = true;
                self.pending_reports.get_mut().push(Report::Cancel);
            }
            self.submit_due();
            self.cancel_jobs();
            self.check_jobs();
            if !self.tracked.is_empty() {
                let is_missing = |tracked: &TrackedJob| self.answer(tracked.task).1 == Answer::Absent;
                let needs_accounting = self.tracked.values().any(is_missing);
                self.poll.query_if_due(needs_accounting);
            }
            let reports = self.pending_reports.take();
            if !reports.is_empty() {
                // If the scheduler is gone, the next receive fails.
                let _ = self.reports.send(Report::Many(reports));
            }
        }
    }

    fn submitter(&self) -> &Submitter {
        self.submit_queue.submitter()
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Submit(ready) => self.submit(ready),
            Request::Cancel(stage) => {
                self.to_cancel.insert(stage);
                self.cancel_at = Instant::now();
            }
            Request::QueueAnswer { asked_at, answer } => {
                let message = self.poll.handle_queue(asked_at, answer, self.tracked.len());
                // Reported once, for the first stage that waits.
                if let (Some(text), Some(&stage)) = (message, self.tracked.keys().next()) {
                    self.report_message(stage, text);
                }
            }
            Request::AccountingAnswer(answer) => self.poll.handle_accounting(answer),
            Request::Stop => {}
        }
    }

    /// Tracks the stages that already have a job of this run, and queues the others for submission.
    fn submit(&mut self, ready: Vec<ReadyStage>) {
        let mut new = BTreeMap::new();
        for ready in ready {
            match self.earlier.remove(&ready.stage) {
                Some((batch, task)) => {
                    let mut tracked = self.new_job(&ready, (batch.number, task));
                    tracked.is_earlier = true;
                    self.tracked.insert(ready.stage, tracked);
                    self.submit_queue.push_recorded(batch);
                }
                None => drop(new.insert(ready.stage, ready)),
            }
        }
        let task = |ready: &ReadyStage| BatchTask {
            stage: ready.stage,
            key: Some(ready.key.clone()),
            batch_divisor: ready.batch_divisor,
        };
        let stages = new.values().map(task).collect();
        for batch in self.submitter().batches(stages, self.last_batch) {
            self.last_batch = batch.number;
            for (task, stage) in batch.stages.iter().enumerate() {
                let tracked = self.new_job(&new[stage], (batch.number, task));
                self.tracked.insert(*stage, tracked);
            }
            self.submit_queue.push(batch);
        }
        self.poll.query_soon();
    }

    fn new_job(&self, ready: &ReadyStage, task: TaskId) -> TrackedJob {
        let Submitter { job_store, spec, .. } = self.submitter();
        let seal = spec.event_seal(job_store.run_id(), task);
        TrackedJob::new(job_store, seal, task, ready.key.clone(), ready.forced, self.run_start)
    }

    fn submit_due(&mut self) {
        // Do not submit jobs that are about to be cancelled.
        let is_wanted = |stage: &usize| !self.to_cancel.contains(stage);
        let wanted = self.tracked.iter().filter(|(stage, _)| is_wanted(stage));
        let wanted: BTreeSet<usize> = wanted.map(|(_, tracked)| tracked.task.0).collect();
        for (batch, attempt) in self.submit_queue.submit_due(&self.poll, |number| wanted.contains(&number)) {
            self.poll.query_soon();
            let is_of_batch = |tracked: &TrackedJob| tracked.task.0 == batch.number;
            for &stage in batch.stages.iter().filter(|stage| self.tracked.get(stage).is_some_and(is_of_batch)) {
                match &attempt {
                    Attempt::Submitted => {}
                    Attempt::Postponed(text) => self.report_message(stage, text.clone()),
                    Attempt::Rejected(text) => {
                        self.report(stage, Event::Process(failed(Cause::Failed, text.clone())));
                        self.close(stage);
                    }
                }
            }
            if matches!(attempt, Attempt::Rejected(_)) {
                self.tracked.retain(|_, tracked| !is_of_batch(tracked));
            }
        }
    }

    /// Cancels the jobs in `to_cancel`. If the batch system does not answer, tries again later.
    fn cancel_jobs(&mut self) {
        if self.to_cancel.is_empty() || Instant::now() < self.cancel_at {
            return;
        }
        let Some(&first) = self.to_cancel.first() else { return };
        let submitter = self.submitter();
        match submitter.system.cancel(submitter.job_store.run_id()) {
            Ok(()) => {
                for stage in std::mem::take(&mut self.to_cancel) {
                    if self.tracked.get(&stage).is_some_and(|job| self.submit_queue.sent(job.task.0).is_some()) {
                        self.cancelled.insert(stage);
                        continue;
                    }
                    // Even if the batch system had the job, it has cancelled it now.
                    self.tracked.remove(&stage);
                    self.report(stage, Event::Process(ProcessEvent::Interrupted));
                    self.close(stage);
                }
            }
            Err(error) => {
                self.report_message(first, format!("not cancelled yet: {error:#}"));
                self.cancel_at = Instant::now() + CANCEL_DELAY;
            }
        }
        self.poll.query_soon();
    }

    /// Checks every job and reports what is new.
    fn check_jobs(&mut self) {
        let now = Instant::now();
        let system = self.submitter().system.clone();
        let stages: Vec<usize> = self.tracked.keys().copied().collect();
        for stage in stages {
            let Some(mut tracked) = self.tracked.remove(&stage) else { continue };
            for event in tracked.read_events(now) {
                self.report(stage, event);
            }
            if let Some(damage) = tracked.damage.take() {
                self.report_message(stage, damage);
            }
            let (id, answer) = self.answer(tracked.task);
            // An answer to a query from before the job started is out of date.
            let is_current = self.poll.answer_after(tracked.since).is_some();
            if let (Answer::Is(job), true) = (&answer, is_current)
                && let Some(event) = tracked.queue_event(&id, job)
            {
                self.report(stage, Event::Process(event));
            }
            let is_delayed = matches!(&answer, Answer::Is(JobState::Queued { is_delayed: true, .. })) && is_current;
            if tracked.should_expedite(is_delayed, now) {
                // If this is not allowed, the job starts later.
                let _ = system.start_now(&id);
                self.poll.query_soon();
            }
            let is_cancelled = self.is_ending || self.cancelled.contains(&stage);
            let event = match outcome(&tracked.observe(&self.store, &*system, answer, now), system.grace()) {
                JobOutcome::Wait => {
                    if matches!(tracked.last_event, Some(ProcessEvent::Failed { .. })) {
                        // It ends as soon as the batch system confirms it.
                        self.poll.query_soon();
                    }
                    self.tracked.insert(stage, tracked);
                    continue;
                }
                // A job that it depended on failed, and was then retried. The queue may have forgotten this one.
                JobOutcome::Lost(loss)
                    if !is_cancelled && (loss == Loss::Ended(End::NeverStarted) || tracked.never_started(loss)) =>
                {
                    self.submit(vec![ReadyStage { stage, key: tracked.key, forced: tracked.forced, batch_divisor: 1 }]);
                    continue;
                }
                JobOutcome::Done => {
                    let adopted = tracked.last_event == Some(ProcessEvent::Done { adopted: true });
                    Some(ProcessEvent::Done { adopted })
                }
                JobOutcome::Failed => tracked.last_event.take(),
                JobOutcome::Lost(_) if is_cancelled => Some(ProcessEvent::Interrupted),
                JobOutcome::Lost(loss) => {
                    let (cause, error) = tracked.describe_loss(loss, &id);
                    Some(failed(cause, error))
                }
            };
            self.to_cancel.remove(&stage);
            event.into_iter().for_each(|event| self.report(stage, Event::Process(event)));
            self.close(stage);
        }
    }

    /// Returns the id of a job and its state in the batch system.
    fn answer(&self, task: TaskId) -> (String, Answer) {
        let unknown = || format!("{} of run {}", tag(task.0), self.submitter().job_store.run_id());
        let Some(sent) = self.submit_queue.sent(task.0) else { return (unknown(), Answer::None) };
        let id = sent.batch.job_id(task.1);
        let Some((_, jobs)) = self.poll.answer_after(sent.at) else {
            return (id.unwrap_or_else(unknown), Answer::None);
        };
        if let Some(job) = jobs.get(&task) {
            return (job.id.clone(), Answer::Is(job.state.clone()));
        }
        // If the accounting shows a job as alive that is missing from the queue, the accounting missed its end.
        let ended = |job: &&JobState| matches!(job, JobState::Ended(_));
        let accounted = id.as_ref().and_then(|id| self.poll.accounted(id)).filter(ended);
        let answer = accounted.map_or(Answer::Absent, |job| Answer::Is(job.clone()));
        (id.unwrap_or_else(unknown), answer)
    }

    fn report(&self, stage: usize, event: Event) {
        self.pending_reports.borrow_mut().push(Report::Event { stage, event });
    }

    fn report_message(&self, stage: usize, text: String) {
        self.report(stage, Event::Stage(StageEvent::Message { text }));
    }

    fn close(&self, stage: usize) {
        self.pending_reports.borrow_mut().push(Report::Closed { stage });
    }
}

fn failed(cause: Cause, error: String) -> ProcessEvent {
    ProcessEvent::Failed { error, cause, damaged: None }
}
