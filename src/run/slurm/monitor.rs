//! The thread that deals with Slurm for a run: has batches submitted, watches their jobs, and tells what became of them.
//! What jobs say and make it reads from files, which costs no one else anything.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;

use super::job_outcome::{Answer, End, JobOutcome, JobState, Loss, outcome};
use super::job_store::{Batch, BatchTask};
use super::poll::Poll;
use super::queue::{self, Jobs, TaskId};
use super::submit::Submitter;
use super::submit_queue::{Submission, SubmitQueue};
use super::tracked_job::TrackedJob;
use crate::run::executor::Report;
use crate::run::protocol::{Event, ProcessEvent};
use crate::run::status::Cause;
use crate::stages::StageEvent;
use crate::store::{Key, Store};

/// Between two looks at files, at least and at most; and what a job adds to it.
const LOOK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const LOOK_PER_JOB: Duration = Duration::from_millis(5);
/// Before jobs that could not be cancelled are tried again.
const CANCEL_AGAIN: Duration = Duration::from_secs(2);

/// What the clerk is asked, and answers that come to it.
pub enum Request {
    /// Stages that are ready together.
    Submit(Vec<ReadyStage>),
    /// The run is to end: all its jobs are.
    Cancel(usize),
    Queue {
        asked_at: Instant,
        answer: Result<Jobs>,
    },
    Accounts(Result<BTreeMap<String, JobState>>),
    /// Nobody listens any more; jobs go on.
    End,
}

pub struct ReadyStage {
    pub stage: usize,
    pub key: Key,
    pub forced: bool,
    /// In how many parts it takes its images.
    pub split: usize,
}

pub struct Monitor {
    store: Store,
    requests: Receiver<Request>,
    reports: Sender<Report>,
    /// What is to be told; together, because whoever hears it looks at the whole run each time.
    pending_reports: RefCell<Vec<Report>>,
    queue: SubmitQueue,
    poll: Poll,
    run_start: Option<Timestamp>,
    /// By stage.
    tracked: BTreeMap<usize, TrackedJob>,
    /// Jobs of this run that somebody submitted before us, by stage.
    earlier: BTreeMap<usize, (Batch, usize)>,
    /// The number of the last batch.
    last: usize,
    to_cancel: BTreeSet<usize>,
    cancel_at: Instant,
    /// Stages whose jobs were cancelled as asked.
    cancelled: BTreeSet<usize>,
    /// `srpipe cancel` was called.
    is_ending: bool,
}

impl Monitor {
    pub fn new(
        submitter: Submitter,
        store: Store,
        poll: Poll,
        run_start: Option<Timestamp>,
        requests: Receiver<Request>,
        reports: Sender<Report>,
    ) -> Result<Self> {
        let batches = submitter.job_store.batches()?;
        let last = batches.last().map_or(0, |batch| batch.number);
        // The last that has a stage is the one that counts.
        let tasks = |batch: Batch| {
            let stages = batch.stages.clone().into_iter().enumerate();
            stages.map(move |(task, stage)| (stage, (batch.clone(), task)))
        };
        Ok(Self {
            earlier: batches.into_iter().flat_map(tasks).collect(),
            last,
            store,
            requests,
            reports,
            pending_reports: RefCell::default(),
            queue: SubmitQueue::new(submitter),
            poll,
            run_start,
            tracked: BTreeMap::new(),
            to_cancel: BTreeSet::new(),
            cancel_at: Instant::now(),
            cancelled: BTreeSet::new(),
            is_ending: false,
        })
    }

