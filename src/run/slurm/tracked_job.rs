//! A job that is tracked: what it says of itself, and how long ago anybody saw that it lives.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::job_outcome::{AGAIN, Answer, End, JobState, Loss, Observation};
use super::job_store::JobStore;
use super::queue::TaskId;
use crate::run::protocol::{Event, ProcessEvent};
use crate::run::status::Cause;
use crate::run::tail::Tail;
use crate::store::{Action, Key, Store, open_file};

/// Slurm's own lines in a job's stderr come last.
const END_OF_STDERR: u64 = 16 << 10;
/// How a line begins that tells of progress.
const PROGRESS: &str = r#"{"event":"progress""#;

/// The first bytes of a line that contains an event.
const EVENT: &str = r#"{"event":"#;

/// Between a job's end and its next start.
const BREATH: Duration = Duration::from_secs(3);

pub struct TrackedJob {
    pub place: TaskId,
    pub key: Key,
    /// Its result counts only when it says so itself: there may be an older one.
    pub forced: bool,
    /// When its run began: a result from before does not count for a forced stage.
    run_start: Option<Timestamp>,
    /// When it was last heard to start, or else tracked first.
    pub since: Instant,
    /// Somebody before us submitted it.
    pub is_earlier: bool,
    /// It has started once.
    has_started: bool,
    out: Tail,
    /// The name of the file with its events.
    out_name: String,
    /// Set when a line in that file is found damaged; taken by whoever reports it.
    pub damage: Option<String>,
    err: PathBuf,
    /// Since when it is in the queue again after a start, and whether it was asked to start at once.
    again_since: Option<Instant>,
    is_hurried: bool,
    /// Its last word, where that was the last.
    pub word: Option<ProcessEvent>,
    beat: Option<(String, Instant)>,
    gone_since: Option<Instant>,
    /// What was told of its place last.
    shown: Option<ProcessEvent>,
}

impl TrackedJob {
    pub fn new(job_store: &JobStore, place: TaskId, key: Key, forced: bool, run_start: Option<Timestamp>) -> Self {
        let path = job_store.file(place, "out");
        let out_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let out = Tail::new(path);
        let err = job_store.file(place, "err");
        let since = Instant::now();
        Self {
            place,
            key,
            forced,
            run_start,
            since,
            is_earlier: false,
            has_started: false,
            out,
            out_name,
            damage: None,
            err,
            again_since: None,
            is_hurried: false,
            word: None,
            beat: None,
            gone_since: None,
            shown: None,
        }
    }

    /// What it said since the last time, as far as others may want to handle_queue it before it ends.
    pub fn read_events(&mut self, now: Instant) -> Vec<Event> {
        let mut heard = vec![];
        let lines = self.out.lines();
        let is_progress = |line: &String| line.starts_with(PROGRESS);
        let newest = lines.iter().rposition(is_progress);
        for (i, line) in lines.iter().enumerate() {
            // A thousand jobs say a lot; of progress, the newest is enough.
            if is_progress(line) && Some(i) != newest {
                continue;
            }
            let event = match serde_json::from_str::<Event>(line) {
                Ok(event) => event,
                Err(error) if line.starts_with(EVENT) => {
                    self.damage = Some(format!("{} is damaged: cannot read an event: {error}", self.out_name));
                    continue;
                }
                // Output of a library.
                Err(_) => continue,
            };
            self.has_started = true;
            match event {
                Event::Process(
                    word @ (ProcessEvent::Done { .. } | ProcessEvent::Failed { .. } | ProcessEvent::Interrupted),
                ) => self.word = Some(word),
                event => {
                    // Another attempt: what the last one said was not the last word.
                    self.word = None;
                    if event == Event::Process(ProcessEvent::Started) {
                        self.since = now;
                        (self.again_since, self.is_hurried) = (None, false);
                    }
                    heard.push(event);
                }
            }
        }
        heard
    }

