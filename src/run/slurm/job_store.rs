//! What a run keeps of its jobs, in a folder that they and whoever looks at the run later read: `charter.json` says what
//! there is to do, and `b1.json`, `b2.json`, … what was handed to `sbatch`. A batch is written down before that, so that
//! no job is without its entry, whoever dies when.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::queue::{Jobs, Row, TaskId, tag};
use crate::plan::{BackendClass, Plan, Sources, states};
use crate::run::prepare::Prepared;
use crate::runs::RunDir;
use crate::store::seal::{Seal, seal, unseal};
use crate::store::{Key, Store, predates_seals, read_file};

const SPEC: &str = "charter.json";
/// The name of a marker file: a job found that the shared cache cannot be used.
pub const CACHE_UNAVAILABLE: &str = "cache-unavailable";
/// Is there when somebody wants the run to end.
const CANCELLED: &str = "cancelled";

/// All that decides what a job does, whenever it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The id of the run; None if an older version wrote it.
    #[serde(default)]
    pub run_id: Option<String>,
    /// The folder of the store.
    pub runs: PathBuf,
    pub plan: Plan,
    /// Content from outside, as it was when the run began.
    pub sources: Sources,
    pub backend: BackendClass,
    /// Stages that run although they are known.
    pub forced: BTreeSet<usize>,
    /// A cache that may know what the store does not.
    pub remote: Option<String>,
}

impl RunSpec {
    pub fn new(run: &RunDir, prepared: &Prepared, store: &Store, remote: Option<String>) -> Self {
        Self {
            run_id: Some(run.id().to_string()),
            runs: store.runs_dir().to_path_buf(),
            plan: prepared.plan.clone(),
            sources: prepared.sources.clone(),
            backend: prepared.backend(),
            forced: prepared.forced.clone(),
            remote,
        }
    }

    /// What there is to do, as it stands by now.
    pub fn prepared(self, store: &Store) -> Prepared {
        let states = states(&self.plan, store, &self.sources, self.backend);
        let cuda = (self.backend == BackendClass::Cuda).then_some(0);
        Prepared { plan: self.plan, sources: self.sources, cuda, states, forced: self.forced }
    }

    /// Whether a run that is prepared now asks for the very same.
    pub fn asks_for(&self, prepared: &Prepared) -> bool {
        // The plan on disk contains no secrets.
        let written = |plan: &Plan| serde_json::to_value(plan).ok();
        written(&self.plan) == written(&prepared.plan)
            && self.sources == prepared.sources
            && self.backend == prepared.backend()
            && self.forced == prepared.forced
    }
}

/// Stages that are one job, or the tasks of one array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The id of the run; None if an older version wrote it.
    #[serde(default)]
    pub run_id: Option<String>,
    /// Counts from one in a run.
    pub number: usize,
    /// Of the spec's plan.
    pub stages: Vec<usize>,
    /// Where they are known by then.
    pub keys: Vec<Option<Key>>,
    /// In how many parts each takes its images, on a GPU that was too small for all at once.
    pub splits: Vec<usize>,
    /// What `sbatch` answered. Without one, the queue tells whether there is a job.
    pub job: Option<u64>,
}

/// A stage that is to be one of a batch.
#[derive(Debug, Clone)]
pub struct BatchTask {
    pub stage: usize,
    pub key: Option<Key>,
    pub split: usize,
}

impl Batch {
    /// One that nobody has handed over yet.
    pub fn new(run_id: &str, number: usize, wanted: &[BatchTask]) -> Self {
        Self {
            run_id: Some(run_id.to_string()),
            number,
            stages: wanted.iter().map(|wanted| wanted.stage).collect(),
            keys: wanted.iter().map(|wanted| wanted.key.clone()).collect(),
            splits: wanted.iter().map(|wanted| wanted.split).collect(),
            job: None,
        }
    }

    pub fn is_array(&self) -> bool {
        self.stages.len() > 1
    }

    /// As Slurm calls a task of it.
    pub fn task_id(&self, task: usize) -> Option<String> {
        Some(if self.is_array() { format!("{}_{task}", self.job?) } else { self.job?.to_string() })
    }

