//! The thread that deals with Slurm for a run: submits batches, watches their jobs, and tells what became of them.
//!
//! What jobs say and make is read from files, which costs no one else anything; Slurm's controller serves thousands and
//! is asked as seldom as will do: one `squeue` for all jobs of the run, further and further apart while nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::book::{Batch, Book, Charter};
use super::options::{Defaults, options};
use super::queue::{self, Jobs, Place, Refusal};
use super::verdict::{Answer, Dead, JobState, Verdict, verdict};
use super::watched::Watched;
use crate::pipeline::Resources;
use crate::run::roles::Report;
use crate::run::status::Cause;
use crate::run::wire::{Event, ProcessEvent};
use crate::stages::StageEvent;
use crate::store::{Key, Store};

/// Most tasks of one array; Slurm's own limit is 1001 where nobody raised it.
const MAX_TASKS: usize = 500;
/// How often a batch is submitted, when the queue never has it.
const MAX_TRIES: u32 = 5;
/// Between two questions to Slurm, at least and at most.
const ASK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Between two looks at files, at least and at most; and what a job adds to it.
const LOOK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const LOOK_PER_JOB: Duration = Duration::from_millis(5);

/// What the clerk is asked, and answers that come to it.
pub enum Wish {
    /// Stages that are ready together.
    Submit(Vec<Ready>),
    Cancel(usize),
    Queue {
        asked_at: Instant,
        answer: Result<Jobs>,
    },
    Accounts(Result<BTreeMap<String, JobState>>),
    /// Nobody listens any more; jobs go on.
    End,
}

pub struct Ready {
    pub stage: usize,
    pub key: Key,
    pub forced: bool,
}

/// How stages ended that did not say so themselves.
pub type Ends = Arc<Mutex<BTreeMap<usize, (Cause, String)>>>;

pub struct Clerk {
    pub book: Book,
    pub charter: Charter,
    pub store: Store,
    pub exe: PathBuf,
    pub defaults: Defaults,
    pub grace: Duration,
    /// When the run began, for the accounting.
    pub since: String,
    pub wishes: Receiver<Wish>,
    /// For those that ask Slurm, to bring its answers.
    pub answers: Sender<Wish>,
    pub reports: Sender<Report>,
    pub ends: Ends,
}

/// A batch that Slurm has not taken for all we know.
struct Unsent {
    batch: Batch,
    tries: u32,
    next: Instant,
    /// Slurm may have it: only an answer to a question of later than this tells.
    uncertain_since: Option<Instant>,
}

/// What changes.
struct State {
    watched: BTreeMap<usize, Watched>,
    unsent: Vec<Unsent>,
    /// When each batch was handed over; answers to earlier questions say nothing of it.
    sent: BTreeMap<usize, Instant>,
    /// Jobs of this run that somebody submitted before us, by stage.
    earlier: BTreeMap<usize, (Batch, usize)>,
    last_number: usize,
    queue: Option<(Instant, Jobs)>,
    accounts: BTreeMap<String, JobState>,
    has_accounting: bool,
    is_asking: bool,
    ask_at: Instant,
    interval: Duration,
    is_silent: bool,
    to_cancel: BTreeSet<usize>,
    cancel_at: Instant,
}

impl Clerk {
    /// Until nobody listens any more.
    pub fn work(self) {
        let mut earlier = BTreeMap::new();
        let mut last_number = 0;
        for batch in self.book.batches() {
            last_number = batch.number;
            // The last that has a stage is the one that counts.
            earlier.extend(batch.stages.iter().enumerate().map(|(task, &stage)| (stage, (batch.clone(), task))));
        }
        let now = Instant::now();
        let mut state = State {
            watched: BTreeMap::new(),
            unsent: vec![],
            sent: BTreeMap::new(),
            earlier,
            last_number,
            queue: None,
            accounts: BTreeMap::new(),
            has_accounting: true,
            is_asking: false,
            ask_at: now,
            interval: ASK.0,
            is_silent: false,
            to_cancel: BTreeSet::new(),
            cancel_at: now,
        };
        loop {
            let look = (LOOK_PER_JOB * state.watched.len() as u32).clamp(LOOK.0, LOOK.1);
            let mut wish = self.wishes.recv_timeout(look);
            loop {
                match wish {
                    Ok(Wish::End) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(wish) => self.grant(&mut state, wish),
                    Err(RecvTimeoutError::Timeout) => break,
                }
                wish = self.wishes.recv_timeout(Duration::ZERO);
            }
            self.send(&mut state);
            self.cancel(&mut state);
            self.look(&mut state);
            self.ask(&mut state);
        }
    }

