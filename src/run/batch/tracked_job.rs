//! A job that is being watched: its events, its heartbeat, and its stderr.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::event_seal::EventSeal;
use super::job_outcome::{Answer, Loss, Observation};
use super::job_store::JobStore;
use super::system::{BatchSystem, End, JobState, TaskId};
use crate::run::protocol::{Event, ProcessEvent};
use crate::run::status::Cause;
use crate::run::tail::Tail;
use crate::store::files::read_tail;
use crate::store::{Action, Key, Store};

/// A line in a job's stderr: everything before it belongs to an earlier attempt.
pub(super) const RESTART_LINE: &str = "srpipe: the job starts again";

/// The number of bytes at the end of a job's stderr that contain the batch system's own lines.
const END_OF_STDERR: u64 = 16 << 10;
/// The first bytes of a line that contains an event, and of one that contains progress.
const EVENT: &str = r#"{"event":"#;
const PROGRESS: &str = r#"{"event":"progress""#;

/// The delay before a requeued job is started at once: nodes reject a job in the second in which it ended.
const RESTART_DELAY: Duration = Duration::from_secs(3);

/// The observations of a job so far.
pub(super) struct TrackedJob {
    pub(super) task: TaskId,
    pub(super) key: Key,
    /// Whether the stage is forced: the store may contain an older result.
    pub(super) forced: bool,
    /// When the run began. For a forced stage, results from before do not count.
    run_start: Option<Timestamp>,
    /// When the job started last, or when tracking began.
    pub(super) since: Instant,
    /// Whether an earlier process submitted the job.
    pub(super) is_earlier: bool,
    has_started: bool,
    out: Tail,
    /// The name of the file with the job's events.
    out_name: String,
    seal: EventSeal,
    /// Set when that file contains an event that was altered, or cannot be parsed. The caller takes and reports it.
    pub damage: Option<String>,
    err: PathBuf,
    /// Since when the requeued job has been delayed.
    requeued_since: Option<Instant>,
    /// Whether the batch system was asked to start the requeued job at once.
    is_expedited: bool,
    /// The last event, if it reports the end of the stage.
    pub(super) last_event: Option<ProcessEvent>,
    beat: Option<(String, Instant)>,
    gone_since: Option<Instant>,
    /// The last queue state that was reported.
    reported: Option<ProcessEvent>,
}

