//! Runs: what was asked for and what became of it. Each is a folder that people may look into, and delete.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Artifact, Key, Store, files, numbers};
use crate::pipeline::StageKind;

const RECORD: &str = "run.json";
const PIPELINE: &str = "pipeline.yaml";
const LATEST: &str = "latest";

/// What `run.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Given by [`Store::create_run`].
    pub id: String,
    pub pipeline: String,
    /// The pipeline file, as it was named; None for a built-in pipeline.
    pub file: Option<PathBuf>,
    pub state: RunState,
    /// RFC 3339.
    pub started_at: String,
    pub finished_at: Option<String>,
    pub seconds: Option<f64>,
    pub pid: u32,
    pub srpipe_version: String,
    /// The command line.
    pub command: Vec<String>,
    /// In the plan's order.
    pub stages: Vec<StageRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Also that of a run whose process was killed.
    Running,
    Ok,
    Failed,
    Interrupted,
}

/// What became of a stage in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    pub name: String,
    pub kind: StageKind,
    /// None until the stage's inputs are known.
    pub key: Option<Key>,
    pub state: StageRunState,
    /// In this run; of a cached stage, what it took when it ran.
    pub seconds: Option<f64>,
    #[serde(with = "numbers")]
    pub metrics: BTreeMap<String, f64>,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageRunState {
    Pending,
    Running,
    /// It ran to its end.
    Ran,
    /// Its key was known.
    Cached,
    Failed,
    /// A stage that it depends on failed.
    Skipped,
    /// It was stopped, its progress saved.
    Interrupted,
}

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    id: String,
}

impl Store {
    /// Makes the folder of a new run, with `record` (its id and pipeline filled in) and the pipeline as it was resolved.
    pub fn create_run(&self, pipeline: &str, resolved_yaml: &str, record: &RunRecord) -> Result<RunDir> {
        files::check_name("the pipeline's name", pipeline)?;
        if pipeline == "store" {
            bail!("a pipeline cannot be named \"store\", because runs/store holds the artifacts; rename the pipeline");
        }
        let parent = self.runs.join(pipeline);
        files::create_folder(&parent)?;
        let run = loop {
            let id = new_id(Timestamp::now());
            let path = parent.join(&id);
            match fs::create_dir(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.with_context(|| format!("creating the folder {}", path.display()))?;
                    break RunDir { path, id };
                }
            }
        };
        files::write(&run.path.join(PIPELINE), resolved_yaml.as_bytes())?;
        // The record comes last: a folder without one is no run.
        run.update(&RunRecord { pipeline: pipeline.to_string(), ..record.clone() })?;
        Ok(run)
    }

    /// The names under which there are runs, sorted.
    pub fn pipelines(&self) -> Vec<String> {
        let mut names = folders(&self.runs);
        names.retain(|name| name != "store" && !self.runs(name).is_empty());
        names
    }

    /// The runs of a pipeline, oldest first.
    pub fn runs(&self, pipeline: &str) -> Vec<RunDir> {
        if files::check_name("the pipeline's name", pipeline).is_err() {
            return vec![];
        }
        let parent = self.runs.join(pipeline);
        folders(&parent).into_iter().filter_map(|id| RunDir::at(&parent, id)).collect()
    }

    /// The run that `latest` names; where that is none, the newest.
    pub fn latest_run(&self, pipeline: &str) -> Option<RunDir> {
        let runs = self.runs(pipeline);
        let named = fs::read_link(self.runs.join(pipeline).join(LATEST)).ok();
        let named = runs.iter().find(|run| named.as_deref() == Some(Path::new(&run.id)));
        named.or(runs.last()).cloned()
    }
}

impl RunDir {
    /// The run in this folder, if there is one.
    fn at(parent: &Path, id: String) -> Option<Self> {
        let path = parent.join(&id);
        path.join(RECORD).is_file().then_some(Self { path, id })
    }

    /// When it began, in UTC, and four letters that tell it from another of that moment. Sorts by time.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn record(&self) -> Result<RunRecord> {
        let path = self.path.join(RECORD);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("reading {} as the record of a run", path.display()))
    }

    /// Replaces the record.
    pub fn update(&self, record: &RunRecord) -> Result<()> {
        let record = RunRecord { id: self.id.clone(), ..record.clone() };
        let mut json = serde_json::to_vec_pretty(&record).context("writing the record of a run as JSON")?;
        json.push(b'\n');
        files::write(&self.path.join(RECORD), &json)
    }

    /// A folder named as the stage, of links named as its blobs.
    pub fn link_stage(&self, stage: &str, outputs: &Artifact) -> Result<()> {
        files::check_name("the stage's name", stage)?;
        let folder = self.path.join(stage);
        files::create_folder(&folder)?;
        for (name, digest) in outputs {
            files::check_name("blob", name)?;
            // From runs/<pipeline>/<run-id>/<stage>/: relative, so that `runs` can be moved.
            let target = Path::new("../../../store/blobs").join(digest.shard()).join(digest.as_str());
            replace_link(&target, &folder.join(name))?;
        }
        Ok(())
    }

    /// Makes `latest` name this run.
    pub fn make_latest(&self) -> Result<()> {
        replace_link(Path::new(&self.id), &self.path.with_file_name(LATEST))
    }
}

/// For example `20261123-083227.123-k3xa`.
fn new_id(now: Timestamp) -> String {
    // Letters of a hash that std seeds at random.
    let mut bits = RandomState::new().build_hasher().finish();
    let letters = std::iter::repeat_with(|| {
        let letter = b'a' + (bits % 26) as u8;
        bits /= 26;
        char::from(letter)
    });
    format!("{}-{}", now.strftime("%Y%m%d-%H%M%S.%3f"), letters.take(4).collect::<String>())
}

/// A link that appears in one step, in the place of what was there.
fn replace_link(target: &Path, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix(files::TEMPORARY).make_in(folder, |at| symlink(target, at));
    let made = made.with_context(|| format!("creating a link in {}", folder.display()))?;
    made.persist(path).map_err(|e| e.error).with_context(|| format!("linking {}", path.display()))?;
    Ok(())
}

/// The names of the folders in a folder, sorted; links and hidden ones left out.
fn folders(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    let mut names: Vec<String> = folders.filter_map(|f| f.file_name().to_str().map(str::to_string)).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    names
}
