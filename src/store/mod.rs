//! A content-addressed store of blobs and actions under `runs/store`, with locks and garbage collection.
//!
//! ```text
//! runs/
//!   CACHEDIR.TAG
//!   store/blobs/ab/<sha256>          read-only content
//!   store/actions/ab/<key>.json      what produced it: key preimage, outputs, metrics, cost. The commit point.
//!   store/work/<key>/                live: lock, beat, lease, seconds, events.jsonl, log.txt, the stage's checkpoint
//!   store/logs/ab/<key>.{log,jsonl}  log and events of finished work
//!   store/stat-cache.json            digests of external files
//!   store/gc.lock                    locked by processes that rely on results (shared) and by gc (exclusive)
//! ```
//!
//! These invariants hold whenever a process is killed, and for any number of processes that share the folder:
//!
//! - Files outside `work` are written to a temporary sibling (`.tmp-…`) and renamed, so they are never incomplete. Blobs
//!   and actions are synced first, so that they survive a power failure; records of runs are not, for speed.
//! - An action is written after its blobs, so a cached key has its blobs. Blobs without an action are harmless.
//! - Garbage collection does not remove what a live run or worker relies on; see `gc_guard`.
//! - Blobs are verified against their names when read. Rerunning the stage repairs damage.
//! - Names from outside and links never lead out of the folder.

mod actions;
mod blobs;
mod canonical;
#[cfg(test)]
mod crash_tests;
mod digest;
pub mod files;
mod gc;
mod gc_guard;
mod heartbeat;
mod import;
pub mod json_float;
mod lock;
pub mod seal;
mod stat_cache;
#[cfg(test)]
pub mod testing;
mod verify;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

pub use blobs::{ReadError, hash_file};
pub use canonical::canonical_json;
pub use digest::{Digest, Hasher, Key};
use files::Durability;
pub use files::{
    host, open as open_file, open_log, open_own, read as read_file, read_record, remove_folder,
    write_synced as write_file,
};
pub use gc::Collected;
pub use gc_guard::GcGuard;
pub use import::{MAX_RECORD_BYTES, Record};
pub use lock::{KeyLock, is_held};
pub use verify::{Contents, Problem, Verified};

/// The outputs of a stage: blobs by name.
pub type Artifact = BTreeMap<String, Digest>;

/// The record of how an artifact was produced. A key is cached if it has an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The value that was hashed into the key.
    pub preimage: serde_json::Value,
    pub outputs: Artifact,
    #[serde(with = "json_float")]
    pub metrics: BTreeMap<String, f64>,
    pub cost: Cost,
}

/// The cost of producing an artifact.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The total time of all attempts.
    pub seconds: f64,
    /// RFC 3339.
    pub finished_at: String,
    pub host: String,
    pub srpipe_version: String,
}

/// The artifacts in a `runs/` folder. Threads and processes can share it.
#[derive(Debug)]
pub struct Store {
    runs: PathBuf,
    /// The lease file of this process, which lists the blobs that it adds; see `gc_guard`.
    lease: Mutex<Option<File>>,
    /// Folders of the store that have been checked: they are not links.
    checked: Mutex<HashSet<PathBuf>>,
    /// Damaged files that were discarded; see [`Store::take_warnings`].
    warnings: Mutex<Vec<String>>,
}

/// A tag that makes backup programs skip the folder; see https://bford.info/cachedir/.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This folder holds results of srpipe, which can be computed again.\n";

/// Whether a folder contains srpipe results, judging by its `CACHEDIR.TAG`.
pub fn is_results_folder(folder: &Path) -> bool {
    let mut start = vec![];
    let tag = File::open(folder.join("CACHEDIR.TAG")).and_then(|tag| tag.take(1024).read_to_end(&mut start));
    let signature = CACHEDIR_TAG.lines().next().unwrap_or_default();
    tag.is_ok() && start.starts_with(signature.as_bytes()) && start.windows(6).any(|word| word == b"srpipe")
}