    fn grant(&self, state: &mut State, wish: Wish) {
        match wish {
            Wish::Submit(ready) => self.take(state, ready),
            Wish::Cancel(stage) => {
                state.to_cancel.insert(stage);
                state.cancel_at = Instant::now();
            }
            Wish::Queue { asked_at, answer } => {
                state.is_asking = false;
                match answer {
                    Ok(jobs) => {
                        let same = state.queue.as_ref().is_some_and(|(_, before)| *before == jobs);
                        let least = self.least_interval(state);
                        state.interval = if same { (state.interval * 3 / 2).clamp(least, ASK.1) } else { least };
                        if std::mem::take(&mut state.is_silent) {
                            self.say_to_all(state, "Slurm answers again");
                        }
                        state.queue = Some((asked_at, jobs));
                    }
                    Err(error) => {
                        state.interval = (state.interval * 2).min(ASK.1);
                        if !std::mem::replace(&mut state.is_silent, true) {
                            self.say_to_all(state, &format!("Slurm does not answer ({error:#}); jobs go on"));
                        }
                    }
                }
                state.ask_at = Instant::now() + state.interval;
            }
            Wish::Accounts(Ok(accounts)) => state.accounts = accounts,
            Wish::Accounts(Err(_)) => state.has_accounting = false,
            Wish::End => {}
        }
    }

    fn least_interval(&self, state: &State) -> Duration {
        (Duration::from_millis(10) * state.watched.len() as u32).clamp(ASK.0, ASK.1)
    }

    /// Stages are to run: those that have a job of this run by now are watched, the others become batches.
    fn take(&self, state: &mut State, ready: Vec<Ready>) {
        let mut groups: BTreeMap<(String, Vec<String>), Vec<Ready>> = BTreeMap::new();
        let now = Instant::now();
        for ready in ready {
            let Some((batch, task)) = state.earlier.remove(&ready.stage) else {
                let group = (self.charter.plan.stages[ready.stage].base.clone(), self.options(ready.stage));
                groups.entry(group).or_default().push(ready);
                continue;
            };
            let place = (batch.number, task);
            state.watched.insert(ready.stage, Watched::new(&self.book, place, ready.key, ready.forced));
            if batch.job.is_none() && !state.unsent.iter().any(|other| other.batch.number == batch.number) {
                state.unsent.push(Unsent { batch, tries: 0, next: now, uncertain_since: Some(now) });
            } else {
                state.sent.entry(place.0).or_insert(now);
            }
        }
        for ready in groups.into_values() {
            let mut ready = ready.into_iter().peekable();
            while ready.peek().is_some() {
                let tasks: Vec<Ready> = ready.by_ref().take(MAX_TASKS).collect();
                state.last_number += 1;
                let batch = Batch {
                    number: state.last_number,
                    stages: tasks.iter().map(|ready| ready.stage).collect(),
                    keys: tasks.iter().map(|ready| Some(ready.key.clone())).collect(),
                    job: None,
                };
                // Without its entry a job could do nothing, and nobody would find it.
                let written = self.book.write(&batch);
                for (task, ready) in tasks.into_iter().enumerate() {
                    let place = (batch.number, task);
                    let stage = ready.stage;
                    state.watched.insert(stage, Watched::new(&self.book, place, ready.key, ready.forced));
                    if let Err(error) = &written {
                        self.end(state, stage, Cause::Failed, format!("{error:#}"));
                    }
                }
                if written.is_ok() {
                    state.unsent.push(Unsent { batch, tries: 0, next: now, uncertain_since: None });
                }
            }
        }
        state.ask_at = now + ASK.0;
        state.interval = ASK.0;
    }

    fn asked(&self, stage: usize) -> (Resources, crate::pipeline::Site) {
        let cuda = self.charter.backend == crate::plan::BackendClass::Cuda;
        self.defaults.complete(&self.charter.plan.stages[stage], cuda)
    }

    fn options(&self, stage: usize) -> Vec<String> {
        options(&self.asked(stage))
    }

