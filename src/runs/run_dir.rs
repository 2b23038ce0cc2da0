//! The folder of a run: its record, its resolved pipeline, and links to the outputs of its stages.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::RunRecord;
use crate::config::names::is_reserved_stage;
use crate::store::files::{self, Durability};
use crate::store::seal::{seal_yaml, unseal_yaml};
use crate::store::{Artifact, Digest, is_held};

pub(super) const RECORD: &str = "run.json";
const PIPELINE: &str = "pipeline.yaml";
/// The link to the newest run, in the folder of a pipeline.
pub(super) const LATEST: &str = "latest";
pub(super) const LOCK: &str = ".lock";
const PINNED: &str = ".pinned";

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    id: String,
    /// The lock of a live run, shared by all clones in the process that runs it.
    _lock: Option<Arc<File>>,
}

impl RunDir {
    /// Returns the run in a new folder, locked by this process.
    pub(super) fn locked(path: PathBuf, id: String) -> Result<Self> {
        Ok(Self { _lock: lock(&path.join(LOCK))?, path, id })
    }

    /// Returns the run in a folder, whether or not it has a record.
    pub(super) fn unlocked(path: PathBuf, id: String) -> Self {
        Self { path, id, _lock: None }
    }

    /// Returns the same run after its folder was moved to `path`.
    pub(super) fn moved_to(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// Returns the run in this folder, whether or not it has a record.
    pub(super) fn of_folder(path: &Path) -> Option<Self> {
        let id = path.file_name()?.to_str()?.to_string();
        Some(Self { path: path.to_path_buf(), id, _lock: None })
    }

    /// Returns the id: the start time in UTC and four random letters. Ids sort by time.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the resolved pipeline.
    pub(super) fn write_resolved(&self, yaml: &[u8]) -> Result<()> {
        files::write(&self.path.join(PIPELINE), &seal_yaml(yaml), Durability::Unsynced)
    }

    /// Reads the resolved pipeline.
    pub fn resolved(&self) -> Result<Vec<u8>> {
        self.check_folder()?;
        let path = self.path.join(PIPELINE);
        let bytes = files::read_record(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = unseal_yaml(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(text.to_vec())
    }

    /// Whether the process of the run is alive, on any machine. If the record says `Running` but the run is not live,
    /// the process was killed.
    pub fn is_live(&self) -> bool {
        is_held(&self.path.join(LOCK))
    }

    /// Takes over a run whose process has exited. None if it is still alive.
    pub fn take_over(&self) -> Result<Option<Self>> {
        self.check_folder()?;
        let taken = lock(&self.path.join(LOCK))?;
        Ok(taken.map(|lock| Self { _lock: Some(lock), ..self.clone() }))
    }

    /// Whether `gc` always keeps the run.
    pub(super) fn is_pinned(&self) -> bool {
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

    /// Writes a file to the run's folder and returns its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        files::check_name("the file's name", name)?;
        self.check_folder()?;
        // Otherwise, writing would create the folder again.
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
        self.check_folder()?;
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
    pub(super) fn linked_blobs(&self) -> BTreeSet<Digest> {
        let links = files::entries(&self.path).into_iter().flat_map(|stage| files::entries(&stage));
        links.filter_map(|link| fs::read_link(link).ok()?.file_name()?.to_str()?.parse().ok()).collect()
    }

    /// Points the link `latest` to this run unless the link exists.
    pub(super) fn make_latest_if_missing(&self) -> Result<()> {
        let exists = fs::symlink_metadata(self.path.with_file_name(LATEST)).is_ok();
        if exists { Ok(()) } else { self.make_latest() }
    }

    /// Points the link `latest` to this run.
    pub fn make_latest(&self) -> Result<()> {
        replace_link(Path::new(&self.id), &self.path.with_file_name(LATEST))
    }
}

/// Locks a run. None if another process holds the lock, or on file systems without locks, where runs never count as
/// live.
fn lock(path: &Path) -> Result<Option<Arc<File>>> {
    ensure!(!files::is_folder(path), "{} is a folder: remove it", path.display());
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
    let folder = files::parent_folder(path);
    let created = tempfile::Builder::new().prefix(files::TEMPORARY).make_in(folder, |at| symlink(target, at));
    let created = created.with_context(|| format!("creating a link in {}", folder.display()))?;
    created.persist(path).map_err(|e| e.error).with_context(|| format!("linking {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::testing::record;
    use crate::store::testing::{eventually, store};

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
        // The name of a file that exists.
        assert!(run.link_stage("run.json", &Artifact::new()).is_err());
        assert!(store.runs("..").is_empty() && store.latest_run("a/../a").is_none());
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
