//! The one thread that decides. Executors run stages and report; every transition of a stage goes through
//! [`Scheduler::set`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::exec::LOG_FILE;
use super::known::Visible;
use super::limits::{Limits, Over};
use super::slots::{Demand, Load, Place, Slots};
use super::status::{Cause, Failure, Status};
use super::wire::{Event, Order, ProcessEvent};
use crate::plan::{BackendClass, Plan, Sources, StageState, advance};
use crate::stages::StageEvent;
use crate::store::{Digest, Hold, Key, RunDir, RunRecord, RunState, Store};

/// How many of a log's last lines are shown with an error.
const TAIL_LINES: usize = 10;
/// How often stages are held against their limits.
const TICK: Duration = Duration::from_millis(200);

/// Runs stages somewhere. Reports come over a channel that the executor was made with: events of a stage while it
/// lives, and [`Report::Closed`] after the last of them.
pub trait Executor {
    /// Starts a stage whose messages are appended to the file `log`.
    fn start(&mut self, stage: usize, order: &Order, log: &Path) -> Result<()>;
    /// Asks a stage to save what it has and end.
    fn stop(&mut self, stage: usize);
    /// Ends a stage at once, with all that it started.
    fn kill(&mut self, stage: usize);
    /// The memory that a stage's processes take now, in bytes.
    fn memory(&self, stage: usize) -> u64;
    /// Called once after a stage closed: how it ended, for one that did not say so itself.
    fn ended(&mut self, stage: usize) -> (Cause, String);
}

/// Shows a run to somebody. Stages are counted as in the run's record.
pub trait Progress {
    fn started(&mut self, run: &RunRecord);
    fn stage(&mut self, stage: usize, status: &Status);
    fn event(&mut self, stage: usize, event: &StageEvent);
    /// The run was asked to stop, and waits for its stages to save.
    fn stopping(&mut self);
    fn finished(&mut self, run: &RunRecord);
}

/// What the scheduler hears.
#[derive(Debug)]
pub enum Report {
    Event {
        stage: usize,
        event: Event,
    },
    /// The stage's process is gone, or as good as.
    Closed {
        stage: usize,
    },
    /// Ctrl-C, or a request to end from whoever manages processes.
    Signal,
}

/// What does not change in a run.
pub struct Job<'a> {
    pub plan: &'a Plan,
    pub sources: &'a Sources,
    pub backend: BackendClass,
    /// The CUDA device of stages that run a network, or none for the CPU.
    pub cuda: Option<usize>,
    pub slots: Slots,
    pub on_failure: OnFailure,
    pub remote: Option<String>,
    pub store: &'a Store,
    pub run: &'a RunDir,
}

/// What a failed stage means for those that do not need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// What runs goes on to its end; nothing else is started.
    #[default]
    StartNothing,
    KeepGoing,
}

pub struct Scheduler<'a> {
    job: Job<'a>,
    executor: &'a mut dyn Executor,
    progress: &'a mut dyn Progress,
    /// What is known, by the plan's rules.
    states: Vec<StageState>,
    /// What happens, by this run's.
    statuses: Vec<Status>,
    /// The last word of each stage's process.
    last_words: Vec<Option<ProcessEvent>>,
    started: Vec<Instant>,
    /// What each stage at work was given.
    places: BTreeMap<usize, Place>,
    limits: Limits,
    /// How often each stage was tried again, by what had ended it.
    retries: BTreeMap<(usize, Cause), usize>,
    /// Stages that have yet to run although they are known.
    forced: BTreeSet<usize>,
    /// Their keys, which count as unknown until then.
    hidden: BTreeSet<Key>,
    record: RunRecord,
    record_is_stale: bool,
    healed: BTreeSet<Digest>,
    stop: Stop,
}

/// How urgently the run was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Asked,
    AtOnce,
}

impl<'a> Scheduler<'a> {
    pub fn new(
        job: Job<'a>,
        states: Vec<StageState>,
        forced: BTreeSet<usize>,
        record: RunRecord,
        executor: &'a mut dyn Executor,
        progress: &'a mut dyn Progress,
    ) -> Self {
        let n = states.len();
        Self {
            job,
            executor,
            progress,
            states,
            statuses: vec![Status::Pending; n],
            last_words: vec![None; n],
            started: vec![Instant::now(); n],
            places: BTreeMap::new(),
            limits: Limits::default(),
            retries: BTreeMap::new(),
            forced,
            hidden: BTreeSet::new(),
            record,
            record_is_stale: true,
            healed: BTreeSet::new(),
            stop: Stop::No,
        }
    }