    /// Submits what is to be submitted.
    fn send(&self, state: &mut State) {
        for mut unsent in std::mem::take(&mut state.unsent) {
            let number = unsent.batch.number;
            if !state.watched.values().any(|watched| watched.place.0 == number) {
                continue;
            }
            if let Some(since) = unsent.uncertain_since {
                match state.queue.as_ref().filter(|(asked_at, _)| *asked_at > since) {
                    None => {
                        state.unsent.push(unsent);
                        continue;
                    }
                    Some((asked_at, jobs)) if jobs.keys().any(|place| place.0 == number) => {
                        state.sent.insert(number, *asked_at);
                        continue;
                    }
                    // It does not have it.
                    Some(_) => unsent.uncertain_since = None,
                }
            }
            if Instant::now() < unsent.next {
                state.unsent.push(unsent);
                continue;
            }
            unsent.tries += 1;
            match queue::sbatch(&self.job_options(&unsent.batch), &queue::script(&self.exe, &self.book.path(number))) {
                Ok(job) => {
                    state.sent.insert(number, Instant::now());
                    // To look up for people; without it the jobs are found all the same.
                    let _ = self.book.write(&Batch { job: Some(job), ..unsent.batch });
                }
                Err(Refusal::Never(text)) => self.give_up(state, &unsent, &text),
                Err(Refusal::TooMany(text)) if state.sent.is_empty() => self.give_up(state, &unsent, &text),
                Err(Refusal::TooMany(text)) => {
                    unsent.tries -= 1;
                    self.put_off(state, unsent, &text, None);
                }
                Err(Refusal::Uncertain(text)) if unsent.tries < MAX_TRIES => {
                    self.put_off(state, unsent, &text, Some(Instant::now()));
                }
                Err(Refusal::Uncertain(text)) => self.give_up(state, &unsent, &text),
            }
            state.ask_at = state.ask_at.min(Instant::now() + ASK.0);
        }
    }

    fn put_off(&self, state: &mut State, mut unsent: Unsent, text: &str, uncertain_since: Option<Instant>) {
        let wait = (ASK.0 * 2u32.pow(unsent.tries)).min(ASK.1);
        (unsent.next, unsent.uncertain_since) = (Instant::now() + wait, uncertain_since);
        for &stage in &unsent.batch.stages {
            if state.watched.get(&stage).is_some_and(|watched| watched.place.0 == unsent.batch.number) {
                self.say(stage, format!("not submitted yet: {text}"));
            }
        }
        state.unsent.push(unsent);
    }

    fn give_up(&self, state: &mut State, unsent: &Unsent, text: &str) {
        let text = format!("sbatch does not take the job: {text}");
        for &stage in &unsent.batch.stages {
            if state.watched.get(&stage).is_some_and(|watched| watched.place.0 == unsent.batch.number) {
                self.end(state, stage, Cause::Failed, text.clone());
            }
        }
    }

    fn job_options(&self, batch: &Batch) -> Vec<String> {
        let mut all = self.options(batch.stages[0]);
        all.push(format!("--job-name={}", self.book.run_id()));
        all.push(format!("--comment={}", batch.comment()));
        all.push(format!("--output={}", self.book.pattern(batch, "out")));
        all.push(format!("--error={}", self.book.pattern(batch, "err")));
        if batch.is_array() {
            all.push(format!("--array=0-{}", batch.stages.len() - 1));
        }
        all
    }

    /// Ends the jobs that are to end; where Slurm does not answer, again later.
    fn cancel(&self, state: &mut State) {
        if state.to_cancel.is_empty() || Instant::now() < state.cancel_at {
            return;
        }
        // What Slurm has not taken for certain need not be ended.
        let numbers: BTreeSet<usize> =
            state.unsent.iter().filter(|u| u.uncertain_since.is_none()).map(|u| u.batch.number).collect();
        for stage in state.to_cancel.clone() {
            if state.watched.get(&stage).is_none_or(|watched| numbers.contains(&watched.place.0)) {
                state.to_cancel.remove(&stage);
                self.end(state, stage, Cause::Cancelled, "it was cancelled before it was submitted".into());
            }
        }
        if state.to_cancel.is_empty() {
            return;
        }
        let all = state.watched.keys().all(|stage| state.to_cancel.contains(stage));
        let ids: Vec<String> = state.to_cancel.iter().filter_map(|stage| self.id(state, *stage)).collect();
        if !all && ids.is_empty() {
            state.cancel_at = Instant::now() + ASK.0;
            return;
        }
        match queue::scancel(self.book.run_id(), if all { None } else { Some(&ids) }) {
            Ok(()) => state.to_cancel.clear(),
            Err(error) => {
                let first = state.to_cancel.first().copied();
                first.into_iter().for_each(|stage| self.say(stage, format!("not cancelled yet: {error:#}")));
                state.cancel_at = Instant::now() + 2 * ASK.0;
            }
        }
        state.ask_at = Instant::now();
        state.interval = ASK.0;
    }

