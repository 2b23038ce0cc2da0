//! A whole graph handed to Slurm at once, each job after those that it needs: nobody has to stay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::job_store::{Batch, BatchTask};
use super::queue::{self, Refusal};
use super::submit::Submitter;
use super::{JobStore, Settings, secrets};
use crate::plan::{Plan, StageState};
use crate::runs::RunDir;

/// How often Slurm is asked for something before that is given up, at growing intervals.
const TRIES: u32 = 5;

/// Submits all that is not known; gives the number of jobs. `states`: as the store knows the stages now.
/// `plan` includes its secrets.
pub fn detach(run: &RunDir, plan: &Plan, settings: Settings, exe: PathBuf, states: &[StageState]) -> Result<usize> {
    let job_store = JobStore::of(run);
    let submitter = Submitter { spec: job_store.spec()?, job_store, settings, exe, secrets: secrets::of(plan) };
    let plan = &submitter.spec.plan;
    let mut sent: Vec<Batch> = vec![];
    for level in levels(plan, states) {
        let stages = level.into_iter().map(|stage| BatchTask { stage, key: states[stage].key().cloned(), split: 1 });
        let stages = stages.collect();
        for batch in submitter.batches(stages, sent.len()) {
            let after = after(plan, &batch, &sent);
            let job = hand_over(&submitter, &batch, &after).with_context(|| {
                format!(
                    "submitting {}: {} of the run's jobs are in the queue. `srpipe run` without `--detach` goes on from \
                     there, `srpipe cancel {}` ends them",
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

/// Stages that have to run, those of a level after those of the levels before.
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

/// What a batch waits for, as `sbatch --dependency` takes it: the whole of another, or of an array each task for its like.
fn after(plan: &Plan, batch: &Batch, sent: &[Batch]) -> Vec<String> {
    let needs = |stage: usize, other: &Batch| -> BTreeSet<usize> {
        let dependencies = plan.stages[stage].dependencies.iter().copied();
        dependencies.filter(|dependency| other.stages.contains(dependency)).collect()
    };
    let condition = |other: &Batch| {
        let needed: Vec<BTreeSet<usize>> = batch.stages.iter().map(|&stage| needs(stage, other)).collect();
        if needed.iter().all(BTreeSet::is_empty) {
            return None;
        }
        let pairs = batch.is_array()
            && needed.len() == other.stages.len()
            && needed.iter().zip(&other.stages).all(|(needed, &like)| needed.iter().eq([&like]));
        Some(format!("{}:{}", if pairs { "aftercorr" } else { "afterok" }, other.job?))
    };
    sent.iter().filter_map(condition).collect()
}

fn hand_over(submitter: &Submitter, batch: &Batch, after: &[String]) -> Result<u64> {
    let mut last = String::new();
    for attempt in 0..TRIES {
        match submitter.submit(batch, after) {
            Ok(job) => return Ok(job),
            Err(Refusal::Never(text) | Refusal::TooMany(text)) => bail!("sbatch does not take the job: {text}"),
            Err(Refusal::Uncertain(text)) => last = text,
        }
        // Slurm may have it: the queue tells.
        thread::sleep(Duration::from_secs(1 << attempt));
        if let Some(job) = in_queue(submitter, batch)? {
            submitter.job_store.write(&Batch { job: Some(job), ..batch.clone() })?;
            return Ok(job);
        }
    }
    bail!("sbatch does not take the job: {last}")
}

fn in_queue(submitter: &Submitter, batch: &Batch) -> Result<Option<u64>> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match queue::squeue(submitter.job_store.run_id(), submitter.settings.timeout) {
            Ok(jobs) => return Ok(jobs.get(&(batch.number, 0)).and_then(queue::Row::job)),
            Err(error) if attempt >= TRIES => return Err(error.context("Slurm does not answer")),
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
        let wanted = |&stage: &usize| BatchTask { stage, key: None, split: 1 };
        let wanted: Vec<BatchTask> = stages.iter().map(wanted).collect();
        Batch { job: Some(number as u64 * 10), ..Batch::new("run", number, &wanted) }
    }

    #[test]
    fn a_stage_comes_after_all_that_it_needs() {
        let plan = swept();
        let names = |stages: &[usize]| stages.iter().map(|&s| plan.stages[s].base.as_str()).collect::<Vec<_>>();
        let unknown = vec![StageState::Waiting { on: vec![] }; plan.stages.len()];
        let levels = levels(&plan, &unknown);
        let found: Vec<Vec<&str>> = levels.iter().map(|stages| names(stages)).collect();
        assert_eq!(found, [vec!["images"], vec!["pairs"], vec!["net"; 2], vec!["draw"; 2], vec!["table"]]);
    }

    #[test]
    fn tasks_of_an_array_wait_for_their_like_and_others_for_all() {
        let plan = swept();
        let of = |base: &str| -> Vec<usize> {
            (0..plan.stages.len()).filter(|&stage| plan.stages[stage].base == base).collect()
        };
        let sent = [batch(1, &of("images")), batch(2, &of("pairs")), batch(3, &of("net")), batch(4, &of("draw"))];
        assert!(after(&plan, &sent[0], &[]).is_empty());
        assert_eq!(after(&plan, &sent[2], &sent[..2]), ["afterok:20"]);
        assert_eq!(after(&plan, &sent[3], &sent[..3]), ["afterok:20", "aftercorr:30"]);
        assert_eq!(after(&plan, &batch(5, &of("table")), &sent), ["afterok:40"]);
        let turned: Vec<usize> = of("draw").into_iter().rev().collect();
        assert_eq!(after(&plan, &batch(4, &turned), &sent[2..3]), ["afterok:30"]);
    }
}
