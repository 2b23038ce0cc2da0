//! Updates the record of a run whose jobs no process watches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;

use super::job_outcome::{Answer, JobOutcome, Loss, outcome};
use super::job_store::{Batch, JobStore};
use super::system::{BatchSystem, End, JobState, Jobs, tag};
use super::tracked_job::TrackedJob;
use crate::plan::StageState;
use crate::run::cache_state::CacheState;
use crate::run::protocol::ProcessEvent;
use crate::runs::{Gone, JobRecord, RunDir, RunRecord, RunState, StageRecord, StageRunState};
use crate::store::Store;

/// Updates the record of a run from its jobs, unless a process watches the run or the run has ended. States that the
/// batch system does not reveal remain unchanged. Returns warnings about damaged output of jobs.
///
/// # Errors
/// Fails if the records of the run or of its jobs are damaged. A batch system that does not answer is not an error.
pub fn reconcile(run: &RunDir, store: &Store, system: &dyn BatchSystem) -> Result<Vec<String>> {
    let mut record = run.record()?;
    if !record.may_have_unwatched_jobs() || run.is_live() {
        return Ok(vec![]);
    }
    let jobs = system.queue(run.id()).ok();
    let batches = JobStore::of(run).batches()?;
    if let Some(jobs) = &jobs {
        JobStore::of(run).check_queue(&batches, jobs)?;
    }
    // The process of the run was killed before it submitted a job. There may be no spec either: older versions wrote it
    // later.
    let never_began = batches.is_empty() && jobs.as_ref().is_some_and(Jobs::is_empty);
    let tasks = tasks(batches);
    let is_missing =
        |(batch, task): &(Batch, usize)| jobs.as_ref().is_some_and(|jobs| !jobs.contains_key(&(batch.number, *task)));
    let accounts = match tasks.values().any(is_missing) {
        true => system.accounting(run.id(), &record.started_at).ok().flatten().unwrap_or_default(),
        false => BTreeMap::new(),
    };
    let answers = Answers { jobs, accounts };
    // Take over the run as late as possible, so that a process that wants to watch it does not have to wait.
    let Some(run) = run.take_over()? else { return Ok(vec![]) };
    // Another process may have updated the record in the meantime.
    if run.record()? != record {
        return Ok(vec![]);
    }
    if never_began {
        interrupt(&mut record);
        run.update(&record)?;
        return Ok(vec![]);
    }
    let _guard = store.guard()?;
    let before = record.clone();
    let job_store = JobStore::of(&run);
    let spec = job_store.spec()?;
    let prepared = spec.clone().prepared(store);
    let mut cache = CacheState::new(&prepared, store);
    let mut last: Option<Timestamp> = None;
    let mut warnings = vec![];
    let run_start = record.started_at.parse().ok();
    for (stage, planned) in prepared.plan.stages.iter().enumerate() {
        let task = tasks.get(&stage);
        let job = task.zip(cache.key(stage).cloned()).map(|(task, key)| {
            let task_id = (task.0.number, task.1);
            let seal = spec.event_seal(job_store.run_id(), task_id);
            let tracked = TrackedJob::new(&job_store, seal, task_id, key, cache.is_forced(stage), run_start);
            let mut job = ObservedJob::new(tracked, task, &answers);
            warnings.extend(job.tracked.damage.take());
            if cache.is_forced(stage) && job.has_result(store, system) {
                cache.computed(stage);
            }
            job
        });
        cache.hide();
        let has_failed = |&on: &usize| {
            matches!(
                record.stages[on].state,
                StageRunState::Failed | StageRunState::Skipped | StageRunState::Interrupted
            )
        };
        let cannot_run = planned.dependencies.iter().any(has_failed);
        let entry = &mut record.stages[stage];
        entry.key = cache.key(stage).cloned();
        match (&cache.states()[stage], job) {
            (StageState::Cached { action, .. }, job) => {
                run.link_stage(&planned.name, &action.outputs)?;
                last = last.max(action.cost.finished_at.parse().ok());
                entry.metrics = action.metrics.clone();
                entry.seconds = Some(action.cost.seconds);
                let adopted =
                    job.is_none_or(|job| job.tracked.last_event == Some(ProcessEvent::Done { adopted: true }));
                entry.state = if adopted { StageRunState::Cached } else { StageRunState::Ran };
            }
            (_, Some(job)) => job.update(store, system, entry),
            (_, None) if cannot_run => entry.state = StageRunState::Skipped,
            (_, None) => {
                entry.state = StageRunState::Pending;
                entry.job = task.and_then(|(batch, task)| {
                    let job = answers.jobs.as_ref()?.get(&(batch.number, *task))?;
                    job_record(&job.id, &job.state)
                });
            }
        }
    }
    finish(&mut record, last.unwrap_or_else(Timestamp::now));
    if record != before {
        run.update(&record)?;
    }
    Ok(warnings)
}

/// Returns each stage's batch and index in that batch. The last batch that contains a stage counts.
fn tasks(batches: Vec<Batch>) -> BTreeMap<usize, (Batch, usize)> {
    let mut tasks = BTreeMap::new();
    for batch in batches {
        tasks.extend(batch.stages.iter().enumerate().map(|(task, &stage)| (stage, (batch.clone(), task))));
    }
    tasks
}