impl Store {
    /// Opens the store in `runs` and creates it if necessary. Fails if it is not writable.
    pub fn open(runs: &Path) -> Result<Self> {
        let store = Self::at(runs);
        let tag = runs.join("CACHEDIR.TAG");
        let folder = runs.join("store");
        let create = || {
            files::create_folder(&folder)?;
            if !tag.exists() { files::write(&tag, CACHEDIR_TAG.as_bytes(), Durability::Unsynced) } else { Ok(()) }
        };
        create().with_context(|| {
            format!("cannot store results in {}; choose another folder with --runs-dir", runs.display())
        })?;
        for folder in [runs, &folder] {
            if access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
                bail!(
                    "{} is not writable: change its permissions, or choose another folder with --runs-dir",
                    folder.display()
                );
            }
        }
        Ok(store)
    }

    /// Opens the store in `runs` for reading, without creating anything. None if it does not exist.
    pub fn open_existing(runs: &Path) -> Option<Self> {
        let store = Self::at(runs);
        runs.join("store").is_dir().then_some(store)
    }

    /// Like [`Store::open_existing`], but also opens a store whose results folder was deleted, for commands that only
    /// read the records of runs.
    pub fn open_records(runs: &Path) -> Option<Self> {
        Self::open_existing(runs).or_else(|| Some(Self::at(runs)).filter(|store| !store.pipelines().is_empty()))
    }

    /// Whether the results folder exists.
    pub fn has_results(&self) -> bool {
        self.runs.join("store").is_dir()
    }

    fn at(runs: &Path) -> Self {
        Self {
            runs: runs.to_path_buf(),
            lease: Mutex::new(None),
            checked: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    /// Returns the warnings that were added since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a warning, unless the same warning is pending.
    pub fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    pub fn runs_dir(&self) -> &Path {
        &self.runs
    }

    /// Returns the path of a folder or file in `runs/store`.
    fn folder(&self, name: &str) -> PathBuf {
        self.runs.join("store").join(name)
    }

    /// Opens a file of the store for reading and returns it with its size.
    fn open_file(&self, path: &Path) -> io::Result<(File, u64)> {
        self.check_folder(files::parent_folder(path))?;
        files::open(path)
    }

    /// Reads a file of the store.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.check_folder(files::parent_folder(path))?;
        files::read(path)
    }

    /// Reads a record of the store. Fails if it is larger than any valid record.
    fn read_record(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.check_folder(files::parent_folder(path))?;
        files::read_record(path)
    }

    /// Writes a file of the store atomically.
    fn write_file(&self, path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
        let mut file = self.temporary(files::parent_folder(path))?;
        file.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
        files::publish(file, path, durability)
    }

    /// Creates a temporary file in a folder of the store, and the folder if necessary.
    fn temporary(&self, folder: &Path) -> Result<NamedTempFile> {
        self.create_folder(folder)?;
        files::temporary(folder)
    }

    fn create_folder(&self, folder: &Path) -> Result<()> {
        match self.check_folder(folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => files::create_folder(folder),
            checked => checked.with_context(|| format!("opening the folder {}", folder.display())),
        }
    }

    /// Fails unless `folder` and its parents up to `runs/store` are folders and not links.
    fn check_folder(&self, folder: &Path) -> io::Result<()> {
        let Ok(below) = folder.strip_prefix(self.folder("")) else { return Ok(()) };
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folder = self.folder("");
        for name in below {
            folder.push(name);
            if checked.contains(&folder) {
                continue;
            }
            let metadata = fs::symlink_metadata(&folder)?;
            if metadata.is_symlink() {
                let reason = format!("{} is a link, which srpipe does not follow: remove it", folder.display());
                return Err(io::Error::new(ErrorKind::InvalidData, reason));
            }
            if !metadata.is_dir() {
                return Err(io::Error::new(ErrorKind::NotADirectory, format!("{} is not a folder", folder.display())));
            }
            checked.insert(folder.clone());
        }
        Ok(())
    }
}

