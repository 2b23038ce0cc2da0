//! The folder of a run: its record, its resolved pipeline, and links to the outputs of its stages.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;

use super::RunRecord;
use crate::config::names::is_reserved_stage;
use crate::store::files::{self, Durability};
use crate::store::seal::{seal_yaml, unseal_yaml};
use crate::store::{Artifact, Digest, Store, is_held};

const RECORD: &str = "run.json";
const PIPELINE: &str = "pipeline.yaml";
const LATEST: &str = "latest";
const LOCK: &str = ".lock";
const PINNED: &str = ".pinned";

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    id: String,
    /// The lock of a live run, shared by all clones in the process that runs it.
    _lock: Option<Arc<File>>,
}

impl Store {
    /// Creates the folder of a new run with its record and the resolved pipeline. Sets the id and the pipeline's name
    /// in the record.
    pub fn create_run(&self, pipeline: &str, resolved_yaml: &str, record: &RunRecord) -> Result<RunDir> {
        let parent = self.pipeline_folder(pipeline)?;
        let run = loop {
            let id = new_run_id(Timestamp::now());
            let path = parent.join(&id);
            match fs::create_dir(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                created => {
                    created.with_context(|| format!("creating the folder {}", path.display()))?;
                    break RunDir { _lock: lock(&path.join(LOCK))?, path, id };
                }
            }
        };
        files::write(&run.path.join(PIPELINE), &seal_yaml(resolved_yaml.as_bytes()), Durability::Unsynced)?;
        // The record is written last, because a folder without one is not a run.
        run.update(&RunRecord { pipeline: pipeline.to_string(), ..record.clone() })?;
        Ok(run)
    }

    /// Adds a run that finished elsewhere, atomically, with links to `outputs`, which lists stage names with their
    /// results. The names must be checked.
    pub(super) fn add_run(
        &self,
        record: &RunRecord,
        resolved_yaml: &[u8],
        outputs: &[(&str, Artifact)],
    ) -> Result<RunDir> {
        let is_new = !self.runs_dir().join(&record.pipeline).exists();
        let had_runs = self.latest_run(&record.pipeline).is_some();
        let parent = self.pipeline_folder(&record.pipeline)?;
        let add = || {
            // Readers ignore it until it is renamed; on failure it is removed.
            let shared = Permissions::from_mode(0o777);
            let staged = tempfile::Builder::new().prefix(files::TEMPORARY).permissions(shared).tempdir_in(&parent);
            let staged = staged.with_context(|| format!("creating a folder in {}", parent.display()))?;
            let run = RunDir { path: staged.path().to_path_buf(), id: record.id.clone(), _lock: None };
            files::write(&run.path.join(PIPELINE), &seal_yaml(resolved_yaml), Durability::Unsynced)?;
            outputs.iter().try_for_each(|(stage, outputs)| run.link_stage(stage, outputs).map(drop))?;
            run.update(record)?;
            let path = parent.join(&record.id);
            fs::rename(&run.path, &path).with_context(|| format!("creating the folder {}", path.display()))?;
            let _ = staged.keep();
            let run = RunDir { path, ..run };
            if !had_runs {
                run.make_latest().inspect_err(|_| drop(fs::remove_dir_all(&run.path)))?;
            }
            Ok(run)
        };
        add().inspect_err(|_| {
            if is_new {
                // Fails if another process has added files to it in the meantime, which is fine.
                let _ = fs::remove_dir(&parent);
            }
        })
    }

    /// Returns the folder of a pipeline's runs, creating it if necessary.
    fn pipeline_folder(&self, pipeline: &str) -> Result<PathBuf> {
        files::check_name("the pipeline's name", pipeline)?;
        if pipeline == "store" {
            bail!("a pipeline cannot be named \"store\", because runs/store holds the artifacts; rename the pipeline");
        }
        let folder = self.runs_dir().join(pipeline);
        files::create_folder(&folder)?;
        if fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_symlink()) {
            bail!("{} is a link, which srpipe does not follow: remove it", folder.display());
        }
        Ok(folder)
    }

    /// Returns the names of all pipelines that have runs, sorted.
    pub fn pipelines(&self) -> Vec<String> {
        let mut names = folders(self.runs_dir());
        names.retain(|name| name != "store" && !self.runs(name).is_empty());
        names
    }

    /// Returns the runs of a pipeline, the oldest first.
    pub fn runs(&self, pipeline: &str) -> Vec<RunDir> {
        if files::check_name("the pipeline's name", pipeline).is_err() {
            return vec![];
        }
        let parent = self.runs_dir().join(pipeline);
        // A link could lead anywhere.
        if !files::is_folder(&parent) {
            return vec![];
        }
        folders(&parent).into_iter().filter_map(|id| RunDir::at(&parent, id)).collect()
    }

    /// Returns the run that the link `latest` points to, or the newest run if the link is invalid.
    pub fn latest_run(&self, pipeline: &str) -> Option<RunDir> {
        let runs = self.runs(pipeline);
        let named = fs::read_link(self.runs_dir().join(pipeline).join(LATEST)).ok();
        let named = runs.iter().find(|run| named.as_deref() == Some(Path::new(&run.id)));
        named.or(runs.last()).cloned()
    }
}

