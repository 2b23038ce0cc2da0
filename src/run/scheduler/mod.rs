//! Decides which stages start. The scheduler runs in one thread: executors run stages and report to it, and every
//! transition of a stage goes through [`Scheduler::set`].
//!
//! `start` starts stages; `failures` retries or fails them.

mod failures;
mod start;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cache_state::CacheState;
use super::executor::{Executor, Report};
use super::limits::{LimitAction, Limits};
use super::progress::{Progress, Stopping};
use super::protocol::{Event, ProcessEvent};
use super::resource_pool::{Allocation, ResourcePool};
use super::status::{Cause, Status};
use crate::plan::{Plan, StageState};
use crate::runs::{JobRecord, RunDir, RunRecord, RunState};
use crate::stages::StageEvent;
use crate::store::{GcGuard, Store};

/// The number of reports that are handled before new stages are started.
const MAX_REPORTS_PER_TICK: usize = 1000;
/// The interval at which limits are enforced.
const TICK: Duration = Duration::from_millis(200);

/// The fixed settings of a run. Only `remote` may change: it becomes None if the shared cache cannot be used.
pub(super) struct RunContext<'a> {
    pub(super) plan: &'a Plan,
    /// The CUDA device for stages that run a network; None for the CPU.
    pub(super) cuda: Option<usize>,
    pub(super) pool: ResourcePool,
    pub(super) on_failure: OnFailure,
    pub(super) remote: Option<String>,
    pub(super) store: &'a Store,
    pub(super) run: &'a RunDir,
}

/// What a failed stage means for stages that do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Running stages continue; no other stage starts.
    #[default]
    StartNothing,
    KeepGoing,
}

pub(super) struct Scheduler<'a> {
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
    /// The number by which each stage divides its batch size, after its GPU ran out of memory.
    batch_divisors: BTreeMap<usize, usize>,
    record: RunRecord,
    record_is_stale: bool,
    stop: Stop,
}

/// How urgently the run was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// Stages save their progress and end.
    Requested,
    /// At this time, jobs that can continue without the run are left running, unless a second request comes first.
    Leave(Instant),
    /// Stages are killed, and jobs are cancelled.
    AtOnce,
}

impl<'a> Scheduler<'a> {
    pub(super) fn new(
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
            batch_divisors: BTreeMap::new(),
            record,
            record_is_stale: true,
            stop: Stop::No,
        }
    }

    /// Runs every stage that can run, and returns the finished record. `guard` protects the results in the cache state.
    ///
    /// # Errors
    /// Fails on errors of the store or the machine, not on failed stages.
    pub(super) fn run(mut self, reports: &Receiver<Report>, mut guard: GcGuard) -> Result<RunRecord> {
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
            // Handle many reports before the record is written again.
            reports.try_iter().take(MAX_REPORTS_PER_TICK).try_for_each(|report| self.handle_report(report))?;
            self.enforce_limits();
            if matches!(self.stop, Stop::Leave(at) if Instant::now() >= at) {
                // A process that resumes the run reads from the record which stages continue.
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
                self.stop = Stop::Requested;
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

    /// Handles an event of a stage's process.
    fn handle_event(&mut self, stage: usize, event: ProcessEvent) {
        match &event {
            ProcessEvent::WaitingForLock { holder } => {
                let holder = holder.as_ref().map_or(String::new(), |holder| format!(" ({holder})"));
                self.block(stage, format!("another run computes the same key{holder}"));
            }
            ProcessEvent::Queued { job, reason } => {
                let job = self.record.stages[stage].job.insert(JobRecord::queued(job, reason));
                let why = job.to_string();
                self.block(stage, why);
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

    fn block(&mut self, stage: usize, why: String) {
        self.set(stage, Status::Blocked { why });
    }

    /// Handles the end of a stage's process.
    fn close(&mut self, stage: usize) -> Result<()> {
        let (cause, error) = self.executor.exit_cause(stage);
        self.allocations.remove(&stage);
        let excess = self.limits.ended(stage);
        match (self.last_events[stage].take(), excess) {
            (Some(ProcessEvent::Done { adopted }), _) => self.conclude(stage, adopted)?,
            (_, Some(excess)) if self.stop == Stop::No => self.retry_or_fail(stage, excess.cause, excess.error),
            (Some(ProcessEvent::Failed { error, cause, damaged }), _) => match damaged {
                Some(digest) if self.rerun_producers(stage, &digest)? => {}
                _ => self.retry_or_fail(stage, cause, error),
            },
            // The process was killed, or did not save in time.
            _ if self.stop != Stop::No => self.set(stage, Status::Interrupted),
            (Some(ProcessEvent::Interrupted), _) => {
                self.retry_or_fail(
                    stage,
                    Cause::Lost,
                    "the stage's process was stopped by a signal from outside srpipe".into(),
                );
            }
            _ => self.retry_or_fail(stage, cause, error),
        }
        Ok(())
    }

    fn has_limits(&self) -> bool {
        !self.context.pool.is_cluster()
            && self.allocations.keys().any(|&stage| {
                let requested = &self.context.plan.stages[stage].resources;
                requested.time.is_some() || requested.memory.is_some()
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
            let requested = &self.context.plan.stages[stage].resources;
            let memory = requested.memory.map(|_| self.executor.memory(stage));
            match self.limits.check(stage, requested, self.started[stage].elapsed(), memory, Instant::now()) {
                Some(LimitAction::Stop) => self.executor.stop(stage),
                Some(LimitAction::Kill) => self.executor.kill(stage),
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
                // Events of jobs arrive late, so the elapsed time would be wrong.
                let seconds = if self.context.pool.is_cluster() { action.cost.seconds } else { elapsed };
                self.set(stage, if adopted { Status::Cached } else { Status::Ran { seconds } });
            }
            // Its input is being recomputed. If the input does not change, the stage is then cached.
            StageState::Waiting { .. } => self.set(stage, Status::Pending),
            StageState::Ready { key, .. } => {
                let error = format!("the stage reported success, but its result is missing from the store (key {key})");
                self.fail(stage, Cause::Failed, error);
            }
        }
        Ok(())
    }

    /// Handles a request to stop; later requests are more urgent.
    fn stop_stages(&mut self) {
        let active: Vec<usize> = (0..self.statuses.len()).filter(|&stage| self.statuses[stage].is_active()).collect();
        self.stop = match (self.stop, self.executor.leave_delay()) {
            (Stop::No, None) => {
                active.iter().for_each(|&stage| self.executor.stop(stage));
                self.progress.stopping(Stopping::Saving);
                Stop::Requested
            }
            (Stop::No, Some(wait)) => {
                self.progress.stopping(Stopping::Leaving(wait));
                Stop::Leave(Instant::now() + wait)
            }
            // Cancelling needs an answer from the batch system, which may never come.
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