/// Whether this version of srpipe wrote records without checksums.
pub fn predates_seals(version: &str) -> bool {
    version == "0.1.0"
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    use super::testing::{action, another_process, key, store, temporaries};
    use super::*;

    #[test]
    fn threads_share_a_store() {
        fn is_sync<T: Sync + Send>() {}
        is_sync::<Store>();
    }

    #[test]
    fn opening_creates_the_folder_once_and_then_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("deep/runs");
        assert!(Store::open_existing(&runs).is_none());
        assert!(!runs.exists());
        Store::open(&runs).unwrap();
        let tag = fs::read_to_string(runs.join("CACHEDIR.TAG")).unwrap();
        assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"), "{tag}");
        assert!(!tag.contains("    "));
        let times = || [&runs, &runs.join("store")].map(|path| fs::metadata(path).unwrap().modified().unwrap());
        let before = times();
        assert_eq!(Store::open(&runs).unwrap().runs_dir(), runs);
        assert!(Store::open_existing(&runs).is_some());
        assert_eq!(times(), before);
    }

    #[test]
    fn errors_when_creating_the_folder_suggest_another_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        for runs in ["file", "file/runs"] {
            let runs = folder.path().join(runs);
            let error = format!("{:#}", Store::open(&runs).unwrap_err());
            assert!(error.contains(&runs.display().to_string()) && error.contains("--runs-dir"), "{error}");
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Sets the mode of every folder, and makes files readable by all.
    fn set_folder_modes(folder: &Path, mode: u32) {
        set_mode(folder, 0o755);
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            match entry.file_type().unwrap().is_dir() {
                true => set_folder_modes(&entry.path(), mode),
                false => set_mode(&entry.path(), 0o444),
            }
        }
        set_mode(folder, mode);
    }

    #[test]
    fn a_read_only_store_can_be_read_but_not_written() {
        let (folder, store) = store();
        let committed = action(&store, "key", &[("a", b"1")]);
        store.commit(&key("key"), &committed).unwrap();
        // Root ignores permissions, so run as another user, with a copy of the program that this user can execute. Copy
        // it with `cp`: if this process had the copy open for writing, a process that another test starts at the same
        // time would inherit the open file, and executing the copy would fail ("text file busy").
        let program = folder.path().join("tests");
        let original = std::env::current_exe().unwrap();
        assert!(std::process::Command::new("cp").args([&original, &program]).status().unwrap().success());
        [folder.path(), &program].iter().for_each(|path| set_mode(path, 0o755));
        set_folder_modes(store.runs_dir(), 0o555);
        let original = another_process("store::tests::read_a_read_only_folder");
        let mut command = std::process::Command::new(&program);
        command.args(original.get_args()).env("SRPIPE_TEST_RUNS", store.runs_dir());
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        let output = command.current_dir("/").output().unwrap();
        set_folder_modes(store.runs_dir(), 0o755);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    #[ignore = "run by a_read_only_store_can_be_read_but_not_written, as another user"]
    fn read_a_read_only_folder() {
        let Some(runs) = std::env::var_os("SRPIPE_TEST_RUNS") else { return };
        let error = Store::open(Path::new(&runs)).unwrap_err().to_string();
        assert!(error.contains("is not writable") && error.contains("--runs-dir"), "{error}");
        let store = Store::open_existing(Path::new(&runs)).unwrap();
        let cached = store.action(&key("key")).unwrap().unwrap();
        assert_eq!(store.read(&cached.outputs["a"]).unwrap(), b"1");
        assert!(store.put(b"new").is_err());
    }

    #[test]
    fn links_in_place_of_folders_are_not_followed() {
        for name in ["blobs", "blobs/6b", "actions", "logs", "work"] {
            let (folder, store) = store();
            let outside = folder.path().join("outside");
            fs::create_dir(&outside).unwrap();
            let path = store.folder(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&outside, &path).unwrap();
            // The digest of `1` begins with 6b.
            let committed = Action { outputs: Artifact::new(), ..action(&super::testing::store().1, "key", &[]) };
            let errors = [
                store.put(b"1").err(),
                store.commit(&key("key"), &committed).err(),
                store
                    .lock(&key("key"))
                    .and_then(|lock| {
                        fs::write(store.work_dir(&key("key")).join("log.txt"), b"log").unwrap();
                        store.clean_work(lock)
                    })
                    .err(),
            ];
            let errors: Vec<String> = errors.into_iter().flatten().map(|error| format!("{error:#}")).collect();
            assert!(errors.len() == 1 && errors[0].contains("is a link"), "{name}: {errors:?}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    fn files_left_by_a_killed_process_are_harmless() {
        let (_folder, store) = store();
        let committed = action(&store, "key", &[("a", b"1")]);
        let key = key("key");
        store.commit(&key, &committed).unwrap();
        let blob = store.blob_path(&committed.outputs["a"]);
        fs::write(blob.with_file_name(".tmp-abc"), b"half a bl").unwrap();
        fs::write(store.runs.join("store/actions").join(key.shard()).join(".tmp-def"), b"{\"key").unwrap();
        fs::create_dir_all(store.folder("work/.tmp-ghi/work")).unwrap();
        fs::create_dir_all(store.runs.join("a/.tmp-jkl")).unwrap();
        assert_eq!(store.action(&key).unwrap(), Some(committed));
        assert_eq!(store.put(b"1").unwrap(), Digest::of(b"1"));
        store.clean_work(store.lock(&key).unwrap()).unwrap();
        assert!(store.pipelines().is_empty());
        assert_eq!(temporaries(&store), 4);
    }
}