impl RunDir {
    /// Returns the run with this id; None if the folder has no record.
    fn at(parent: &Path, id: String) -> Option<Self> {
        let path = parent.join(&id);
        path.join(RECORD).is_file().then_some(Self { path, id, _lock: None })
    }

    /// Returns the run in this folder, whether or not it has a record.
    pub(super) fn of_folder(path: &Path) -> Option<Self> {
        let id = path.file_name()?.to_str()?.to_string();
        Some(Self { path: path.to_path_buf(), id, _lock: None })
    }

    /// The start time in UTC, and four random letters. Ids sort by time.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the resolved pipeline.
    pub fn resolved(&self) -> Result<Vec<u8>> {
        let path = self.path.join(PIPELINE);
        let bytes = files::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = unseal_yaml(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(text.to_vec())
    }

    /// Reads the record.
    pub fn record(&self) -> Result<RunRecord> {
        let path = self.path.join(RECORD);
        let bytes = files::read(&path).with_context(|| format!("reading {}", path.display()))?;
        RunRecord::from_json(&bytes).with_context(|| {
            let cancel = match self.has_jobs_dir() {
                true => format!("cancel its jobs with `srpipe cancel {}`, then remove", self.id),
                false => "remove".to_string(),
            };
            format!(
                "{} is damaged: {cancel} the folder of this run; its results stay in the store until `srpipe gc`",
                path.display()
            )
        })
    }

    /// Whether the process of the run is alive, on any machine. If the record says `Running` but the run is not live,
    /// the process was killed.
    pub fn is_live(&self) -> bool {
        is_held(&self.path.join(LOCK))
    }

    /// Whether a run's folder has neither a record nor a live process.
    pub(super) fn is_abandoned(path: &Path) -> bool {
        fs::symlink_metadata(path.join(RECORD)).is_err() && !is_held(&path.join(LOCK))
    }

    /// Takes over a run whose process has exited. None if it is still alive.
    pub fn take_over(&self) -> Result<Option<Self>> {
        let taken = lock(&self.path.join(LOCK))?;
        Ok(taken.map(|lock| Self { _lock: Some(lock), ..self.clone() }))
    }

    /// Whether `gc` always keeps the run.
    pub fn is_pinned(&self) -> bool {
        self.path.join(PINNED).exists()
    }

    pub fn pin(&self) -> Result<()> {
        files::write(&self.path.join(PINNED), b"", Durability::Synced)
    }

    pub fn unpin(&self) -> Result<()> {
        let path = self.path.join(PINNED);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("removing {}", path.display())),
        }
    }

    /// Writes a file to the run's folder; returns its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        files::check_name("the file's name", name)?;
        // Writing would create the folder again.
        ensure!(self.path.join(RECORD).exists(), "the run {} was removed", self.id);
        if !is_reserved_stage(name) {
            bail!("{name:?} is not a reserved stage name, so a stage's folder could conflict with it");
        }
        let path = self.path.join(name);
        files::write(&path, bytes, Durability::Unsynced)?;
        Ok(path)
    }

    /// Replaces the record.
    pub fn update(&self, record: &RunRecord) -> Result<()> {
        let record = RunRecord { id: self.id.clone(), ..record.clone() };
        files::write(&self.path.join(RECORD), &record.to_json()?, Durability::Unsynced)
    }

    /// Creates the stage's folder with a link to each blob. Returns how many links were missing or wrong.
    pub fn link_stage(&self, stage: &str, outputs: &Artifact) -> Result<usize> {
        files::check_name("the stage's name", stage)?;
        if is_reserved_stage(stage) {
            bail!("a stage cannot be named {stage:?}: the name is reserved for a file of the run");
        }
        let folder = self.path.join(stage);
        let mut created = 0;
        match fs::create_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && files::is_folder(&folder) => {}
            created => created.with_context(|| format!("creating the folder {}", folder.display()))?,
        }
        for (name, digest) in outputs {
            files::check_name("blob", name)?;
            // From runs/<pipeline>/<run-id>/<stage>/: relative, so that `runs` can be moved.
            let target = Path::new("../../../store/blobs").join(digest.shard()).join(digest.as_str());
            let link = folder.join(name);
            if fs::read_link(&link).ok().as_deref() != Some(&target) {
                replace_link(&target, &link)?;
                created += 1;
            }
        }
        Ok(created)
    }

    /// Returns the blobs that the links in the stages' folders point to.
    pub(super) fn linked(&self) -> BTreeSet<Digest> {
        let links = files::entries(&self.path).into_iter().flat_map(|stage| files::entries(&stage));
        links.filter_map(|link| fs::read_link(link).ok()?.file_name()?.to_str()?.parse().ok()).collect()
    }

    /// Points the link `latest` to this run unless the link exists.
    pub(super) fn make_latest_if_missing(&self) -> Result<()> {
        let is_there = fs::symlink_metadata(self.path.with_file_name(LATEST)).is_ok();
        if is_there { Ok(()) } else { self.make_latest() }
    }

    /// Points the link `latest` to this run.
    pub fn make_latest(&self) -> Result<()> {
        replace_link(Path::new(&self.id), &self.path.with_file_name(LATEST))
    }
}

