//! What became of a run's jobs that nobody tracked: brings its record up to date, once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;

use super::job_outcome::{Answer, End, JobOutcome, JobState, Loss, outcome};
use super::job_store::{Batch, JobStore};
use super::queue::{self, Jobs};
use super::tracked_job::TrackedJob;
use super::{Settings, recorded};
use crate::config::ExecutorKind;
use crate::plan::StageState;
use crate::run::cache_state::CacheState;
use crate::run::protocol::ProcessEvent;
use crate::runs::{Gone, JobRecord, RunDir, RunRecord, RunState, StageRecord, StageRunState};
use crate::store::Store;

/// Returns warnings about damaged output of jobs. Nothing where somebody watches the run, or it has ended. What Slurm does not tell stays as it was.
pub fn reconcile(run: &RunDir, store: &Store, settings: &Settings) -> Result<Vec<String>> {
    let mut record = run.record()?;
    if record.executor != ExecutorKind::Slurm || record.state != RunState::Running {
        return Ok(vec![]);
    }
    if run.is_live() {
        return Ok(vec![]);
    }
    let jobs = queue::squeue(run.id(), settings.timeout).ok();
    let job_store = JobStore::of(run);
    let batches = job_store.batches()?;
    if let Some(jobs) = &jobs {
        job_store.check_queue(&batches, jobs)?;
    }
    let tasks = tasks(batches);
    let is_missing =
        |(batch, task): &&(Batch, usize)| jobs.as_ref().is_some_and(|jobs| !jobs.contains_key(&(batch.number, *task)));
    let accounts = match tasks.values().any(|task| is_missing(&task)) {
        true => queue::sacct(run.id(), &record.started_at, settings.timeout).unwrap_or_default(),
        false => BTreeMap::new(),
    };
    let told = Answers { jobs, accounts };
    // Whoever wants to watch the run finds it taken for no longer than needed.
    let Some(run) = run.take_over()? else { return Ok(vec![]) };
    // While Slurm was asked, somebody else may have been here.
    if run.record()? != record {
        return Ok(vec![]);
    }
    let _guard = store.guard()?;
    let before = record.clone();
    let job_store = JobStore::of(&run);
    let prepared = job_store.spec()?.prepared(store);
    let mut known = CacheState::new(&prepared, store);
    let mut last: Option<Timestamp> = None;
    let mut warnings = vec![];
    let run_start = record.started_at.parse().ok();
    for (stage, planned) in prepared.plan.stages.iter().enumerate() {
        let task = tasks.get(&stage);
        let seen = task.zip(known.key(stage).cloned()).map(|(task, key)| {
            let (batch, index) = task;
            let tracked = TrackedJob::new(&job_store, (batch.number, *index), key, known.is_forced(stage), run_start);
            let mut job = Job::new(tracked, task, &told);
            warnings.extend(job.tracked.damage.take());
            if known.is_forced(stage) && job.has_result(store) {
                known.computed(stage);
            }
            job
        });
        known.hide();
        let is_lost = |&on: &usize| {
            matches!(
                record.stages[on].state,
                StageRunState::Failed | StageRunState::Skipped | StageRunState::Interrupted
            )
        };
        let lost = planned.dependencies.iter().any(is_lost);
        let entry = &mut record.stages[stage];
        entry.key = known.key(stage).cloned();
        match (&known.states()[stage], seen) {
            (StageState::Cached { action, .. }, job) => {
                run.link_stage(&planned.name, &action.outputs)?;
                last = last.max(action.cost.finished_at.parse().ok());
                entry.metrics = action.metrics.clone();
                entry.seconds = Some(action.cost.seconds);
                let adopted = job.is_none_or(|job| job.tracked.word == Some(ProcessEvent::Done { adopted: true }));
                entry.state = if adopted { StageRunState::Cached } else { StageRunState::Ran };
            }
            (_, Some(job)) => job.judge(store, settings, entry),
            (_, None) if lost => entry.state = StageRunState::Skipped,
            (_, None) => {
                entry.state = StageRunState::Pending;
                entry.job = task.and_then(|(batch, task)| {
                    let row = told.jobs.as_ref()?.get(&(batch.number, *task))?;
                    recorded(&row.id, &row.state)
                });
            }
        }
    }
    conclude(&mut record, last.unwrap_or_else(Timestamp::now));
    if record != before {
        run.update(&record)?;
    }
    Ok(warnings)
}