    /// By which Slurm, and people, know it: the tag, and the key of what it makes, or of the first of those.
    pub fn comment(&self) -> String {
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

/// A run's folder of jobs.
#[derive(Debug, Clone)]
pub struct JobStore {
    run: RunDir,
}

impl JobStore {
    pub fn begin(run: &RunDir, spec: &RunSpec) -> Result<Self> {
        run.write_job_file(SPEC, &seal(spec).context("writing the run's plan as JSON")?)?;
        Ok(Self { run: run.clone() })
    }

    pub fn of(run: &RunDir) -> Self {
        Self { run: run.clone() }
    }

    pub fn run_id(&self) -> &str {
        self.run.id()
    }

    pub fn spec(&self) -> Result<RunSpec> {
        let spec = self.read_spec()?;
        let record = self.run.record()?;
        let names = spec.plan.stages.iter().map(|stage| &stage.name);
        match names.eq(record.stages.iter().map(|stage| &stage.name)) {
            true => Ok(spec),
            false => Err(self.damaged(SPEC, "its stages are not those of the run")),
        }
    }

    fn read_spec(&self) -> Result<RunSpec> {
        let spec: RunSpec = self.read(SPEC)?;
        self.check_run(SPEC, spec.run_id.as_deref())?;
        Ok(spec)
    }

    /// Says to whoever watches the run that it is to end.
    pub fn cancel(&self) -> Result<()> {
        self.run.write_job_file(CANCELLED, b"").map(drop)
    }

    /// Lets jobs use the shared cache again.
    pub fn reset_unavailable_cache(&self) {
        let _ = fs::remove_file(self.run.jobs_dir().join(CACHE_UNAVAILABLE));
    }

    pub fn forget_cancelling(&self) {
        let _ = fs::remove_file(self.run.jobs_dir().join(CANCELLED));
    }

    pub fn is_cancelled(&self) -> bool {
        self.run.jobs_dir().join(CANCELLED).is_file()
    }

    /// The file of a batch, for its jobs.
    pub fn path(&self, batch: usize) -> PathBuf {
        self.run.jobs_dir().join(format!("{}.json", tag(batch)))
    }

    /// Before a batch is submitted, and once more when its job is known.
    pub fn write(&self, batch: &Batch) -> Result<()> {
        let bytes = seal(batch).context("writing a batch of jobs as JSON")?;
        self.run.write_job_file(&format!("{}.json", tag(batch.number)), &bytes)?;
        Ok(())
    }

    /// Returns all batches, sorted by number; files with other names are skipped.
    ///
    /// # Errors
    /// Fails if a record is damaged or missing: the jobs of that batch could not be found again, and its number would be
    /// used for another batch.
    pub fn batches(&self) -> Result<Vec<Batch>> {
        let entries = fs::read_dir(self.run.jobs_dir()).into_iter().flatten().flatten();
        let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let number = |name: &String| name.strip_prefix('b')?.strip_suffix(".json")?.parse::<usize>().ok();
        let mut batches: Vec<Batch> =
            names.iter().filter_map(number).map(|number| self.batch(number)).collect::<Result<_>>()?;
        batches.sort_unstable_by_key(|batch| batch.number);
        // Batches are numbered without gaps, and a job that has started has a file for its events.
        let with_output = names.iter().filter_map(|name| {
            let (batch, rest) = name.strip_prefix('b')?.split_once('_')?;
            rest.ends_with(".out").then(|| batch.parse().ok())?
        });
        let last = with_output.chain(batches.iter().map(|batch| batch.number)).max().unwrap_or(0);
        match (1..=last).find(|&number| batches.get(number - 1).is_none_or(|batch| batch.number != number)) {
            None => Ok(batches),
            Some(number) => Err(self.missing(number, "")),
        }
    }

    /// Fails if the queue has a job of this run whose batch is not among `batches`.
    pub fn check_queue(&self, batches: &[Batch], jobs: &Jobs) -> Result<()> {
        let is_missing = |((number, _), _): &(&TaskId, &Row)| batches.iter().all(|batch| batch.number != *number);
        match jobs.iter().find(is_missing) {
            None => Ok(()),
            Some(((number, _), row)) => Err(self.missing(*number, &format!(", but job {} is in the queue", row.id))),
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

    /// Reads a sealed file of the run's folder of jobs.
    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = match read_file(&self.run.jobs_dir().join(name)) {
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

    /// An error with the next step. The name of the file comes first, because tables cut long messages.
    fn unusable(&self, problem: &str) -> Error {
        let (folder, run) = (self.run.jobs_dir(), self.run_id());
        anyhow!(
            "{problem} (in {}). Cancel the jobs of the run with `srpipe cancel {run}`, then start a new run",
            folder.display()
        )
    }

    /// What a task's processes write: events to `.out`, and before they know where their log is, messages to `.err`,
    /// as Slurm does.
    pub fn file(&self, (batch, task): TaskId, extension: &str) -> PathBuf {
        self.run.jobs_dir().join(format!("{}_{task}.{extension}", tag(batch)))
    }

    /// The same as a pattern of `sbatch`.
    pub fn pattern(&self, batch: &Batch, extension: &str) -> String {
        let folder = self.run.jobs_dir().display().to_string().replace('%', "%%");
        let task = if batch.is_array() { "%a" } else { "0" };
        format!("{folder}/{}_{task}.{extension}", tag(batch.number))
    }
}

/// The job's side: which stage the task of a batch is to run, and in how many parts it takes its images.
pub fn entry(path: &Path, task: usize) -> Result<(RunSpec, usize, usize)> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.strip_prefix('b').and_then(|name| name.strip_suffix(".json")?.parse().ok());
    let (run, number) = RunDir::of_job_file(path)
        .zip(number)
        .with_context(|| format!("{} is not the record of a batch of jobs", path.display()))?;
    let job_store = JobStore::of(&run);
    let batch = job_store.batch(number)?;
    let spec = job_store.read_spec()?;
    // Whoever submitted it may itself be a task of an array: its number is in the environment too.
    let task = if batch.is_array() { task } else { 0 };
    let stage = batch.stages.get(task).copied().filter(|&stage| stage < spec.plan.stages.len());
    let stage = stage.ok_or_else(|| job_store.damaged(name, &format!("it has no task {task}")))?;
    Ok((spec, stage, batch.splits.get(task).copied().unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    #[test]
    fn a_task_finds_its_stage_and_how_to_take_its_images() {
        let folder = tempfile::tempdir().unwrap();
        let text = "name: p\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic}\n  \
                    pairs: {kind: degrade, input: images}\n";
        let jobs = folder.path().join("p/20261123-083227.123-k3xa/.slurm");
        std::fs::create_dir_all(&jobs).unwrap();
        let run_id = "20261123-083227.123-k3xa";
        let spec = RunSpec {
            run_id: Some(run_id.to_string()),
            runs: folder.path().to_path_buf(),
            plan: plan(&crate::pipeline::parse("p.yaml", text, &Default::default()).unwrap()),
            sources: Sources::default(),
            backend: BackendClass::Cuda,
            forced: BTreeSet::new(),
            remote: None,
        };
        let wanted = |stage, split| BatchTask { stage, key: None, split };
        let batch = Batch::new(run_id, 3, &[wanted(1, 1), wanted(0, 4)]);
        let path = jobs.join("b3.json");
        std::fs::write(jobs.join(SPEC), seal(&spec).unwrap()).unwrap();
        std::fs::write(&path, seal(&batch).unwrap()).unwrap();
        assert_eq!(entry(&path, 0).unwrap(), (spec.clone(), 1, 1));
        assert_eq!(entry(&path, 1).unwrap(), (spec, 0, 4));
        let error = entry(&path, 2).unwrap_err().to_string();
        assert!(error.contains("has no task 2"), "{error}");
        // With an altered number, the job would run another stage.
        let text = std::fs::read_to_string(&path).unwrap().replace("[1,0]", "[0,1]");
        std::fs::write(&path, text).unwrap();
        let error = entry(&path, 0).unwrap_err().to_string();
        assert!(error.starts_with("b3.json is damaged: its content does not match its checksum"), "{error}");
        assert!(error.contains(&format!("`srpipe cancel {run_id}`")), "{error}");
    }
}