impl TrackedJob {
    pub fn new(
        job_store: &JobStore,
        seal: EventSeal,
        task: TaskId,
        key: Key,
        forced: bool,
        run_start: Option<Timestamp>,
    ) -> Self {
        let path = job_store.file(task, "out");
        let out_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            task,
            key,
            forced,
            run_start,
            since: Instant::now(),
            is_earlier: false,
            has_started: false,
            out: Tail::new(path),
            out_name,
            seal,
            damage: None,
            err: job_store.file(task, "err"),
            requeued_since: None,
            is_expedited: false,
            last_event: None,
            beat: None,
            gone_since: None,
            reported: None,
        }
    }

    /// Reads new events and returns those that do not report the end of the stage.
    pub(super) fn read_events(&mut self, now: Instant) -> Vec<Event> {
        let mut events = vec![];
        let mut lines = vec![];
        self.out.read_lines(|piece| lines.extend(events_in(piece)));
        // Events at the beginning of a huge file are skipped.
        self.has_started |= self.out.has_skipped();
        for line in lines {
            if !self.seal.accepts(&line) {
                if line.starts_with(EVENT) {
                    self.damage = Some(format!(
                        "{} is damaged: ignored an event that was altered or belongs to another job",
                        self.out_name
                    ));
                }
                continue;
            }
            let event = match serde_json::from_str::<Event>(&line) {
                Ok(event) => event,
                Err(error) if line.starts_with(EVENT) => {
                    self.damage = Some(format!("{} is damaged: cannot parse an event: {error}", self.out_name));
                    continue;
                }
                // Output of a library.
                Err(_) => continue,
            };
            self.has_started = true;
            match event {
                Event::Process(
                    event @ (ProcessEvent::Done { .. } | ProcessEvent::Failed { .. } | ProcessEvent::Interrupted),
                ) => self.last_event = Some(event),
                event => {
                    // A new attempt: the end of the previous one no longer counts.
                    self.last_event = None;
                    if event == Event::Process(ProcessEvent::Started) {
                        self.since = now;
                        (self.requeued_since, self.is_expedited) = (None, false);
                    }
                    events.push(event);
                }
            }
        }
        events
    }

    /// Observes the job now.
    pub(super) fn observe(
        &mut self,
        store: &Store,
        system: &dyn BatchSystem,
        answer: Answer,
        now: Instant,
    ) -> Observation {
        let is_gone = answer.is_gone();
        let reported_done = matches!(self.last_event, Some(ProcessEvent::Done { .. }));
        if is_gone || reported_done {
            store.refresh(&self.key);
        }
        // The last event of a forced stage may be damaged. The timestamp of the result is only compared after the job
        // has ended, because the clocks of nodes differ.
        let is_new = |action: Action| !self.forced || reported_done || (is_gone && self.is_of_this_run(&action));
        let has_result = (!self.forced || reported_done || is_gone)
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
        let stderr = if is_gone { self.stderr() } else { None };
        let logged_end = stderr.and_then(|stderr| system.end_in_log(&stderr));
        Observation {
            has_result,
            reported_failure: matches!(self.last_event, Some(ProcessEvent::Failed { .. })),
            answer,
            logged_end,
            gone_for: self.gone_since.map_or_else(Default::default, |since| now - since),
            silent_for: self.beat.as_ref().map(|(_, at)| now - *at),
        }
    }

    /// Whether a result was committed after the run began.
    fn is_of_this_run(&self, action: &Action) -> bool {
        let finished: Option<Timestamp> = action.cost.finished_at.parse().ok();
        self.run_start.zip(finished).is_some_and(|(start, finished)| finished > start)
    }

    /// Returns the queue state to report, if it has changed.
    pub(super) fn queue_event(&mut self, id: &str, state: &JobState) -> Option<ProcessEvent> {
        let job = id.to_string();
        let event = match state {
            JobState::Queued { reason, .. } => ProcessEvent::Queued { job, reason: reason.clone() },
            JobState::Running { node } => ProcessEvent::Placed { job, node: node.clone() },
            _ => return None,
        };
        (self.reported.as_ref() != Some(&event)).then(|| self.reported.insert(event).clone())
    }

    /// Whether the batch system should be asked to start a requeued job at once; true once per requeue. `is_delayed`:
    /// the queue delays the job.
    pub(super) fn should_expedite(&mut self, is_delayed: bool, now: Instant) -> bool {
        if !is_delayed || !self.has_started || self.is_expedited {
            return false;
        }
        let since = *self.requeued_since.get_or_insert(now);
        self.is_expedited = now - since >= RESTART_DELAY;
        self.is_expedited
    }

    /// Whether a lost job of an earlier process never started.
    pub(super) fn never_started(&self, loss: Loss) -> bool {
        loss == Loss::Vanished && self.is_earlier && !self.has_started
    }

    /// Describes the end of a lost job.
    pub(super) fn describe_loss(&self, loss: Loss, id: &str) -> (Cause, String) {
        match loss {
            Loss::Vanished => {
                (Cause::Lost, format!("job {id} is no longer in the queue and left neither a result nor an error"))
            }
            Loss::Ended(End::Failed | End::Completed) if self.last_event == Some(ProcessEvent::Interrupted) => {
                (Cause::Lost, format!("job {id} was stopped by a signal; its progress is saved"))
            }
            Loss::Ended(end) => {
                let line = self.stderr().and_then(|text| Some(text.trim().lines().last()?.trim().to_string()));
                let line = line.filter(|line| !line.is_empty() && end.cause() == Cause::Failed);
                let line = line.map_or(String::new(), |line| format!(": {line}"));
                (end.cause(), format!("job {id} {}{line}", end.description()))
            }
        }
    }

    /// Returns the end of what the last attempt wrote to stderr.
    fn stderr(&self) -> Option<String> {
        let text = read_tail(&self.err, END_OF_STDERR)?;
        Some(text.rsplit(RESTART_LINE).next()?.to_string())
    }
}

/// Returns the lines that may be events. Of the progress events, keeps only the newest, because a thousand jobs may
/// report progress.
fn events_in(mut lines: Vec<String>) -> Vec<String> {
    let is_progress = |line: &String| line.starts_with(PROGRESS);
    let newest = lines.iter().rposition(is_progress);
    let mut i = 0;
    lines.retain(|line| {
        i += 1;
        line.starts_with('{') && (!is_progress(line) || Some(i - 1) == newest)
    });
    lines
}