    /// All that is seen of it now.
    pub fn observe(&mut self, store: &Store, answer: Answer, now: Instant) -> Observation {
        let is_gone = matches!(answer, Answer::Absent | Answer::Is(JobState::Ended(_)));
        let said_done = matches!(self.word, Some(ProcessEvent::Done { .. }));
        if is_gone || said_done {
            store.refresh(&self.key);
        }
        // The event of a forced stage may be lost. Only after its end does the time of the result decide, because the
        // clocks of nodes differ.
        let is_new = |action: Action| !self.forced || said_done || (is_gone && self.is_of_this_run(&action));
        let has_result = (!self.forced || said_done || is_gone)
            && store.action(&self.key).is_ok_and(|action| action.is_some_and(is_new));
        match (is_gone, self.gone_since) {
            (false, _) => self.gone_since = None,
            (true, None) => self.gone_since = Some(now),
            _ => {}
        }
        if is_gone && let Some(beat) = store.last_beat(&self.key) {
            match &self.beat {
                Some((last, _)) if *last == beat => {}
                _ => self.beat = Some((beat, now)),
            }
        }
        Observation {
            has_result,
            said_failed: matches!(self.word, Some(ProcessEvent::Failed { .. })),
            answer,
            told: if is_gone { self.stderr().and_then(|text| End::from_stderr(&text)) } else { None },
            gone_for: self.gone_since.map_or_else(Default::default, |since| now - since),
            silent_for: self.beat.as_ref().map(|(_, at)| now - *at),
        }
    }

    /// Whether a result was committed after the run began.
    fn is_of_this_run(&self, action: &Action) -> bool {
        let finished: Option<Timestamp> = action.cost.finished_at.parse().ok();
        self.run_start.zip(finished).is_some_and(|(start, finished)| finished > start)
    }

    /// What to tell of its place, where that is news.
    pub fn news(&mut self, id: &str, state: &JobState) -> Option<ProcessEvent> {
        let news = match state {
            JobState::Queued { reason } => ProcessEvent::Queued { job: id.to_string(), reason: reason.clone() },
            JobState::Running { node } => ProcessEvent::Placed { job: id.to_string(), node: node.clone() },
            _ => return None,
        };
        (self.shown.as_ref() != Some(&news)).then(|| self.shown.insert(news).clone())
    }

    /// Whether it is time to have it started at once. `waits`: whether it waits in the queue because it was there before.
    /// Answers once for each start, and not at once: a node refuses a job that comes back in the second in which it went.
    pub fn is_to_hurry(&mut self, waits: bool, now: Instant) -> bool {
        if !waits || !self.has_started || self.is_hurried {
            return false;
        }
        let since = *self.again_since.get_or_insert(now);
        self.is_hurried = now - since >= BREATH;
        self.is_hurried
    }

    /// Whether a lost job of an earlier process was lost before it began.
    pub fn never_started(&self, loss: Loss) -> bool {
        loss == Loss::Vanished && self.is_earlier && !self.has_started
    }

    /// How it ended, for one that did not say so itself.
    pub fn ended(&self, loss: Loss, id: &str) -> (Cause, String) {
        match loss {
            Loss::Vanished => {
                (Cause::Lost, format!("job {id} is gone from Slurm's queue, and left neither a result nor a word"))
            }
            Loss::Ended(End::Failed | End::Completed) if self.word == Some(ProcessEvent::Interrupted) => {
                (Cause::Lost, format!("job {id} was asked from outside to stop; its progress is saved"))
            }
            Loss::Ended(end) => {
                let line = self.stderr().and_then(|text| Some(text.trim().lines().last()?.trim().to_string()));
                let line = line.filter(|line| !line.is_empty() && line != AGAIN && end.cause() == Cause::Failed);
                (end.cause(), format!("job {id} {}{}", end.words(), line.map_or(String::new(), |l| format!(": {l}"))))
            }
        }
    }

    fn stderr(&self) -> Option<String> {
        let (mut file, length) = open_file(&self.err).ok()?;
        file.seek(SeekFrom::Start(length.saturating_sub(END_OF_STDERR))).ok()?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
