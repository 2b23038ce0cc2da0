//! Decides which stages start. It runs in one thread: executors run stages and report to it, and every transition of a
//! stage goes through [`Scheduler::set`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cache_state::CacheState;
use super::executor::{Executor, Report};
use super::limits::{Limits, Over};
use super::progress::{Progress, Stopping};
use super::protocol::{Event, ProcessEvent, TaskSpec};
use super::resource_pool::{Allocation, Load, ResourcePool, ResourceRequest};
use super::status::{Cause, Failure, Status};
use super::worker::LOG_FILE;
use crate::config::redact;
use crate::plan::{Plan, StageState};
use crate::runs::{JobRecord, RunDir, RunRecord, RunState};
use crate::stages::StageEvent;
use crate::store::files::read_tail;
use crate::store::{Digest, GcGuard, Key, Store};

/// The number of lines at the end of a log that are shown with an error.
const TAIL_LINES: usize = 10;
/// The maximum number of bytes read from the end of a log.
const TAIL_BYTES: u64 = 64 << 10;
/// The number of reports that are handled before new stages are started.
const MAX_REPORTS_PER_TICK: usize = 1000;
/// The interval at which limits are enforced.
const TICK: Duration = Duration::from_millis(200);

/// What does not change during a run, except that `remote` is dropped if it cannot be used.
pub struct RunContext<'a> {
    pub plan: &'a Plan,
    /// The CUDA device for stages that run a network; None for the CPU.
    pub cuda: Option<usize>,
    pub pool: ResourcePool,
    pub on_failure: OnFailure,
    pub remote: Option<String>,
    pub store: &'a Store,
    pub run: &'a RunDir,
}

/// What a failed stage means for stages that do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Running stages continue; no other stage starts.
    #[default]
    StartNothing,
    KeepGoing,
}

pub struct Scheduler<'a> {
    context: RunContext<'a>,
    executor: &'a mut dyn Executor,
    progress: &'a mut dyn Progress,
    cache: CacheState<'a>,
    /// By stage.
    statuses: Vec<Status>,
    /// The last event of each stage's process.
    last_events: Vec<Option<ProcessEvent>>,
    started: Vec<Instant>,
    /// The resources of each active stage.
    allocations: BTreeMap<usize, Allocation>,
    limits: Limits,
    /// How often each stage was retried, by cause.
    retries: BTreeMap<(usize, Cause), usize>,
    /// The number of parts into which each stage splits its batches of images, after its GPU ran out of memory.
    splits: BTreeMap<usize, usize>,
    record: RunRecord,
    record_is_stale: bool,
    stop: Stop,
}

/// How urgently the run was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Asked,
    /// Jobs that can continue without the run are left running at this time, unless a second request comes first.
    Leave(Instant),
    AtOnce,
}

impl<'a> Scheduler<'a> {
    pub fn new(
        context: RunContext<'a>,
        cache: CacheState<'a>,
        record: RunRecord,
        executor: &'a mut dyn Executor,
        progress: &'a mut dyn Progress,
    ) -> Self {
        let n = cache.states().len();
        Self {
            context,
            executor,
            progress,
            cache,
            statuses: vec![Status::Pending; n],
            last_events: vec![None; n],
            started: vec![Instant::now(); n],
            allocations: BTreeMap::new(),
            limits: Limits::default(),
            retries: BTreeMap::new(),
            splits: BTreeMap::new(),
            record,
            record_is_stale: true,
            stop: Stop::No,
        }
    }