    fn id(&self, state: &State, stage: usize) -> Option<String> {
        let (_, jobs) = state.queue.as_ref()?;
        Some(jobs.get(&state.watched.get(&stage)?.place)?.id.clone())
    }

    /// Looks at every job, and tells what is new.
    fn look(&self, state: &mut State) {
        let now = Instant::now();
        let stages: Vec<usize> = state.watched.keys().copied().collect();
        for stage in stages {
            let Some(mut watched) = state.watched.remove(&stage) else { continue };
            for event in watched.listen() {
                self.tell(stage, event);
            }
            let (id, answer) = self.answer(state, watched.place);
            if let Answer::Is(job) = &answer
                && let Some(news) = watched.news(&id, job)
            {
                self.tell(stage, Event::Process(news));
            }
            let judged = verdict(&watched.see(&self.store, answer, now), self.grace);
            if judged == Verdict::Wait {
                state.watched.insert(stage, watched);
                continue;
            }
            state.to_cancel.remove(&stage);
            match judged {
                Verdict::Wait => {}
                Verdict::Done => {
                    let adopted = watched.word == Some(ProcessEvent::Done { adopted: true });
                    self.tell(stage, Event::Process(ProcessEvent::Done { adopted }));
                }
                Verdict::Failed => watched.word.into_iter().for_each(|word| self.tell(stage, Event::Process(word))),
                Verdict::Dead(dead) => {
                    let end = if let Dead::Ended(end) = dead { Some(end) } else { None };
                    self.note_end(stage, watched.ended(end, &id));
                }
            }
            self.close(stage);
        }
    }

    /// What Slurm says of a job, and its id.
    fn answer(&self, state: &State, place: Place) -> (String, Answer) {
        let unknown = || format!("{} of run {}", queue::tag(place.0), self.book.run_id());
        let sent = state.sent.get(&place.0);
        let Some((asked_at, jobs)) = &state.queue else { return (unknown(), Answer::None) };
        if let Some(row) = jobs.get(&place) {
            return (row.id.clone(), Answer::Is(row.state.clone()));
        }
        if sent.is_none_or(|sent| asked_at <= sent) {
            return (unknown(), Answer::None);
        }
        let id = self.book.batch(place.0).and_then(|batch| batch.task_id(place.1));
        let accounted = id.as_ref().and_then(|id| state.accounts.get(id));
        let answer = accounted.map_or(Answer::Absent, |job| Answer::Is(job.clone()));
        (id.unwrap_or_else(unknown), answer)
    }

    /// Asks Slurm when it is time to, and does not wait for the answer.
    fn ask(&self, state: &mut State) {
        if state.is_asking || state.watched.is_empty() || Instant::now() < state.ask_at {
            return;
        }
        state.is_asking = true;
        let (answers, run) = (self.answers.clone(), self.book.run_id().to_string());
        let since = self.since.clone();
        let is_missing = |watched: &Watched| self.answer(state, watched.place).1 == Answer::Absent;
        let accounts = state.has_accounting && state.watched.values().any(is_missing);
        let ask = move || {
            let asked_at = Instant::now();
            if accounts {
                let _ = answers.send(Wish::Accounts(queue::sacct(&run, &since)));
            }
            let _ = answers.send(Wish::Queue { asked_at, answer: queue::squeue(&run) });
        };
        if thread::Builder::new().name("squeue".into()).spawn(ask).is_err() {
            state.is_asking = false;
            state.ask_at = Instant::now() + ASK.1;
        }
    }

    fn tell(&self, stage: usize, event: Event) {
        // When nobody listens any more, the next wish does not come.
        let _ = self.reports.send(Report::Event { stage, event });
    }

    fn say(&self, stage: usize, text: String) {
        self.tell(stage, Event::Stage(StageEvent::Message { text }));
    }

    /// One line, at the first of those that wait.
    fn say_to_all(&self, state: &State, text: &str) {
        state.watched.keys().next().into_iter().for_each(|&stage| self.say(stage, text.to_string()));
    }

    fn end(&self, state: &mut State, stage: usize, cause: Cause, error: String) {
        state.watched.remove(&stage);
        self.note_end(stage, (cause, error));
        self.close(stage);
    }

    fn note_end(&self, stage: usize, end: (Cause, String)) {
        self.ends.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(stage, end);
    }

    fn close(&self, stage: usize) {
        let _ = self.reports.send(Report::Closed { stage });
    }
}