    /// Until nobody listens any more.
    pub fn work(mut self) {
        loop {
            let jobs = u32::try_from(self.tracked.len()).unwrap_or(u32::MAX);
            let mut wait = LOOK_PER_JOB.saturating_mul(jobs).clamp(LOOK.0, LOOK.1);
            loop {
                match self.requests.recv_timeout(wait) {
                    Ok(Request::End) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(request) => self.handle(request),
                    Err(RecvTimeoutError::Timeout) => break,
                }
                wait = Duration::ZERO;
            }
            if !self.is_ending && self.queue.submitter().job_store.is_cancelled() {
                self.is_ending = true;
                self.pending_reports.get_mut().push(Report::Cancel);
            }
            self.send();
            self.cancel();
            self.look();
            if !self.tracked.is_empty() {
                let is_missing = |tracked: &TrackedJob| self.answer(tracked.place).1 == Answer::Absent;
                let accounts = self.tracked.values().any(is_missing);
                self.poll.ask(accounts);
            }
            let pending_reports = self.pending_reports.take();
            if !pending_reports.is_empty() {
                // When nobody listens any more, the next request does not come.
                let _ = self.reports.send(Report::Many(pending_reports));
            }
        }
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Submit(ready) => self.take(ready),
            Request::Cancel(stage) => {
                self.to_cancel.insert(stage);
                self.cancel_at = Instant::now();
            }
            Request::Queue { asked_at, answer } => {
                let news = self.poll.handle_queue(asked_at, answer, self.tracked.len());
                // One line, at the first of those that wait.
                if let (Some(text), Some(&stage)) = (news, self.tracked.keys().next()) {
                    self.say(stage, text);
                }
            }
            Request::Accounts(answer) => self.poll.handle_accounts(answer),
            Request::End => {}
        }
    }

    /// Stages are to run: those that have a job of this run by now are tracked, the others become batches.
    fn take(&mut self, ready: Vec<ReadyStage>) {
        let mut new = BTreeMap::new();
        for ready in ready {
            match self.earlier.remove(&ready.stage) {
                Some((batch, task)) => {
                    self.watch(&ready, (batch.number, task));
                    self.tracked.get_mut(&ready.stage).expect("it is tracked").is_earlier = true;
                    self.queue.track_submitted(batch);
                }
                None => drop(new.insert(ready.stage, ready)),
            }
        }
        let wanted =
            |ready: &ReadyStage| BatchTask { stage: ready.stage, key: Some(ready.key.clone()), split: ready.split };
        let stages = new.values().map(wanted).collect();
        for batch in self.queue.submitter().batches(stages, self.last) {
            self.last = batch.number;
            for (task, stage) in batch.stages.iter().enumerate() {
                self.watch(&new[stage], (batch.number, task));
            }
            self.queue.put(batch);
        }
        self.poll.soon();
    }

    fn watch(&mut self, ready: &ReadyStage, place: TaskId) {
        let tracked =
            TrackedJob::new(&self.queue.submitter().job_store, place, ready.key.clone(), ready.forced, self.run_start);
        self.tracked.insert(ready.stage, tracked);
    }

    fn send(&mut self) {
        // What is to be cancelled is not handed over any more.
        let is_to_go = |stage: &usize| !self.to_cancel.contains(stage);
        let wanted = self.tracked.iter().filter(|(stage, _)| is_to_go(stage));
        let wanted: BTreeSet<usize> = wanted.map(|(_, tracked)| tracked.place.0).collect();
        for (batch, news) in self.queue.send(&self.poll, |number| wanted.contains(&number)) {
            self.poll.soon();
            let is_of_it = |tracked: &TrackedJob| tracked.place.0 == batch.number;
            for &stage in batch.stages.iter().filter(|stage| self.tracked.get(stage).is_some_and(is_of_it)) {
                match &news {
                    Submission::Sent => {}
                    Submission::PutOff(text) => self.say(stage, text.clone()),
                    Submission::GivenUp(text) => {
                        self.tell(stage, Event::Process(failed(Cause::Failed, text.clone())));
                        self.close(stage);
                    }
                }
            }
            if matches!(news, Submission::GivenUp(_)) {
                self.tracked.retain(|_, tracked| !is_of_it(tracked));
            }
        }
    }

    /// Ends the jobs that are to end; where Slurm does not answer, again later.
    fn cancel(&mut self) {
        if self.to_cancel.is_empty() || Instant::now() < self.cancel_at {
            return;
        }
        let Some(&first) = self.to_cancel.first() else { return };
        let submitter = self.queue.submitter();
        match queue::scancel(submitter.job_store.run_id(), submitter.settings.timeout) {
            Ok(()) => {
                for stage in std::mem::take(&mut self.to_cancel) {
                    if self.tracked.get(&stage).is_some_and(|tracked| self.queue.sent(tracked.place.0).is_some()) {
                        self.cancelled.insert(stage);
                        continue;
                    }
                    // Whether Slurm had taken it or not, it has it no more.
                    self.tracked.remove(&stage);
                    self.tell(stage, Event::Process(ProcessEvent::Interrupted));
                    self.close(stage);
                }
            }
            Err(error) => {
                self.say(first, format!("not cancelled yet: {error:#}"));
                self.cancel_at = Instant::now() + CANCEL_AGAIN;
            }
        }
        self.poll.soon();
    }

    /// Looks at every job, and tells what is new.
    fn look(&mut self) {
        let now = Instant::now();
        let grace = self.queue.submitter().settings.grace;
        let stages: Vec<usize> = self.tracked.keys().copied().collect();
        for stage in stages {
            let Some(mut tracked) = self.tracked.remove(&stage) else { continue };
            for event in tracked.read_events(now) {
                self.tell(stage, event);
            }
            if let Some(damage) = tracked.damage.take() {
                self.say(stage, damage);
            }
            let (id, answer) = self.answer(tracked.place);
            // Of an answer to a question from before it started, nothing is news.
            if let (Answer::Is(job), Some(_)) = (&answer, self.poll.after(tracked.since))
                && let Some(news) = tracked.news(&id, job)
            {
                self.tell(stage, Event::Process(news));
            }
            // In the queue again, by itself or because its node was lost; not in an answer from before it started.
            let waits = matches!(&answer, Answer::Is(JobState::Queued { reason }) if reason == "BeginTime")
                && self.poll.after(tracked.since).is_some();
            if tracked.is_to_hurry(waits, now) {
                // Where that is not allowed, it starts later.
                let _ = queue::start_now(&id, self.queue.submitter().settings.timeout);
                self.poll.soon();
            }
            let word = match outcome(&tracked.observe(&self.store, answer, now), grace) {
                JobOutcome::Wait => {
                    self.tracked.insert(stage, tracked);
                    continue;
                }
                // It waited for what failed, and that was tried again since; Slurm may have forgotten it by now.
                JobOutcome::Lost(loss)
                    if !self.is_ending
                        && !self.cancelled.contains(&stage)
                        && (loss == Loss::Ended(End::NeverStarted) || tracked.never_started(loss)) =>
                {
                    self.take(vec![ReadyStage { stage, key: tracked.key, forced: tracked.forced, split: 1 }]);
                    continue;
                }
                JobOutcome::Done => {
                    let adopted = tracked.word == Some(ProcessEvent::Done { adopted: true });
                    Some(ProcessEvent::Done { adopted })
                }
                JobOutcome::Failed => tracked.word.take(),
                JobOutcome::Lost(_) if self.is_ending || self.cancelled.contains(&stage) => {
                    Some(ProcessEvent::Interrupted)
                }
                JobOutcome::Lost(loss) => {
                    let (cause, error) = tracked.ended(loss, &id);
                    Some(failed(cause, error))
                }
            };
            self.to_cancel.remove(&stage);
            word.into_iter().for_each(|word| self.tell(stage, Event::Process(word)));
            self.close(stage);
        }
    }

    /// What Slurm says of a job, and its id.
    fn answer(&self, place: TaskId) -> (String, Answer) {
        let unknown = || format!("{} of run {}", queue::tag(place.0), self.queue.submitter().job_store.run_id());
        let Some(sent) = self.queue.sent(place.0) else { return (unknown(), Answer::None) };
        let id = sent.batch.task_id(place.1);
        let Some((_, jobs)) = self.poll.after(sent.at) else { return (id.unwrap_or_else(unknown), Answer::None) };
        if let Some(row) = jobs.get(&place) {
            return (row.id.clone(), Answer::Is(row.state.clone()));
        }
        // Where it says that a job lives which the queue has not, it missed its end.
        let ended = |job: &&JobState| matches!(job, JobState::Ended(_));
        let accounted = id.as_ref().and_then(|id| self.poll.accounted(id)).filter(ended);
        let answer = accounted.map_or(Answer::Absent, |job| Answer::Is(job.clone()));
        (id.unwrap_or_else(unknown), answer)
    }

    fn tell(&self, stage: usize, event: Event) {
        self.pending_reports.borrow_mut().push(Report::Event { stage, event });
    }

    fn say(&self, stage: usize, text: String) {
        self.tell(stage, Event::Stage(StageEvent::Message { text }));
    }

    fn close(&self, stage: usize) {
        self.pending_reports.borrow_mut().push(Report::Closed { stage });
    }
}

fn failed(cause: Cause, error: String) -> ProcessEvent {
    ProcessEvent::Failed { error, cause, damaged: None }
}
