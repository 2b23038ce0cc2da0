//! Submits a whole run at once, each job with its dependencies, so that no process has to watch it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::job_store::{Batch, BatchTask, JobStore};
use super::secrets;
use super::submit::Submitter;
use super::system::{BatchSystem, Dependency, QueuedJob, Refusal};
use crate::plan::{Plan, StageState};
use crate::runs::RunDir;

/// The maximum number of attempts to submit a batch, at growing intervals.
const MAX_TRIES: u32 = 5;

/// Submits all stages that are not cached and returns the number of jobs. `states` are the stages' states in the store,
/// and `plan` includes its secrets.
pub fn detach(
    run: &RunDir,
    plan: &Plan,
    system: Arc<dyn BatchSystem>,
    exe: PathBuf,
    states: &[StageState],
) -> Result<usize> {
    let job_store = JobStore::of(run);
    let submitter = Submitter { spec: job_store.spec()?, system, job_store, exe, secrets: secrets::to_variable(plan) };
    let plan = &submitter.spec.plan;
    let mut sent: Vec<Batch> = vec![];
    for level in levels(plan, states) {
        let stages =
            level.into_iter().map(|stage| BatchTask { stage, key: states[stage].key().cloned(), batch_divisor: 1 });
        for batch in submitter.batches(stages.collect(), sent.len()) {
            let after = dependencies(plan, &batch, &sent);
            let job = submit(&submitter, &batch, &after).with_context(|| {
                format!(
                    "cannot submit {}; {} jobs of the run are in the queue: continue with `srpipe run` without \
                     `--detach`, or cancel them with `srpipe cancel {}`",
                    plan.stages[batch.stages[0]].name,
                    sent.iter().map(|batch| batch.stages.len()).sum::<usize>(),
                    submitter.job_store.run_id(),
                )
            })?;
            sent.push(Batch { job: Some(job), ..batch });
        }
    }
    Ok(sent.iter().map(|batch| batch.stages.len()).sum())
}

/// Groups the stages that have to run into levels: the dependencies of a stage are in earlier levels.
fn levels(plan: &Plan, states: &[StageState]) -> Vec<Vec<usize>> {
    let mut level_of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut levels: Vec<Vec<usize>> = vec![];
    for (stage, planned) in plan.stages.iter().enumerate() {
        if matches!(states[stage], StageState::Cached { .. }) {
            continue;
        }
        let before = planned.dependencies.iter().filter_map(|dependency| level_of.get(dependency)).max();
        let level = before.map_or(0, |level| level + 1);
        level_of.insert(stage, level);
        levels.resize(levels.len().max(level + 1), vec![]);
        levels[level].push(stage);
    }
    levels
}

/// Returns the submitted jobs that a batch depends on.
fn dependencies(plan: &Plan, batch: &Batch, sent: &[Batch]) -> Vec<Dependency> {
    let needs = |stage: usize, other: &Batch| -> BTreeSet<usize> {
        let dependencies = plan.stages[stage].dependencies.iter().copied();
        dependencies.filter(|dependency| other.stages.contains(dependency)).collect()
    };
    let dependency = |other: &Batch| {
        let needed: Vec<BTreeSet<usize>> = batch.stages.iter().map(|&stage| needs(stage, other)).collect();
        if needed.iter().all(BTreeSet::is_empty) {
            return None;
        }
        let by_task = batch.is_array()
            && needed.len() == other.stages.len()
            && needed.iter().zip(&other.stages).all(|(needed, &stage)| needed.iter().eq([&stage]));
        Some(Dependency { job: other.job?, by_task })
    };
    sent.iter().filter_map(dependency).collect()
}

fn submit(submitter: &Submitter, batch: &Batch, after: &[Dependency]) -> Result<u64> {
    let name = submitter.system.name();
    let mut last = String::new();
    for attempt in 0..MAX_TRIES {
        match submitter.submit(batch, after) {
            Ok(job) => return Ok(job),
            Err(Refusal::Permanent(text) | Refusal::TooManyJobs(text)) => bail!("{name} rejected the job: {text}"),
            Err(Refusal::Uncertain(text)) => last = text,
        }
        // The queue shows whether the job was submitted.
        thread::sleep(Duration::from_secs(1 << attempt));
        if let Some(job) = find_in_queue(submitter, batch)? {
            submitter.job_store.write(&Batch { job: Some(job), ..batch.clone() })?;
            return Ok(job);
        }
    }
    bail!("{name} rejected the job: {last}")
}

fn find_in_queue(submitter: &Submitter, batch: &Batch) -> Result<Option<u64>> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match submitter.system.queue(submitter.job_store.run_id()) {
            Ok(jobs) => return Ok(jobs.get(&(batch.number, 0)).and_then(QueuedJob::number)),
            Err(error) if attempt >= MAX_TRIES => {
                return Err(error.context(format!("{} does not answer", submitter.system.name())));
            }
            Err(_) => thread::sleep(Duration::from_secs(1 << attempt)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    fn swept() -> Plan {
        let text = "name: p\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic}\n  \
                    pairs: {kind: degrade, input: images}\n  \
                    net: {kind: train, data: pairs, optim: {steps: 1}, matrix: {seed: [0, 1]}}\n  \
                    draw: {kind: sample, model: net, data: pairs}\n  \
                    table: {kind: compare, arms: {a: draw}}\n";
        plan(&crate::pipeline::parse("p.yaml", text, &Default::default()).unwrap())
    }

    fn batch(number: usize, stages: &[usize]) -> Batch {
        let task = |&stage: &usize| BatchTask { stage, key: None, batch_divisor: 1 };
        let tasks: Vec<BatchTask> = stages.iter().map(task).collect();
        Batch { job: Some(number as u64 * 10), ..Batch::new("run", number, &tasks) }
    }

    fn all(job: u64) -> Dependency {
        Dependency { job, by_task: false }
    }

    fn by_task(job: u64) -> Dependency {
        Dependency { job, by_task: true }
    }

    #[test]
    fn each_stage_is_in_a_level_after_its_dependencies() {
        let plan = swept();
        let names = |stages: &[usize]| stages.iter().map(|&s| plan.stages[s].base.as_str()).collect::<Vec<_>>();
        let waiting = vec![StageState::Waiting { on: vec![] }; plan.stages.len()];
        let levels = levels(&plan, &waiting);
        let found: Vec<Vec<&str>> = levels.iter().map(|stages| names(stages)).collect();
        assert_eq!(found, [vec!["images"], vec!["pairs"], vec!["net"; 2], vec!["draw"; 2], vec!["table"]]);
    }

    #[test]
    fn a_task_of_an_array_depends_on_one_task_if_the_arrays_match() {
        let plan = swept();
        let of = |base: &str| -> Vec<usize> {
            (0..plan.stages.len()).filter(|&stage| plan.stages[stage].base == base).collect()
        };
        let sent = [batch(1, &of("images")), batch(2, &of("pairs")), batch(3, &of("net")), batch(4, &of("draw"))];
        assert!(dependencies(&plan, &sent[0], &[]).is_empty());
        assert_eq!(dependencies(&plan, &sent[2], &sent[..2]), [all(20)]);
        assert_eq!(dependencies(&plan, &sent[3], &sent[..3]), [all(20), by_task(30)]);
        assert_eq!(dependencies(&plan, &batch(5, &of("table")), &sent), [all(40)]);
        let reversed: Vec<usize> = of("draw").into_iter().rev().collect();
        assert_eq!(dependencies(&plan, &batch(4, &reversed), &sent[2..3]), [all(30)]);
    }
}
