//! The records of a run's jobs, in a folder that jobs and later processes read: `charter.json` specifies the run, and
//! `b1.json`, `b2.json`, … record the submitted batches. The record of a batch is written before the batch is
//! submitted, so that every job has a record even if a process is killed in between.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::event_seal::EventSeal;
use super::system::{Jobs, QueuedJob, TaskId, tag};
use crate::config::ExecutorKind;
use crate::plan::{BackendClass, Plan, Sources, states};
use crate::run::prepared::Prepared;
use crate::runs::{RUN_SPEC, RunDir};
use crate::store::seal::{Seal, seal, unseal};
use crate::store::{Key, Store, predates_seals, read_record};

/// The name of a marker file: a job found that the shared cache cannot be used.
pub(super) const CACHE_UNAVAILABLE: &str = "cache-unavailable";
/// The name of a marker file: the run was cancelled.
const CANCELLED: &str = "cancelled";

/// Everything that determines what a job does, whenever it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The id of the run; None if an older version wrote this.
    #[serde(default)]
    run_id: Option<String>,
    /// The executor that submits the jobs; None if an older version wrote this.
    #[serde(default)]
    pub executor: Option<ExecutorKind>,
    /// The folder of the store.
    pub(super) runs: PathBuf,
    pub(super) plan: Plan,
    /// The digests of external content when the run began.
    pub(super) sources: Sources,
    pub(super) backend: BackendClass,
    /// Stages that run even if they are cached.
    pub(super) forced: BTreeSet<usize>,
    /// The address of a shared cache.
    pub remote: Option<String>,
    /// Whether jobs seal their events; false if an older version wrote this.
    #[serde(default)]
    pub has_sealed_events: bool,
}

impl RunSpec {
    pub fn new(
        run: &RunDir,
        executor: ExecutorKind,
        prepared: &Prepared,
        store: &Store,
        remote: Option<String>,
    ) -> Self {
        Self {
            run_id: Some(run.id().to_string()),
            executor: Some(executor),
            runs: store.runs_dir().to_path_buf(),
            plan: prepared.plan.clone(),
            sources: prepared.sources.clone(),
            backend: prepared.backend(),
            forced: prepared.forced.clone(),
            remote,
            has_sealed_events: true,
        }
    }

    /// Returns the seal of the events of a job of the run.
    pub fn event_seal(&self, run_id: &str, task: TaskId) -> EventSeal {
        EventSeal::new(run_id, task, self.has_sealed_events)
    }

    /// Returns the plan with the states that its stages have in the store now.
    pub(super) fn prepared(self, store: &Store) -> Prepared {
        let states = states(&self.plan, store, &self.sources, self.backend);
        let cuda = (self.backend == BackendClass::Cuda).then_some(0);
        Prepared { plan: self.plan, sources: self.sources, cuda, states, forced: self.forced }
    }

    /// Whether a run that is prepared now would do the same.
    pub(super) fn matches(&self, prepared: &Prepared) -> bool {
        // The plan on disk contains no secrets.
        let to_json = |plan: &Plan| serde_json::to_value(plan).ok();
        to_json(&self.plan) == to_json(&prepared.plan)
            && self.sources == prepared.sources
            && self.backend == prepared.backend()
            && self.forced == prepared.forced
    }
}

/// A job, or an array of jobs with one task per stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The id of the run; None if an older version wrote it.
    #[serde(default)]
    pub(super) run_id: Option<String>,
    /// Batches of a run are numbered from 1 without gaps.
    pub(super) number: usize,
    /// Indices of stages in the plan of the run's spec.
    pub(super) stages: Vec<usize>,
    /// The keys of the stages, as far as they were known at submission.
    pub(super) keys: Vec<Option<Key>>,
    /// The number by which each stage divides its batch size, after its GPU ran out of memory.
    #[serde(rename = "splits")]
    pub(super) batch_divisors: Vec<usize>,
    /// The number of the job. Without one, only the queue shows whether the batch was submitted.
    pub(super) job: Option<u64>,
}

/// A stage for a new batch.
#[derive(Debug, Clone)]
pub(super) struct BatchTask {
    pub(super) stage: usize,
    pub(super) key: Option<Key>,
    pub(super) batch_divisor: usize,
}

