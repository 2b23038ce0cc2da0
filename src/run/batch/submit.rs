//! Groups stages into batches and submits them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::job_store::{Batch, BatchTask, JobStore, RunSpec};
use super::system::{BatchSystem, Dependency, Refusal, Submission, tag};
use crate::plan::BackendClass;

/// The maximum number of tasks in one array. Slurm's default limit is 1001.
const MAX_TASKS: usize = 500;

/// Submits the jobs of one run.
pub(super) struct Submitter {
    pub(super) system: Arc<dyn BatchSystem>,
    pub(super) job_store: JobStore,
    pub(super) spec: RunSpec,
    /// The srpipe binary.
    pub(super) exe: PathBuf,
    /// For the environment of jobs; see `secrets`.
    pub(super) secrets: Option<String>,
}

impl Submitter {
    /// Groups stages into batches, numbered from `last + 1`. Instances of the same stage become an array if they
    /// request the same resources.
    pub(super) fn batches(&self, stages: Vec<BatchTask>, last: usize) -> Vec<Batch> {
        let mut groups: BTreeMap<(&str, Vec<String>), Vec<BatchTask>> = BTreeMap::new();
        for task in stages {
            let group = (self.spec.plan.stages[task.stage].base.as_str(), self.options(task.stage));
            groups.entry(group).or_default().push(task);
        }
        let arrays = groups.values().flat_map(|group| group.chunks(MAX_TASKS));
        let batch = |(i, tasks): (usize, &[BatchTask])| Batch::new(self.job_store.run_id(), last + 1 + i, tasks);
        arrays.enumerate().map(batch).collect()
    }

    /// Writes the record of a batch, submits it, and adds the job's number to the record.
    pub fn submit(&self, batch: &Batch, after: &[Dependency]) -> Result<u64, Refusal> {
        // Without its record, a job could neither run nor be found.
        self.job_store.write(batch).map_err(|error| Refusal::Permanent(format!("{error:#}")))?;
        let job = self.system.submit(&Submission {
            run_id: self.job_store.run_id(),
            comment: batch.comment(),
            options: self.options(batch.stages[0]),
            tasks: batch.stages.len(),
            after,
            folder: &self.job_store.folder(),
            tag: tag(batch.number),
            exe: &self.exe,
            record: &self.job_store.path(batch.number),
            secrets: self.secrets.as_deref(),
        })?;
        // For human readers only; srpipe identifies the job by its comment.
        let _ = self.job_store.write(&Batch { job: Some(job), ..batch.clone() });
        Ok(job)
    }

    fn options(&self, stage: usize) -> Vec<String> {
        let cuda = self.spec.backend == BackendClass::Cuda;
        self.system.options(&self.spec.plan.stages[stage], cuda)
    }
}