/// Creates a run id, such as `20261123-083227.123-k3xa`.
fn new_run_id(now: Timestamp) -> String {
    // Random letters from std's randomly seeded hash.
    let mut bits = RandomState::new().build_hasher().finish();
    let letters = std::iter::repeat_with(|| {
        let letter = b'a' + (bits % 26) as u8;
        bits /= 26;
        char::from(letter)
    });
    format!("{}-{}", now.strftime("%Y%m%d-%H%M%S.%3f"), letters.take(4).collect::<String>())
}

/// Whether a name has the form of a run id.
pub fn is_run_id(name: &str) -> bool {
    let form = "dddddddd-dddddd.ddd-llll";
    let fits = |(c, form): (char, char)| match form {
        'd' => c.is_ascii_digit(),
        'l' => c.is_ascii_lowercase() || c.is_ascii_digit(),
        _ => c == form,
    };
    name.len() == form.len() && name.chars().zip(form.chars()).all(fits)
}

/// Locks a run. None if another process holds the lock, or on file systems without locks, where runs never count as
/// live.
fn lock(path: &Path) -> Result<Option<Arc<File>>> {
    let file = files::open_own(path, File::options().create(true).write(true).truncate(false));
    let file = file.with_context(|| format!("creating {}", path.display()))?;
    // Processes that check whether the run is live hold the lock for a moment.
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Arc::new(file))),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
    Ok(None)
}

/// Creates or replaces a link atomically.
fn replace_link(target: &Path, path: &Path) -> Result<()> {
    let folder = files::folder_of(path);
    let created = tempfile::Builder::new().prefix(files::TEMPORARY).make_in(folder, |at| symlink(target, at));
    let created = created.with_context(|| format!("creating a link in {}", folder.display()))?;
    created.persist(path).map_err(|e| e.error).with_context(|| format!("linking {}", path.display()))?;
    Ok(())
}