    /// Runs every stage that can run, and returns the finished record. `guard` protects the results in the cache state.
    ///
    /// # Errors
    /// Fails on errors of the store or the machine, not on failed stages.
    pub fn run(mut self, reports: &Receiver<Report>, mut guard: GcGuard) -> Result<RunRecord> {
        let start = Instant::now();
        self.progress.started(&self.record);
        self.report_damaged_results();
        loop {
            self.update_pending()?;
            if self.stop == Stop::No {
                self.start_ready_stages()?;
            }
            if !self.statuses.iter().any(Status::is_active) {
                break;
            }
            // From here on, the record protects the results that this run uses.
            self.save_record()?;
            drop(guard);
            let report = match self.has_limits() || matches!(self.stop, Stop::Leave(_)) {
                true => reports.recv_timeout(TICK),
                false => reports.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            guard = self.context.store.guard()?;
            match report {
                Ok(report) => self.handle_report(report)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the threads that report to the scheduler have ended"),
            }
            // The record is written once for many reports.
            reports.try_iter().take(MAX_REPORTS_PER_TICK).try_for_each(|report| self.handle_report(report))?;
            self.enforce_limits();
            if matches!(self.stop, Stop::Leave(at) if Instant::now() >= at) {
                // A process that resumes the run reads from the record what continues.
                self.save_record()?;
                self.progress.finished(&self.record);
                return Ok(self.record);
            }
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

    fn handle_report(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Event { stage, event: Event::Stage(event) } => self.progress.event(stage, &event),
            Report::Event { stage, event: Event::Process(event) } => self.handle_event(stage, event),
            Report::Closed { stage } => self.close(stage)?,
            Report::Many(reports) => reports.into_iter().try_for_each(|report| self.handle_report(report))?,
            Report::Signal => self.stop_stages(),
            Report::Cancel if self.stop == Stop::AtOnce => {}
            Report::Cancel => {
                self.stop = Stop::Asked;
                self.stop_stages();
            }
        }
        Ok(())
    }

    /// Reports which stages run again because their result is damaged.
    fn report_damaged_results(&mut self) {
        for (stage, state) in self.cache.states().iter().enumerate() {
            if let StageState::Ready { key, .. } = state
                && let Some(problem) = self.context.store.problem(key)
            {
                let text = format!("its result is damaged: {problem}; it runs again");
                self.progress.event(stage, &StageEvent::Message { text });
            }
        }
    }

    /// Marks pending stages that are cached or can never run.
    fn update_pending(&mut self) -> Result<()> {
        self.cache.hide();
        for stage in 0..self.statuses.len() {
            if self.statuses[stage] != Status::Pending {
                continue;
            }
            match &self.cache.states()[stage] {
                StageState::Cached { action, .. } => {
                    self.context.run.link_stage(&self.context.plan.stages[stage].name, &action.outputs)?;
                    self.set(stage, Status::Cached);
                }
                StageState::Waiting { on } => {
                    let lost = on.iter().find(|&&dependency| self.statuses[dependency].is_lost());
                    if let Some(&lost) = lost {
                        let because = Some(self.context.plan.stages[lost].name.clone());
                        self.set(stage, Status::Skipped { because });
                    }
                }
                StageState::Ready { .. } => {}
            }
        }
        Ok(())
    }

    fn start_ready_stages(&mut self) -> Result<()> {
        if self.context.on_failure == OnFailure::StartNothing
            && self.statuses.iter().any(|status| matches!(status, Status::Failed(_)))
        {
            return Ok(());
        }
        let request = |stage: usize| {
            let planned = &self.context.plan.stages[stage];
            ResourceRequest { network: planned.params.runs_network(), resources: planned.resources }
        };
        let ready = |stage: &usize| {
            self.statuses[*stage] == Status::Pending && matches!(self.cache.states()[*stage], StageState::Ready { .. })
        };
        let active = |stage: &usize| self.statuses[*stage].is_active();
        let stages = 0..self.statuses.len();
        let candidates: Vec<usize> = stages.clone().filter(ready).collect();
        let unspecified = stages.filter(|stage| active(stage) || ready(stage)).map(request);
        let unspecified = unspecified.filter(|request| request.resources.cpus.is_none());
        let wanting = Load::count(unspecified.map(|request| request.network));
        let mut running: Vec<(ResourceRequest, Allocation)> =
            self.allocations.iter().map(|(&stage, allocation)| (request(stage), allocation.clone())).collect();
        let mut keys: BTreeSet<Key> =
            (0..self.statuses.len()).filter(active).filter_map(|stage| self.cache.key(stage)).cloned().collect();

        for stage in candidates {
            let StageState::Ready { key, preimage } = &self.cache.states()[stage] else { continue };
            let planned = &self.context.plan.stages[stage];
            let request = ResourceRequest { network: planned.params.runs_network(), resources: planned.resources };
            // If two stages have the same key, the second is cached once the first is done.
            if keys.contains(key) {
                continue;
            }
            let Some(allocation) = self.context.pool.allocate(request, &running, wanting) else { continue };
            keys.insert(key.clone());
            let spec = TaskSpec {
                key: key.clone(),
                preimage: preimage.clone(),
                params: planned.params.clone(),
                // The first of the visible devices.
                cuda: self.context.cuda.map(|index| if allocation.gpus.is_empty() { index } else { 0 }),
                threads: allocation.threads,
                split: self.splits.get(&stage).copied().unwrap_or(1),
                gpus: allocation.gpus.clone(),
                force: self.cache.is_forced(stage),
                remote: self.context.remote.clone(),
                runs: self.context.store.runs_dir().to_path_buf(),
            };
            self.last_events[stage] = None;
            self.record.stages[stage].job = None;
            self.started[stage] = Instant::now();
            let log = self.context.store.work_dir(key).join(LOG_FILE);
            match self.executor.start(stage, &spec, &log) {
                Ok(()) => {
                    self.allocations.insert(stage, allocation.clone());
                    running.push((request, allocation));
                    self.set(
                        stage,
                        match self.context.pool.is_cluster() {
                            true => Status::Blocked { why: "its job is being submitted".into() },
                            false => Status::Running,
                        },
                    );
                }
                Err(error) => self.fail(stage, Cause::Failed, format!("{error:#}")),
            }
        }
        self.executor.flush();
        // Other stages may depend on one that failed to start.
        self.update_pending()
    }

    /// Handles an event of a stage's process.
    fn handle_event(&mut self, stage: usize, event: ProcessEvent) {
        match &event {
            ProcessEvent::WaitingForLock { holder } => {
                let holder = holder.as_ref().map_or(String::new(), |holder| format!(" ({holder})"));
                self.wait(stage, format!("another run computes the same key{holder}"));
            }
            ProcessEvent::Queued { job, reason } => {
                let job = self.record.stages[stage].job.insert(JobRecord::queued(job, reason));
                let why = job.to_string();
                self.wait(stage, why);
            }
            ProcessEvent::Placed { job, node } => {
                let job = self.record.stages[stage].job.insert(JobRecord::running(job, node));
                let text = job.to_string();
                self.record_is_stale = true;
                self.progress.event(stage, &StageEvent::Message { text });
            }
            // Disable the cache after the first failure, or each stage would wait for the same timeouts.
            ProcessEvent::CacheUnavailable => return self.context.remote = None,
            ProcessEvent::Requeued { cause } => *self.retries.entry((stage, *cause)).or_default() += 1,
            ProcessEvent::Started => {
                self.started[stage] = Instant::now();
                if matches!(self.statuses[stage], Status::Blocked { .. }) {
                    self.set(stage, Status::Running);
                }
            }
            _ => {}
        }
        self.last_events[stage] = Some(event);
    }

    fn wait(&mut self, stage: usize, why: String) {
        self.set(stage, Status::Blocked { why });
    }

    /// Handles the end of a stage's process.
    fn close(&mut self, stage: usize) -> Result<()> {
        let (cause, how) = self.executor.exit_cause(stage);
        self.allocations.remove(&stage);
        let over = self.limits.ended(stage);
        match (self.last_events[stage].take(), over) {
            (Some(ProcessEvent::Done { adopted }), _) => self.conclude(stage, adopted)?,
            (_, Some(over)) if self.stop == Stop::No => self.retry_or_fail(stage, over.cause, over.error),
            (Some(ProcessEvent::Failed { error, cause, damaged }), _) => match damaged {
                Some(digest) if self.heal(stage, &digest)? => {}
                _ => self.retry_or_fail(stage, cause, error),
            },
            // It was killed, or did not save in time.
            _ if self.stop != Stop::No => self.set(stage, Status::Interrupted),
            (Some(ProcessEvent::Interrupted), _) => {
                self.retry_or_fail(
                    stage,
                    Cause::Lost,
                    "the stage's process was stopped by a signal from outside srpipe".into(),
                );
            }
            _ => self.retry_or_fail(stage, cause, how),
        }
        Ok(())
    }

    /// Retries a stage as far as its `retry` allows; otherwise fails it.
    fn retry_or_fail(&mut self, stage: usize, cause: Cause, error: String) {
        let allowed = cause.retries(&self.context.plan.stages[stage].retry);
        let used = self.retries.entry((stage, cause)).or_default();
        if self.stop != Stop::No || *used >= allowed {
            return self.fail(stage, cause, error);
        }
        *used += 1;
        let mut text = format!("{error}; retrying ({used} of {allowed})");
        // On the CPU, a different split would change the order of sums and so the bytes of the result.
        let on_gpu = self.context.cuda.is_some() && self.context.plan.stages[stage].params.runs_network();
        if cause == Cause::OutOfMemory && on_gpu {
            *self.splits.entry(stage).or_insert(1) *= 2;
            text += ", with half as many images at a time";
        }
        self.progress.event(stage, &StageEvent::Message { text });
        self.set(stage, Status::Pending);
    }

    fn has_limits(&self) -> bool {
        !self.context.pool.is_cluster()
            && self.allocations.keys().any(|&stage| {
                let asked = &self.context.plan.stages[stage].resources;
                asked.time.is_some() || asked.memory.is_some()
            })
    }

    /// Stops stages that exceed the resources that they requested.
    fn enforce_limits(&mut self) {
        if !self.has_limits() {
            return;
        }
        for &stage in self.allocations.keys() {
            // A stage that waits for another run uses no resources.
            if self.statuses[stage] != Status::Running {
                continue;
            }
            let asked = &self.context.plan.stages[stage].resources;
            let memory = asked.memory.map(|_| self.executor.memory(stage));
            match self.limits.check(stage, asked, self.started[stage].elapsed(), memory, Instant::now()) {
                Some(Over::Stop) => self.executor.stop(stage),
                Some(Over::Kill) => self.executor.kill(stage),
                None => {}
            }
        }
    }

    /// Handles a stage whose process reported that its result is in the store.
    fn conclude(&mut self, stage: usize, adopted: bool) -> Result<()> {
        self.cache.computed(stage);
        let elapsed = self.started[stage].elapsed().as_secs_f64();
        match &self.cache.states()[stage] {
            StageState::Cached { action, .. } => {
                self.context.run.link_stage(&self.context.plan.stages[stage].name, &action.outputs)?;
                // Events of jobs arrive late.
                let seconds = if self.context.pool.is_cluster() { action.cost.seconds } else { elapsed };
                self.set(stage, if adopted { Status::Cached } else { Status::Ran { seconds } });
            }
            // Its input is being recomputed; afterwards the stage is cached if the input is the same.
            StageState::Waiting { .. } => self.set(stage, Status::Pending),
            StageState::Ready { key, .. } => {
                let error = format!("the stage reported success, but its result is missing in the store (key {key})");
                self.fail(stage, Cause::Failed, error);
            }
        }
        Ok(())
    }

    /// Reruns the stages that produced a damaged blob, which `stage` found. Returns false if they were rerun before or
    /// no stage of this pipeline produces it.
    fn heal(&mut self, stage: usize, blob: &Digest) -> Result<bool> {
        if self.stop != Stop::No {
            return Ok(false);
        }
        let producers = self.cache.producers(blob);
        if producers.is_empty() {
            return Ok(false);
        }
        let names: Vec<&str> =
            producers.iter().map(|&producer| self.context.plan.stages[producer].name.as_str()).collect();
        let text = format!("an input is damaged (blob {blob}); rerunning {}", names.join(", "));
        let unknown = self.cache.forget(&producers)?;
        self.progress.event(stage, &StageEvent::Message { text });
        self.set(stage, Status::Pending);
        for seen in unknown {
            if matches!(self.statuses[seen], Status::Cached | Status::Ran { .. }) {
                self.set(seen, Status::Pending);
            }
        }
        Ok(true)
    }

    fn stop_stages(&mut self) {
        let active: Vec<usize> = (0..self.statuses.len()).filter(|&stage| self.statuses[stage].is_active()).collect();
        self.stop = match (self.stop, self.executor.leave_delay()) {
            (Stop::No, None) => {
                active.iter().for_each(|&stage| self.executor.stop(stage));
                self.progress.stopping(Stopping::Saving);
                Stop::Asked
            }
            (Stop::No, Some(wait)) => {
                self.progress.stopping(Stopping::Leaving(wait));
                Stop::Leave(Instant::now() + wait)
            }
            // Cancelling needs an answer of the batch system, which may not come.
            (Stop::AtOnce, Some(_)) => Stop::Leave(Instant::now()),
            (_, leave_delay) => {
                if leave_delay.is_some() {
                    self.progress.stopping(Stopping::Cancelling);
                }
                active.iter().for_each(|&stage| self.executor.kill(stage));
                Stop::AtOnce
            }
        };
    }

    fn fail(&mut self, stage: usize, cause: Cause, error: String) {
        let log = self.cache.key(stage).map(|key| self.context.store.log_path(key)).unwrap_or_default();
        let error = redact(&error).into_owned();
        let tail = read_tail(&log, TAIL_BYTES).map(|text| tail(&text, &error)).unwrap_or_default();
        self.set(stage, Status::Failed(Failure { cause, error, log, tail }));
    }

    /// Performs a transition of a stage.
    fn set(&mut self, stage: usize, next: Status) {
        debug_assert!(self.statuses[stage].may_become(&next), "{:?} to {next:?}", self.statuses[stage]);
        let key = self.cache.key(stage).cloned();
        let entry = &mut self.record.stages[stage];
        entry.state = next.recorded();
        entry.key = key;
        entry.error = match &next {
            Status::Failed(failure) => Some(failure.error.clone()),
            _ => None,
        };
        if let StageState::Cached { action, .. } = &self.cache.states()[stage] {
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

    fn save_record(&mut self) -> Result<()> {
        if std::mem::take(&mut self.record_is_stale) {
            self.context.run.update(&self.record)?;
        }
        Ok(())
    }
}

/// Returns the last lines of a log, without the error at its end.
fn tail(log: &str, error: &str) -> Vec<String> {
    let log = log.trim_end();
    let log = log.strip_suffix(error.trim_end()).map_or(log, |rest| rest.strip_suffix("error: ").unwrap_or(rest));
    let lines: Vec<&str> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| line.to_string()).collect()
}