/// The task of a batch that counts for each stage: of the last that has it.
fn tasks(batches: Vec<Batch>) -> BTreeMap<usize, (Batch, usize)> {
    let mut tasks = BTreeMap::new();
    for batch in batches {
        tasks.extend(batch.stages.iter().enumerate().map(|(task, &stage)| (stage, (batch.clone(), task))));
    }
    tasks
}

/// What Slurm says: the queue, if it answers, and the accounting of what is not there.
struct Answers {
    jobs: Option<Jobs>,
    accounts: BTreeMap<String, JobState>,
}

/// A job as it is seen at one moment.
struct Job {
    tracked: TrackedJob,
    /// As Slurm's commands take it; None where nobody knows that there is one.
    id: Option<String>,
    /// By which it is found in the job_store.
    tag: String,
    answer: Answer,
}

impl Job {
    fn new(mut tracked: TrackedJob, (batch, task): &(Batch, usize), told: &Answers) -> Self {
        let at = (batch.number, *task);
        tracked.read_events(Instant::now());
        let row = told.jobs.as_ref().and_then(|jobs| jobs.get(&at));
        let id = row.map(|row| row.id.clone()).or_else(|| batch.task_id(*task));
        let ended = id.as_ref().and_then(|id| told.accounts.get(id)).filter(|job| matches!(job, JobState::Ended(_)));
        let answer = match (row, &told.jobs, ended) {
            (Some(row), ..) => Answer::Is(row.state.clone()),
            (None, Some(_), Some(job)) => Answer::Is(job.clone()),
            (None, Some(_), None) => Answer::Absent,
            (None, None, _) => Answer::None,
        };
        Self { tracked, id, tag: queue::tag(batch.number), answer }
    }

    fn has_result(&mut self, store: &Store) -> bool {
        self.tracked.observe(store, self.answer.clone(), Instant::now()).has_result
    }

    /// What it has not come to a result by.
    fn judge(mut self, store: &Store, settings: &Settings, entry: &mut StageRecord) {
        let mut seen = self.tracked.observe(store, self.answer.clone(), Instant::now());
        // Nobody was there to observe since when: the looks before this one noted it.
        let beat = store.last_beat(&self.tracked.key);
        let before = entry.job.as_ref().and_then(|job| job.gone.clone()).filter(|gone| gone.beat == beat);
        let now = Timestamp::now();
        let gone = before.unwrap_or_else(|| Gone { since: now.to_string(), beat });
        let is_gone = matches!(seen.answer, Answer::Absent | Answer::Is(JobState::Ended(_)));
        if is_gone {
            let since = gone.since.parse().unwrap_or(now);
            seen.gone_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            seen.silent_for = gone.beat.as_ref().map(|_| seen.gone_for);
        }
        let judged = outcome(&seen, settings.grace);
        let name = self.id.as_ref().unwrap_or(&self.tag);
        entry.job = match &self.answer {
            _ if is_gone => self.id.as_ref().map(|id| JobRecord { gone: Some(gone), ..JobRecord::absent(id) }),
            Answer::Is(state) => recorded(name, state),
            Answer::Absent | Answer::None => entry.job.take(),
        };
        (entry.state, entry.error) = match judged {
            JobOutcome::Lost(Loss::Ended(End::NeverStarted)) => (StageRunState::Skipped, None),
            JobOutcome::Lost(loss) => (StageRunState::Failed, Some(self.tracked.ended(loss, name).1)),
            JobOutcome::Failed => match self.tracked.word {
                Some(ProcessEvent::Failed { error, .. }) => (StageRunState::Failed, Some(error)),
                _ => (StageRunState::Failed, None),
            },
            JobOutcome::Done | JobOutcome::Wait => match &self.answer {
                Answer::Is(JobState::Queued { .. }) => (StageRunState::Pending, None),
                // It was never submitted, for all that is seen.
                Answer::Absent if self.id.is_none() => (StageRunState::Pending, None),
                _ => (StageRunState::Running, None),
            },
        };
    }
}

/// Ends a run in which nothing is left to come. `last`: when the last of its results was made.
fn conclude(record: &mut RunRecord, last: Timestamp) {
    let any = |states: &[StageRunState]| record.stages.iter().any(|stage| states.contains(&stage.state));
    if any(&[StageRunState::Pending, StageRunState::Running]) {
        return;
    }
    let bad = any(&[StageRunState::Failed, StageRunState::Skipped, StageRunState::Interrupted]);
    record.state = if bad { RunState::Failed } else { RunState::Ok };
    record.seconds = record.started_at.parse().ok().map(|then: Timestamp| last.duration_since(then).as_secs_f64());
    record.finished_at = Some(last.to_string());
}
