//! A batch system for tests. It runs each job in the submitting process, as soon as the job is submitted, and computes
//! nothing.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};

use super::batch::system::{BatchSystem, CurrentJob, End, JobState, Jobs, QueuedJob, Refusal, Submission};
use super::batch::{EventSeal, Job, Task};
use super::protocol::ProcessEvent;
use crate::plan::PlannedStage;
use crate::store::{Action, Artifact, Cost, Store};

#[derive(Default)]
pub(super) struct Fake {
    jobs: Arc<Mutex<Jobs>>,
}

impl BatchSystem for Fake {
    fn name(&self) -> &'static str {
        "the fake batch system"
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn check_available(&self) -> Result<(), String> {
        Ok(())
    }

    fn requests_gpu(&self, _: &PlannedStage) -> bool {
        false
    }

    /// Returns different options for each stage, so that no stages form an array.
    fn options(&self, stage: &PlannedStage, _: bool) -> Vec<String> {
        vec![stage.name.clone()]
    }

    fn submit(&self, submission: &Submission) -> Result<u64, Refusal> {
        let number = submission.tag.trim_start_matches('b').parse().expect("tags contain the batch's number");
        let job = u64::try_from(number).expect("batches are few");
        let (event, end) = match run_job(submission) {
            Ok(()) => (ProcessEvent::Done { adopted: false }, End::Completed),
            Err(error) => {
                let cause = super::Cause::Failed;
                (ProcessEvent::Failed { error: format!("{error:#}"), cause, damaged: None }, End::Failed)
            }
        };
        let line = serde_json::to_string(&event).expect("events are plain data");
        let line = EventSeal::new(submission.run_id, (number, 0), true).seal(&line);
        let output = submission.folder.join(format!("{}_0.out", submission.tag));
        fs::write(output, line + "\n").map_err(|error| Refusal::Permanent(error.to_string()))?;
        let state = JobState::Ended(end);
        self.jobs.lock().unwrap().insert((number, 0), QueuedJob { id: job.to_string(), state });
        Ok(job)
    }

    fn queue(&self, _: &str) -> Result<Jobs> {
        Ok(self.jobs.lock().unwrap().clone())
    }

    fn accounting(&self, _: &str, _: &str) -> Result<Option<BTreeMap<String, JobState>>> {
        Ok(None)
    }

    fn cancel(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn start_now(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn current_job(&self) -> CurrentJob {
        CurrentJob::default()
    }

    fn requeue(&self, _: &str) -> Result<()> {
        bail!("the fake batch system does not requeue jobs")
    }

    fn is_running(&self, _: &str) -> bool {
        true
    }

    fn end_in_log(&self, _: &str) -> Option<End> {
        None
    }
}

/// Commits made-up outputs as the result of a job's stage.
fn run_job(submission: &Submission) -> Result<()> {
    let job = Job::new(submission.record, super::batch_system_of_job)?;
    let store = Store::open(job.runs())?;
    let Task::Run(spec) = job.task(&store)? else { return Ok(()) };
    let mut outputs = Artifact::new();
    for name in spec.params.outputs() {
        outputs.insert(name.to_string(), store.put(format!("{name} of {}", spec.key).as_bytes())?);
    }
    let preimage = spec.preimage.to_value();
    store.commit(&spec.key, &Action { preimage, outputs, metrics: BTreeMap::new(), cost: Cost::default() })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::ExecutorKind;
    use crate::run::{OnFailure, Options, Progress, Status, Stopping, detach, prepare, run};
    use crate::runs::{RunRecord, RunState, StageRunState};
    use crate::stages::StageEvent;
    use crate::store::Store;

    struct Silent;

    impl Progress for Silent {
        fn started(&mut self, _: &RunRecord) {}
        fn stage(&mut self, _: usize, _: &Status) {}
        fn event(&mut self, _: usize, _: &StageEvent) {}
        fn stopping(&mut self, _: Stopping) {}
        fn finished(&mut self, _: &RunRecord) {}
    }

    fn options(executor: &str) -> Options {
        Options {
            file: None,
            jobs: None,
            on_failure: OnFailure::KeepGoing,
            remote: None,
            executor: executor.parse::<ExecutorKind>().unwrap(),
            slurm: Default::default(),
            exe: "srpipe".into(),
            command: vec![],
        }
    }

    #[test]
    fn an_executor_that_is_chosen_by_name_runs_and_detaches_a_pipeline() {
        let text = "name: p\nseed: 0\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic, train: 1}\n  \
                    pairs: {kind: degrade, input: images}\n  model: {kind: train, data: pairs, optim: {steps: 1}}\n";
        let pipeline = crate::pipeline::parse("p.yaml", text, &Default::default()).ok().unwrap();
        for detached in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let prepared = prepare(&pipeline, Some(&store)).unwrap();
            let (guard, options) = (store.guard().unwrap(), options("fake"));
            if detached {
                assert_eq!(detach(&pipeline, &prepared, &store, guard, &options).unwrap().1, 3);
                assert!(prepare(&pipeline, Some(&store)).unwrap().is_done());
                continue;
            }
            let record = run(&pipeline, &prepared, &store, guard, &options, &mut Silent).unwrap();
            assert_eq!(record.state, RunState::Ok, "{record:?}");
            assert!(record.stages.iter().all(|stage| stage.state == StageRunState::Ran), "{record:?}");
        }
    }
}