/// Returns a job for the record of a run; None if it has ended or its state is unknown.
fn job_record(id: &str, state: &JobState) -> Option<JobRecord> {
    match state {
        JobState::Queued { reason, .. } => Some(JobRecord::queued(id, reason)),
        JobState::Running { node } => Some(JobRecord::running(id, node)),
        JobState::Ended(_) | JobState::Unknown => None,
    }
}

/// The answers of the batch system: the queue, if it answered, and the accounting of jobs that are missing from the
/// queue.
struct Answers {
    jobs: Option<Jobs>,
    accounts: BTreeMap<String, JobState>,
}

/// A job at one point in time.
struct ObservedJob {
    tracked: TrackedJob,
    /// None if nothing shows that the batch was submitted.
    id: Option<String>,
    /// The tag of its batch.
    tag: String,
    answer: Answer,
}

impl ObservedJob {
    fn new(mut tracked: TrackedJob, (batch, task): &(Batch, usize), answers: &Answers) -> Self {
        let task_id = (batch.number, *task);
        tracked.read_events(Instant::now());
        let job = answers.jobs.as_ref().and_then(|jobs| jobs.get(&task_id));
        let id = job.map(|job| job.id.clone()).or_else(|| batch.job_id(*task));
        let ended = |job: &&JobState| matches!(job, JobState::Ended(_));
        let ended = id.as_ref().and_then(|id| answers.accounts.get(id)).filter(ended);
        let answer = match (job, &answers.jobs, ended) {
            (Some(job), ..) => Answer::Is(job.state.clone()),
            (None, Some(_), Some(job)) => Answer::Is(job.clone()),
            (None, Some(_), None) => Answer::Absent,
            (None, None, _) => Answer::None,
        };
        Self { tracked, id, tag: tag(batch.number), answer }
    }

    fn has_result(&mut self, store: &Store, system: &dyn BatchSystem) -> bool {
        self.tracked.observe(store, system, self.answer.clone(), Instant::now()).has_result
    }

    /// Updates the record of a stage without a result.
    fn update(mut self, store: &Store, system: &dyn BatchSystem, entry: &mut StageRecord) {
        let mut observed = self.tracked.observe(store, system, self.answer.clone(), Instant::now());
        // If an earlier call found that the job is gone, it recorded the time.
        let beat = store.last_beat(&self.tracked.key);
        let before = entry.job.as_ref().and_then(|job| job.gone.clone()).filter(|gone| gone.beat == beat);
        let now = Timestamp::now();
        let gone = before.unwrap_or_else(|| Gone { since: now.to_string(), beat });
        let is_gone = observed.answer.is_gone();
        if is_gone {
            let since = gone.since.parse().unwrap_or(now);
            observed.gone_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            observed.silent_for = gone.beat.as_ref().map(|_| observed.gone_for);
        }
        let outcome = outcome(&observed, system.grace());
        let name = self.id.as_ref().unwrap_or(&self.tag);
        entry.job = match &self.answer {
            _ if is_gone => self.id.as_ref().map(|id| JobRecord { gone: Some(gone), ..JobRecord::absent(id) }),
            Answer::Is(state) => job_record(name, state),
            Answer::Absent | Answer::None => entry.job.take(),
        };
        (entry.state, entry.error) = match outcome {
            JobOutcome::Lost(Loss::Ended(End::NeverStarted)) => (StageRunState::Skipped, None),
            JobOutcome::Lost(loss) => (StageRunState::Failed, Some(self.tracked.describe_loss(loss, name).1)),
            JobOutcome::Failed => match self.tracked.last_event {
                Some(ProcessEvent::Failed { error, .. }) => (StageRunState::Failed, Some(error)),
                _ => (StageRunState::Failed, None),
            },
            JobOutcome::Done | JobOutcome::Wait => match &self.answer {
                Answer::Is(JobState::Queued { .. }) => (StageRunState::Pending, None),
                // Nothing shows that it was submitted.
                Answer::Absent if self.id.is_none() => (StageRunState::Pending, None),
                _ => (StageRunState::Running, None),
            },
        };
    }
}

/// Marks a run without jobs as interrupted.
fn interrupt(record: &mut RunRecord) {
    let pending = record.stages.iter_mut().filter(|stage| stage.state == StageRunState::Pending);
    pending.for_each(|stage| stage.state = StageRunState::Skipped);
    record.state = RunState::Interrupted;
    record.finished_at = Some(Timestamp::now().to_string());
}

/// Marks the run as finished if none of its stages is pending or running. `last` is when its last result was committed.
fn finish(record: &mut RunRecord, last: Timestamp) {
    let any = |states: &[StageRunState]| record.stages.iter().any(|stage| states.contains(&stage.state));
    if any(&[StageRunState::Pending, StageRunState::Running]) {
        return;
    }
    let bad = any(&[StageRunState::Failed, StageRunState::Skipped, StageRunState::Interrupted]);
    record.state = if bad { RunState::Failed } else { RunState::Ok };
    record.seconds = record.started_at.parse().ok().map(|then: Timestamp| last.duration_since(then).as_secs_f64());
    record.finished_at = Some(last.to_string());
}