    /// Runs all that can be run; returns the finished record. An error is of the store or the machine, not of a stage.
    /// `hold` goes back to when `states` were looked up.
    pub fn run(mut self, reports: &Receiver<Report>, mut hold: Hold) -> Result<RunRecord> {
        let start = Instant::now();
        self.progress.started(&self.record);
        self.tell_of_damage();
        loop {
            self.settle()?;
            if self.stop == Stop::No {
                self.start_what_can()?;
            }
            if !self.statuses.iter().any(Status::is_active) {
                break;
            }
            // From here on the record says what this run counts on.
            self.save_record()?;
            drop(hold);
            let report = match self.has_limits() {
                true => reports.recv_timeout(TICK),
                false => reports.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            hold = self.job.store.hold()?;
            match report {
                Ok(Report::Event { stage, event: Event::Stage(event) }) => self.progress.event(stage, &event),
                Ok(Report::Event { stage, event: Event::Process(event) }) => self.hear(stage, event),
                Ok(Report::Closed { stage }) => self.close(stage)?,
                Ok(Report::Signal) => self.end_stages(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("all reporters are gone"),
            }
            self.hold_to_limits();
        }
        for stage in 0..self.statuses.len() {
            if self.statuses[stage] == Status::Pending {
                self.set(stage, Status::Skipped { because: None });
            }
        }
        let any = |test: fn(&Status) -> bool| self.statuses.iter().any(test);
        self.record.state = match () {
            _ if self.stop != Stop::No && any(Status::is_lost) => RunState::Interrupted,
            _ if any(Status::is_lost) => RunState::Failed,
            _ => RunState::Ok,
        };
        self.record.finished_at = Some(jiff::Timestamp::now().to_string());
        self.record.seconds = Some(start.elapsed().as_secs_f64());
        self.record_is_stale = true;
        self.save_record()?;
        self.progress.finished(&self.record);
        Ok(self.record)
    }

    /// Says of stages that run because something happened to their result.
    fn tell_of_damage(&mut self) {
        for (stage, state) in self.states.iter().enumerate() {
            if let StageState::Ready { key, .. } = state
                && let Some(problem) = self.job.store.problem(key)
            {
                let text = format!("its result is damaged: {problem}; it runs again");
                self.progress.event(stage, &StageEvent::Message { text });
            }
        }
    }

    /// Marks pending stages that are known, and those that can never run.
    fn settle(&mut self) -> Result<()> {
        for stage in 0..self.states.len() {
            if self.statuses[stage] != Status::Pending {
                continue;
            }
            if self.forced.contains(&stage)
                && let StageState::Cached { key, .. } = &self.states[stage]
            {
                self.hidden.insert(key.clone());
                self.advance(stage);
            }
            match &self.states[stage] {
                StageState::Cached { action, .. } => {
                    self.job.run.link_stage(&self.job.plan.stages[stage].name, &action.outputs)?;
                    self.set(stage, Status::Cached);
                }
                StageState::Waiting { on } => {
                    let lost = on.iter().find(|&&dependency| self.statuses[dependency].is_lost());
                    if let Some(&lost) = lost {
                        let because = Some(self.job.plan.stages[lost].name.clone());
                        self.set(stage, Status::Skipped { because });
                    }
                }
                StageState::Ready { .. } => {}
            }
        }
        Ok(())
    }

    fn start_what_can(&mut self) -> Result<()> {
        if self.job.on_failure == OnFailure::StartNothing
            && self.statuses.iter().any(|status| matches!(status, Status::Failed(_)))
        {
            return Ok(());
        }
        let demand = |stage: usize| {
            let planned = &self.job.plan.stages[stage];
            Demand { network: planned.params.runs_network(), resources: planned.resources }
        };
        let ready = |stage: &usize| {
            self.statuses[*stage] == Status::Pending && matches!(self.states[*stage], StageState::Ready { .. })
        };
        let active = |stage: &usize| self.statuses[*stage].is_active();
        let stages = 0..self.states.len();
        let candidates: Vec<usize> = stages.clone().filter(ready).collect();
        let unsaid = stages.filter(|stage| active(stage) || ready(stage)).map(demand);
        let unsaid = unsaid.filter(|demand| demand.resources.cpus.is_none());
        let wanting = Load::count(unsaid.map(|demand| demand.network));
        let mut running: Vec<(Demand, Place)> =
            self.places.iter().map(|(&stage, place)| (demand(stage), place.clone())).collect();
        let mut keys: BTreeSet<Key> =
            (0..self.states.len()).filter(active).filter_map(|stage| self.key(stage)).cloned().collect();

        for stage in candidates {
            let StageState::Ready { key, preimage } = &self.states[stage] else { continue };
            let planned = &self.job.plan.stages[stage];
            let demand = Demand { network: planned.params.runs_network(), resources: planned.resources };
            // Two stages of one key: the second is cached when the first is done.
            if keys.contains(key) {
                continue;
            }
            let Some(place) = self.job.slots.place(demand, &running, wanting) else { continue };
            keys.insert(key.clone());
            let order = Order {
                key: key.clone(),
                preimage: preimage.clone(),
                params: planned.params.clone(),
                // Among those it sees, the first.
                cuda: self.job.cuda.map(|index| if place.gpus.is_empty() { index } else { 0 }),
                threads: place.threads,
                gpus: place.gpus.clone(),
                force: self.forced.contains(&stage),
                remote: self.job.remote.clone(),
                runs: self.job.store.runs_dir().to_path_buf(),
            };
            self.last_words[stage] = None;
            self.started[stage] = Instant::now();
            let log = self.job.store.work_dir(key).join(LOG_FILE);
            match self.executor.start(stage, &order, &log) {
                Ok(()) => {
                    self.places.insert(stage, place.clone());
                    running.push((demand, place));
                    self.set(stage, Status::Running);
                }
                Err(error) => self.fail(stage, Cause::Failed, format!("{error:#}")),
            }
        }
        // What failed to start may be what others wait for.
        self.settle()
    }

    /// A process says something about itself.
    fn hear(&mut self, stage: usize, event: ProcessEvent) {
        match &event {
            ProcessEvent::WaitingForLock => self.set(stage, Status::Blocked),
            ProcessEvent::Started => {
                self.started[stage] = Instant::now();
                if self.statuses[stage] == Status::Blocked {
                    self.set(stage, Status::Running);
                }
            }
            _ => {}
        }
        self.last_words[stage] = Some(event);
    }

    /// A process is gone.
    fn close(&mut self, stage: usize) -> Result<()> {
        let (cause, how) = self.executor.ended(stage);
        self.places.remove(&stage);
        let over = self.limits.ended(stage);
        match (self.last_words[stage].take(), over) {
            (Some(ProcessEvent::Done { adopted }), _) => self.conclude(stage, adopted)?,
            (_, Some(over)) if self.stop == Stop::No => self.end_badly(stage, over.cause, over.error),
            (Some(ProcessEvent::Failed { error, cause, damaged }), _) => match damaged {
                Some(digest) if self.heal(stage, &digest)? => {}
                _ => self.end_badly(stage, cause, error),
            },
            // It was killed, or did not save within its time.
            _ if self.stop != Stop::No => self.set(stage, Status::Interrupted),
            (Some(ProcessEvent::Interrupted), _) => {
                self.end_badly(stage, Cause::Lost, "the stage's process was asked from outside to stop".into());
            }
            _ => self.end_badly(stage, cause, how),
        }
        Ok(())
    }

    /// Tries a stage again, as far as its `retry` allows.
    fn end_badly(&mut self, stage: usize, cause: Cause, error: String) {
        let allowed = cause.retries(&self.job.plan.stages[stage].retry);
        let used = self.retries.entry((stage, cause)).or_default();
        if self.stop != Stop::No || *used >= allowed {
            return self.fail(stage, cause, error);
        }
        *used += 1;
        let text = format!("{error}; trying again ({used} of {allowed})");
        self.progress.event(stage, &StageEvent::Message { text });
        self.set(stage, Status::Pending);
    }

    fn has_limits(&self) -> bool {
        self.places.keys().any(|&stage| {
            let asked = &self.job.plan.stages[stage].resources;
            asked.time.is_some() || asked.memory.is_some()
        })
    }

    /// Ends stages that take more than they asked for.
    fn hold_to_limits(&mut self) {
        for &stage in self.places.keys() {
            // One that waits for another run takes nothing.
            if self.statuses[stage] != Status::Running {
                continue;
            }
            let asked = &self.job.plan.stages[stage].resources;
            let memory = asked.memory.map(|_| self.executor.memory(stage));
            match self.limits.check(stage, asked, self.started[stage].elapsed(), memory, Instant::now()) {
                Some(Over::Stop) => self.executor.stop(stage),
                Some(Over::Kill) => self.executor.kill(stage),
                None => {}
            }
        }
    }

    /// A process says that the stage's result is in the store.
    fn conclude(&mut self, stage: usize, adopted: bool) -> Result<()> {
        // Whatever has the same key is known now too.
        let key = self.key(stage).cloned();
        let same: Vec<usize> = (0..self.states.len()).filter(|&other| self.key(other) == key.as_ref()).collect();
        if let Some(key) = &key {
            self.hidden.remove(key);
        }
        for other in same {
            self.forced.remove(&other);
            self.advance(other);
        }
        let seconds = self.started[stage].elapsed().as_secs_f64();
        match &self.states[stage] {
            StageState::Cached { action, .. } => {
                self.job.run.link_stage(&self.job.plan.stages[stage].name, &action.outputs)?;
                self.set(stage, if adopted { Status::Cached } else { Status::Ran { seconds } });
            }
            // What it read is being made again; afterwards it is cached, if that comes out the same.
            StageState::Waiting { .. } => self.set(stage, Status::Pending),
            StageState::Ready { key, .. } => {
                let error = format!("the stage is done, but the store does not have its result (key {key})");
                self.fail(stage, Cause::Failed, error);
            }
        }
        Ok(())
    }

    /// Looks again at what is known of a stage and of all that depends on it.
    fn advance(&mut self, stage: usize) -> Vec<usize> {
        let Job { plan, sources, backend, store, .. } = &self.job;
        let known = Visible { store, hidden: &self.hidden };
        advance(plan, &mut self.states, stage, &known, sources, *backend)
    }

    /// `stage` met a damaged blob: forgets what claims to have made it, so that it is made again. False where that was
    /// tried before or nothing in this pipeline makes it.
    fn heal(&mut self, stage: usize, blob: &Digest) -> Result<bool> {
        let makes_it = |state: &StageState| match state {
            StageState::Cached { action, .. } => action.outputs.values().any(|output| output == blob),
            _ => false,
        };
        let makers: Vec<usize> = (0..self.states.len()).filter(|&maker| makes_it(&self.states[maker])).collect();
        if makers.is_empty() || self.stop != Stop::No || !self.healed.insert(blob.clone()) {
            return Ok(false);
        }
        for &maker in &makers {
            if let Some(key) = self.key(maker).cloned() {
                self.job.store.forget(&key)?;
            }
        }
        let names: Vec<&str> = makers.iter().map(|&maker| self.job.plan.stages[maker].name.as_str()).collect();
        let text = format!("an input is damaged (blob {blob}); running {} again", names.join(", "));
        self.progress.event(stage, &StageEvent::Message { text });
        self.set(stage, Status::Pending);
        for maker in makers {
            for seen in self.advance(maker) {
                let known = matches!(self.states[seen], StageState::Cached { .. });
                if !known && matches!(self.statuses[seen], Status::Cached | Status::Ran { .. }) {
                    self.set(seen, Status::Pending);
                }
            }
        }
        Ok(true)
    }

    fn end_stages(&mut self) {
        let active: Vec<usize> = (0..self.statuses.len()).filter(|&stage| self.statuses[stage].is_active()).collect();
        self.stop = match self.stop {
            Stop::No => {
                active.iter().for_each(|&stage| self.executor.stop(stage));
                self.progress.stopping();
                Stop::Asked
            }
            Stop::Asked | Stop::AtOnce => {
                active.iter().for_each(|&stage| self.executor.kill(stage));
                Stop::AtOnce
            }
        };
    }

    fn fail(&mut self, stage: usize, cause: Cause, error: String) {
        let log = self.key(stage).map(|key| self.job.store.log_path(key)).unwrap_or_default();
        let tail = std::fs::read(&log).map(|text| tail(&String::from_utf8_lossy(&text), &error)).unwrap_or_default();
        self.set(stage, Status::Failed(Failure { cause, error, log, tail }));
    }

    /// Every transition of a stage.
    fn set(&mut self, stage: usize, next: Status) {
        debug_assert!(self.statuses[stage].may_become(&next), "{:?} to {next:?}", self.statuses[stage]);
        let key = self.key(stage).cloned();
        let entry = &mut self.record.stages[stage];
        entry.state = next.recorded();
        entry.key = key;
        entry.error = match &next {
            Status::Failed(failure) => Some(failure.error.clone()),
            _ => None,
        };
        if let StageState::Cached { action, .. } = &self.states[stage] {
            entry.metrics = action.metrics.clone();
            entry.seconds = Some(action.cost.seconds);
        }
        if let Status::Ran { seconds } = next {
            entry.seconds = Some(seconds);
        }
        self.record_is_stale = true;
        self.progress.stage(stage, &next);
        self.statuses[stage] = next;
    }

    fn key(&self, stage: usize) -> Option<&Key> {
        match &self.states[stage] {
            StageState::Cached { key, .. } | StageState::Ready { key, .. } => Some(key),
            StageState::Waiting { .. } => None,
        }
    }

    fn save_record(&mut self) -> Result<()> {
        if std::mem::take(&mut self.record_is_stale) {
            self.job.run.update(&self.record)?;
        }
        Ok(())
    }
}

/// The last lines of a log that ends with the error, without it.
fn tail(log: &str, error: &str) -> Vec<String> {
    let log = log.trim_end();
    let log = log.strip_suffix(error.trim_end()).map_or(log, |rest| rest.strip_suffix("error: ").unwrap_or(rest));
    let lines: Vec<&str> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| line.to_string()).collect()
}
