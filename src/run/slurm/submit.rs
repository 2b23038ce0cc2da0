//! Hands batches of stages to Slurm.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Settings;
use super::job_store::{Batch, BatchTask, JobStore, RunSpec};
use super::options::options;
use super::queue::{self, Refusal};
use crate::plan::BackendClass;

/// Most tasks of one array; Slurm's own limit is 1001 where nobody raised it.
const MAX_TASKS: usize = 500;

/// Whoever submits for a run.
pub struct Submitter {
    pub job_store: JobStore,
    pub spec: RunSpec,
    pub settings: Settings,
    /// The srpipe binary.
    pub exe: PathBuf,
    /// For the jobs' environment; observe `secrets`.
    pub secrets: Option<String>,
}

impl Submitter {
    /// Stages that can go together as batches: those of one name in the file that ask for the same are an array. They are
    /// counted on from `last`.
    pub fn batches(&self, stages: Vec<BatchTask>, last: usize) -> Vec<Batch> {
        let mut groups: BTreeMap<(&str, Vec<String>), Vec<BatchTask>> = BTreeMap::new();
        for wanted in stages {
            let group = (self.spec.plan.stages[wanted.stage].base.as_str(), self.options(wanted.stage));
            groups.entry(group).or_default().push(wanted);
        }
        let arrays = groups.values().flat_map(|group| group.chunks(MAX_TASKS));
        let batch = |(i, wanted): (usize, &[BatchTask])| Batch::new(self.job_store.run_id(), last + 1 + i, wanted);
        arrays.enumerate().map(batch).collect()
    }

    /// Writes down what is wanted, hands it over, and writes down under which number it goes. `after`: conditions, as
    /// `sbatch --dependency` takes them.
    pub fn submit(&self, batch: &Batch, after: &[String]) -> Result<u64, Refusal> {
        // Without its entry a job could do nothing, and nobody would find it.
        self.job_store.write(batch).map_err(|error| Refusal::Never(format!("{error:#}")))?;
        let mut all = self.options(batch.stages[0]);
        all.push(format!("--job-name={}", self.job_store.run_id()));
        all.push(format!("--comment={}", batch.comment()));
        all.push(format!("--output={}", self.job_store.pattern(batch, "out")));
        all.push(format!("--error={}", self.job_store.pattern(batch, "err")));
        if batch.is_array() {
            all.push(format!("--array=0-{}", batch.stages.len() - 1));
        }
        if !after.is_empty() {
            all.push(format!("--dependency={}", after.join(",")));
            all.push("--kill-on-invalid-dep=yes".into());
        }
        let script = queue::script(&self.exe, &self.job_store.path(batch.number));
        let job = queue::sbatch(&all, &script, self.secrets.as_deref(), self.settings.timeout)?;
        // To look up for people; without it the jobs are found all the same.
        let _ = self.job_store.write(&Batch { job: Some(job), ..batch.clone() });
        Ok(job)
    }

    fn options(&self, stage: usize) -> Vec<String> {
        let cuda = self.spec.backend == BackendClass::Cuda;
        options(&self.settings.defaults.complete(&self.spec.plan.stages[stage], cuda))
    }
}
