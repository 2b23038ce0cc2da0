//! What became of a run's jobs that nobody watched: brings its record up to date, once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;

use super::book::{Batch, Book};
use super::queue::{self, Jobs};
use super::verdict::{Answer, Dead, End, JobState, Verdict, verdict};
use super::watched::Watched;
use super::{Settings, recorded};
use crate::pipeline::ExecutorKind;
use crate::plan::StageState;
use crate::run::knowledge::Knowledge;
use crate::run::wire::ProcessEvent;
use crate::store::{Gone, JobRecord, RunDir, RunRecord, RunState, StageRecord, StageRunState, Store};

/// Nothing where somebody watches the run, or it has ended. What Slurm does not tell stays as it was.
pub fn adopt(run: &RunDir, store: &Store, settings: &Settings) -> Result<()> {
    let mut record = run.record()?;
    if record.executor != ExecutorKind::Slurm || record.state != RunState::Running {
        return Ok(());
    }
    if run.is_live() {
        return Ok(());
    }
    let jobs = queue::squeue(run.id(), settings.timeout).ok();
    // Whoever wants to watch the run finds it taken for no longer than needed.
    let Some(run) = run.take_over()? else { return Ok(()) };
    let _hold = store.hold()?;
    let before = record.clone();
    let book = Book::of(&run);
    let prepared = book.charter()?.prepared(store);
    let mut known = Knowledge::new(&prepared, store);
    let mut last: Option<Timestamp> = None;
    // The last that has a stage is the one that counts.
    let mut tasks: BTreeMap<usize, (Batch, usize)> = BTreeMap::new();
    for batch in book.batches() {
        tasks.extend(batch.stages.iter().enumerate().map(|(task, &stage)| (stage, (batch.clone(), task))));
    }
    for (stage, planned) in prepared.plan.stages.iter().enumerate() {
        let task = tasks.get(&stage);
        let seen = task.zip(known.key(stage).cloned()).map(|(task, key)| {
            let job = Job::new(&book, task, jobs.as_ref(), key, known.is_forced(stage));
            if known.is_forced(stage) && matches!(job.watched.word, Some(ProcessEvent::Done { .. })) {
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
                let adopted = job.is_none_or(|job| job.watched.word == Some(ProcessEvent::Done { adopted: true }));
                entry.state = if adopted { StageRunState::Cached } else { StageRunState::Ran };
            }
            (_, Some(job)) => job.judge(store, settings, entry),
            (_, None) if lost => entry.state = StageRunState::Skipped,
            (_, None) => {
                entry.state = StageRunState::Pending;
                entry.job = task.and_then(|(batch, task)| {
                    let row = jobs.as_ref()?.get(&(batch.number, *task))?;
                    recorded(&row.id, &row.state)
                });
            }
        }
    }
    conclude(&mut record, last.unwrap_or_else(Timestamp::now));
    if record != before { run.update(&record) } else { Ok(()) }
}

/// A job as it is seen at one moment.
struct Job {
    watched: Watched,
    id: String,
    answer: Answer,
}

impl Job {
    fn new(
        book: &Book,
        (batch, task): &(Batch, usize),
        jobs: Option<&Jobs>,
        key: crate::store::Key,
        forced: bool,
    ) -> Self {
        let at = (batch.number, *task);
        let mut watched = Watched::new(book, at, key, forced);
        watched.listen(Instant::now());
        let row = jobs.and_then(|jobs| jobs.get(&at));
        let answer = match (row, jobs) {
            (Some(row), _) => Answer::Is(row.state.clone()),
            (None, Some(_)) => Answer::Absent,
            (None, None) => Answer::None,
        };
        let id = row.map(|row| row.id.clone()).or_else(|| batch.task_id(*task));
        Self { watched, id: id.unwrap_or_else(|| queue::tag(batch.number)), answer }
    }

    /// What it has not come to a result by.
    fn judge(mut self, store: &Store, settings: &Settings, entry: &mut StageRecord) {
        let mut seen = self.watched.see(store, self.answer.clone(), Instant::now());
        // Nobody was there to see since when: the looks before this one noted it.
        let beat = store.last_beat(&self.watched.key);
        let before = entry.job.as_ref().and_then(|job| job.gone.clone()).filter(|gone| gone.beat == beat);
        let now = Timestamp::now();
        let gone = before.unwrap_or_else(|| Gone { since: now.to_string(), beat });
        if seen.answer == Answer::Absent {
            let since = gone.since.parse().unwrap_or(now);
            seen.gone_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            seen.silent_for = gone.beat.as_ref().map(|_| seen.gone_for);
        }
        let judged = verdict(&seen, settings.grace);
        entry.job = match &self.answer {
            Answer::Is(state) => recorded(&self.id, state),
            Answer::Absent => Some(JobRecord { gone: Some(gone), ..JobRecord::absent(&self.id) }),
            Answer::None => entry.job.take(),
        };
        (entry.state, entry.error) = match judged {
            Verdict::Dead(Dead::Ended(End::NeverStarted)) => (StageRunState::Skipped, None),
            Verdict::Dead(dead) => (StageRunState::Failed, Some(self.watched.ended(dead, &self.id).1)),
            Verdict::Failed => match self.watched.word {
                Some(ProcessEvent::Failed { error, .. }) => (StageRunState::Failed, Some(error)),
                _ => (StageRunState::Failed, None),
            },
            Verdict::Done | Verdict::Wait => match &self.answer {
                Answer::Is(JobState::Queued { .. }) => (StageRunState::Pending, None),
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