impl Batch {
    /// Returns a batch that has not been submitted.
    pub(super) fn new(run_id: &str, number: usize, tasks: &[BatchTask]) -> Self {
        Self {
            run_id: Some(run_id.to_string()),
            number,
            stages: tasks.iter().map(|task| task.stage).collect(),
            keys: tasks.iter().map(|task| task.key.clone()).collect(),
            batch_divisors: tasks.iter().map(|task| task.batch_divisor).collect(),
            job: None,
        }
    }

    pub(super) fn is_array(&self) -> bool {
        self.stages.len() > 1
    }

    /// Returns the id of a task's job.
    pub(super) fn job_id(&self, task: usize) -> Option<String> {
        Some(if self.is_array() { format!("{}_{task}", self.job?) } else { self.job?.to_string() })
    }

    /// Returns the comment of the job: the tag, by which srpipe identifies it, and for people the first stage's key and
    /// the number of other tasks.
    pub(super) fn comment(&self) -> String {
        let mut comment = tag(self.number);
        if let Some(key) = self.keys.first().into_iter().flatten().next() {
            comment += &format!(" {key}");
        }
        if self.is_array() {
            comment += &format!(" +{}", self.stages.len() - 1);
        }
        comment
    }
}

/// The folder of a run's jobs.
#[derive(Debug, Clone)]
pub struct JobStore {
    run: RunDir,
}

impl JobStore {
    /// Writes the spec of a new run.
    pub fn create(run: &RunDir, spec: &RunSpec) -> Result<Self> {
        run.write_job_file(RUN_SPEC, &seal(spec).context("serialising the spec of the run")?)?;
        Ok(Self { run: run.clone() })
    }

    pub(super) fn of(run: &RunDir) -> Self {
        Self { run: run.clone() }
    }

    pub(super) fn run_id(&self) -> &str {
        self.run.id()
    }

    /// Reads the spec.
    ///
    /// # Errors
    /// Fails if it is damaged or if its stages are not those of `run.json`.
    pub(super) fn spec(&self) -> Result<RunSpec> {
        let spec = self.read_spec()?;
        let record = self.run.record()?;
        let names = spec.plan.stages.iter().map(|stage| &stage.name);
        match names.eq(record.stages.iter().map(|stage| &stage.name)) {
            true => Ok(spec),
            false => Err(self.damaged(RUN_SPEC, "its stages are not those of the run")),
        }
    }

    /// Reads the spec without comparing it with `run.json`, which a watching process may be replacing.
    fn read_spec(&self) -> Result<RunSpec> {
        let spec: RunSpec = self.read(RUN_SPEC)?;
        self.check_run(RUN_SPEC, spec.run_id.as_deref())?;
        Ok(spec)
    }

    /// Asks the process that watches the run to end it.
    pub(super) fn mark_cancelled(&self) -> Result<()> {
        self.run.write_job_file(CANCELLED, b"").map(drop)
    }

    /// Lets jobs use the shared cache again.
    pub(super) fn reset_unavailable_cache(&self) {
        self.remove_marker(CACHE_UNAVAILABLE);
    }

    /// Removes the marker of `mark_cancelled`.
    pub(super) fn clear_cancelled(&self) {
        self.remove_marker(CANCELLED);
    }