/// Returns the names of the subfolders, sorted, without links and hidden folders.
fn folders(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    let mut names: Vec<String> = folders.filter_map(|f| f.file_name().to_str().map(str::to_string)).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExecutorKind, StageKind};
    use crate::runs::{JobRecord, Machine, RunState, StageRecord, StageRunState};
    use crate::store::Key;
    use crate::store::testing::{eventually, store, temporaries};

    fn record() -> RunRecord {
        RunRecord {
            id: String::new(),
            pipeline: String::new(),
            file: Some("pipelines/a.yaml".into()),
            state: RunState::Running,
            started_at: "2026-11-23T08:32:27Z".to_string(),
            finished_at: None,
            seconds: None,
            pid: 1,
            srpipe_version: "0".to_string(),
            machine: Some(Machine { cores: 2, ..Machine::default() }),
            executor: ExecutorKind::Local,
            command: vec!["srpipe".to_string(), "run".to_string()],
            stages: vec![StageRecord {
                name: "train".to_string(),
                kind: StageKind::Train,
                key: Some(Key::of(b"")),
                state: StageRunState::Ran,
                seconds: Some(0.1),
                metrics: [("psnr".to_string(), f64::INFINITY)].into(),
                error: None,
                job: Some(JobRecord::queued("7_1", "Priority")),
            }],
        }
    }

    #[test]
    fn a_run_is_recorded_and_found() {
        let (_folder, store) = store();
        assert_eq!((store.pipelines().len(), store.runs("a").len()), (0, 0));
        assert!(store.latest_run("a").is_none());
        let run = store.create_run("a", "name: a\n", &record()).unwrap();
        let mut expected = RunRecord { id: run.id().to_string(), pipeline: "a".to_string(), ..record() };
        assert_eq!(run.record().unwrap(), expected);
        assert_eq!(run.resolved().unwrap(), b"name: a\n");
        expected.state = RunState::Ok;
        run.update(&expected).unwrap();
        assert_eq!(store.latest_run("a").unwrap().record().unwrap(), expected);
        store.create_run("b", "", &record()).unwrap();
        assert_eq!(store.pipelines(), ["a", "b"]);
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn runs_sort_by_time() {
        let id = |time: &str| new_run_id(time.parse().unwrap());
        let first = id("2026-11-23T08:32:27.123456Z");
        assert!(first.starts_with("20261123-083227.123-") && first.len() == 24, "{first}");
        assert!(first.bytes().rev().take(4).all(|b| b.is_ascii_lowercase()), "{first}");
        assert!(is_run_id(&first));
        let wrong = ["latest", "", "20261123-083227.123-K3XA", "20261123-083227.123-k3xab", "2026112x-083227.123-kxxa"];
        assert!(!wrong.into_iter().any(is_run_id));
        let ids = [first, id("2026-11-23T08:32:27.2Z"), id("2026-11-23T08:32:28Z"), id("2027-01-01T00:00:00Z")];
        assert!(ids.is_sorted());
        let distinct: std::collections::HashSet<_> = (0..50).map(|_| id("2026-11-23T08:32:27Z")).collect();
        assert!(distinct.len() > 40, "{}", distinct.len());
    }

    #[test]
    fn latest_is_the_linked_run_or_the_newest() {
        let (_folder, store) = store();
        let runs: Vec<_> = (0..3)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                store.create_run("a", "", &record()).unwrap()
            })
            .collect();
        let latest = || store.latest_run("a").unwrap().id().to_string();
        assert_eq!(
            store.runs("a").iter().map(RunDir::id).collect::<Vec<_>>(),
            runs.iter().map(RunDir::id).collect::<Vec<_>>()
        );
        assert_eq!(latest(), runs[2].id());
        for run in [&runs[1], &runs[0]] {
            run.make_latest().unwrap();
            assert_eq!(latest(), run.id());
            assert_eq!(fs::read_link(store.runs_dir().join("a/latest")).unwrap(), Path::new(run.id()));
        }
        fs::remove_dir_all(runs[0].path()).unwrap();
        assert_eq!(latest(), runs[2].id(), "latest names a run that was deleted");
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn links_to_blobs_survive_moving_the_folder() {
        let (folder, store) = store();
        let run = store.create_run("a", "", &record()).unwrap();
        let artifact = |bytes: &[u8]| Artifact::from([("loss.csv".to_string(), store.put(bytes).unwrap())]);
        run.link_stage("train[seed=0]", &artifact(b"old")).unwrap();
        run.link_stage("train[seed=0]", &artifact(b"new")).unwrap();
        run.make_latest().unwrap();
        fs::rename(folder.path().join("runs"), folder.path().join("moved")).unwrap();
        assert_eq!(fs::read(folder.path().join("moved/a/latest/train[seed=0]/loss.csv")).unwrap(), b"new");
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let (_folder, store) = store();
        for bad in ["store", "..", "a/b", "/tmp", ""] {
            assert!(store.create_run(bad, "", &record()).is_err(), "{bad}");
        }
        let run = store.create_run("a", "", &record()).unwrap();
        let outputs = Artifact::from([("../out".to_string(), store.put(b"").unwrap())]);
        assert!(run.link_stage("train", &outputs).is_err());
        assert!(run.link_stage("../train", &Artifact::new()).is_err());
        // The name of an existing file.
        assert!(run.link_stage("run.json", &Artifact::new()).is_err());
        assert!(store.runs("..").is_empty() && store.latest_run("a/../a").is_none());
    }

    #[test]
    fn folders_that_are_not_runs_are_ignored() {
        let (_folder, store) = store();
        let run = store.create_run("a", "", &record()).unwrap();
        fs::create_dir_all(store.runs_dir().join("a/notes")).unwrap();
        fs::create_dir_all(store.runs_dir().join("somebody's/folder")).unwrap();
        fs::write(store.runs_dir().join("file"), b"").unwrap();
        assert_eq!(store.pipelines(), ["a"]);
        assert_eq!(store.runs("a").len(), 1);
        fs::write(run.path().join("run.json"), b"{").unwrap();
        let error = format!("{:#}", run.record().unwrap_err());
        assert!(error.contains("run.json is damaged"), "{error}");
    }

    #[test]
    fn a_run_is_live_while_its_lock_is_held() {
        let (_folder, store) = store();
        let run = store.create_run("a", "", &record()).unwrap();
        let clone = run.clone();
        let seen = store.latest_run("a").unwrap();
        assert!(seen.is_live() && run.is_live());
        drop(run);
        assert!(seen.is_live());
        drop(clone);
        assert!(eventually(|| !seen.is_live()));
    }
}