    fn remove_marker(&self, name: &str) {
        if self.run.check_jobs_dir().is_ok() {
            let _ = fs::remove_file(self.run.jobs_dir().join(name));
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.run.check_jobs_dir().is_ok() && self.run.jobs_dir().join(CANCELLED).is_file()
    }

    /// Returns the folder.
    pub(super) fn folder(&self) -> PathBuf {
        self.run.jobs_dir()
    }

    /// Returns the path of a batch's record.
    pub(super) fn path(&self, batch: usize) -> PathBuf {
        self.run.jobs_dir().join(format!("{}.json", tag(batch)))
    }

    /// Writes the record of a batch.
    pub(super) fn write(&self, batch: &Batch) -> Result<()> {
        let bytes = seal(batch).context("serialising the record of a batch")?;
        self.run.write_job_file(&format!("{}.json", tag(batch.number)), &bytes)?;
        Ok(())
    }

    /// Returns all batches, sorted by number; files with other names are skipped.
    ///
    /// # Errors
    /// Fails if a record is damaged or missing: the jobs of that batch could not be found again, and its number would
    /// be used for another batch.
    pub fn batches(&self) -> Result<Vec<Batch>> {
        self.run.check_jobs_dir()?;
        let entries = fs::read_dir(self.run.jobs_dir()).into_iter().flatten().flatten();
        let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let number = |name: &String| batch_number(name.strip_suffix(".json")?);
        let mut batches: Vec<Batch> =
            names.iter().filter_map(number).map(|number| self.batch(number)).collect::<Result<_>>()?;
        batches.sort_unstable_by_key(|batch| batch.number);
        // Batches are numbered without gaps, and a job that has started has a file for its events.
        let with_output = names.iter().filter_map(|name| {
            let (batch, rest) = name.split_once('_')?;
            rest.ends_with(".out").then(|| batch_number(batch))?
        });
        let last = with_output.chain(batches.iter().map(|batch| batch.number)).max().unwrap_or(0);
        match (1..=last).find(|&number| batches.get(number - 1).is_none_or(|batch| batch.number != number)) {
            None => Ok(batches),
            Some(number) => Err(self.missing(number, "")),
        }
    }

    /// Fails if the queue has a job of this run whose batch is not among `batches`.
    pub(super) fn check_queue(&self, batches: &[Batch], jobs: &Jobs) -> Result<()> {
        let is_missing = |((number, _), _): &(&TaskId, &QueuedJob)| batches.iter().all(|batch| batch.number != *number);
        match jobs.iter().find(is_missing) {
            None => Ok(()),
            Some(((number, _), job)) => Err(self.missing(*number, &format!(", but job {} is in the queue", job.id))),
        }
    }

    fn batch(&self, number: usize) -> Result<Batch> {
        let name = format!("{}.json", tag(number));
        let batch: Batch = self.read(&name)?;
        self.check_run(&name, batch.run_id.as_deref())?;
        if batch.number != number {
            return Err(self.damaged(&name, &format!("it is the record of batch {}", batch.number)));
        }
        Ok(batch)
    }

    /// Reads a sealed file of the folder.
    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.run.check_jobs_dir()?;
        let bytes = match read_record(&self.run.jobs_dir().join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(self.unusable(&format!("{name} is missing")));
            }
            Err(error) => return Err(self.unusable(&format!("cannot read {name}: {error}"))),
        };
        let (value, seal) = unseal(&bytes).map_err(|damage| self.damaged(name, &damage.to_string()))?;
        let is_old = || self.run.record().is_ok_and(|record| predates_seals(&record.srpipe_version));
        if seal == Seal::None && !is_old() {
            return Err(self.damaged(name, "the checksum is missing"));
        }
        Ok(value)
    }

    fn check_run(&self, name: &str, run_id: Option<&str>) -> Result<()> {
        match run_id.filter(|id| *id != self.run_id()) {
            None => Ok(()),
            Some(other) => Err(self.damaged(name, &format!("it belongs to run {other}"))),
        }
    }

    fn damaged(&self, name: &str, reason: &str) -> Error {
        self.unusable(&format!("{name} is damaged: {reason}"))
    }

    fn missing(&self, batch: usize, evidence: &str) -> Error {
        self.unusable(&format!("{}.json is missing{evidence}", tag(batch)))
    }

    /// Returns an error that says what to do. The name of the file comes first, because tables truncate long messages.
    fn unusable(&self, problem: &str) -> Error {
        let (folder, run) = (self.run.jobs_dir(), self.run_id());
        anyhow!(
            "{problem} (in {}). Cancel the jobs of the run with `srpipe cancel {run}`, then start a new run",
            folder.display()
        )
    }

    /// Returns the path of a task's output: `.out` contains its events, and `.err` the messages of the batch system and
    /// of the process until it has opened its log.
    pub(super) fn file(&self, (batch, task): TaskId, extension: &str) -> PathBuf {
        self.run.jobs_dir().join(format!("{}_{task}.{extension}", tag(batch)))
    }
}

/// Returns the run's spec, the stage of a task, and the number by which the stage divides its batch size. For the
/// process of the job; `path` is the record of its batch.
pub(super) fn read_task(path: &Path, task: usize) -> Result<(RunSpec, usize, usize)> {
    let (job_store, number) =
        batch_of(path).with_context(|| format!("{} is not the record of a batch of jobs", path.display()))?;
    let batch = job_store.batch(number)?;
    let spec = job_store.read_spec()?;
    // If a task of an array submitted this job, the environment contains the index of that task.
    let task = if batch.is_array() { task } else { 0 };
    let stage = batch.stages.get(task).copied().filter(|&stage| stage < spec.plan.stages.len());
    let name = || format!("{}.json", tag(number));
    let stage = stage.ok_or_else(|| job_store.damaged(&name(), &format!("it has no task {task}")))?;
    Ok((spec, stage, batch.batch_divisors.get(task).copied().unwrap_or(1)))
}

/// Returns the seal for the events of a job, even if its records are damaged. For the process of the job; `path` is the
/// record of its batch, and `index` its index in an array.
pub(in crate::run) fn seal_of_job(path: &Path, index: Option<usize>) -> Option<EventSeal> {
    let (job_store, number) = batch_of(path)?;
    let task = match job_store.batch(number) {
        Ok(batch) if !batch.is_array() => 0,
        _ => index.unwrap_or(0),
    };
    Some(EventSeal::new(job_store.run_id(), (number, task), true))
}

/// Returns the run and the number of the batch whose record has this path.
fn batch_of(path: &Path) -> Option<(JobStore, usize)> {
    let number = batch_number(path.file_name()?.to_str()?.strip_suffix(".json")?)?;
    Some((JobStore::of(&RunDir::of_job_file(path)?), number))
}

/// Parses the tag of a batch, such as `b12`; None if it is written differently, such as `b012`.
fn batch_number(text: &str) -> Option<usize> {
    let number = text.strip_prefix('b')?.parse().ok()?;
    (tag(number) == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    #[test]
    fn tasks_find_their_stage_and_batch_divisor() {
        let folder = tempfile::tempdir().unwrap();
        let text = "name: p\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic}\n  \
                    pairs: {kind: degrade, input: images}\n";
        let jobs = folder.path().join("p/20261123-083227.123-k3xa/.slurm");
        std::fs::create_dir_all(&jobs).unwrap();
        let run_id = "20261123-083227.123-k3xa";
        let spec = RunSpec {
            run_id: Some(run_id.to_string()),
            executor: None,
            runs: folder.path().to_path_buf(),
            plan: plan(&crate::pipeline::parse("p.yaml", text, &Default::default()).unwrap()),
            sources: Sources::default(),
            backend: BackendClass::Cuda,
            forced: BTreeSet::new(),
            remote: None,
            has_sealed_events: true,
        };
        let task = |stage, batch_divisor| BatchTask { stage, key: None, batch_divisor };
        let batch = Batch::new(run_id, 3, &[task(1, 1), task(0, 4)]);
        let path = jobs.join("b3.json");
        std::fs::write(jobs.join(RUN_SPEC), seal(&spec).unwrap()).unwrap();
        std::fs::write(&path, seal(&batch).unwrap()).unwrap();
        assert_eq!(read_task(&path, 0).unwrap(), (spec.clone(), 1, 1));
        assert_eq!(read_task(&path, 1).unwrap(), (spec, 0, 4));
        let error = read_task(&path, 2).unwrap_err().to_string();
        assert!(error.contains("has no task 2"), "{error}");
        // With the altered record, the job would run another stage.
        let text = std::fs::read_to_string(&path).unwrap().replace("[1,0]", "[0,1]");
        std::fs::write(&path, text).unwrap();
        let error = read_task(&path, 0).unwrap_err().to_string();
        assert!(error.starts_with("b3.json is damaged: its content does not match its checksum"), "{error}");
        assert!(error.contains(&format!("`srpipe cancel {run_id}`")), "{error}");
    }
}
