//! Locks, which ensure that each key has one writer. A process locks the file `work/<key>/lock`; the operating system
//! releases the lock when the process exits. A heartbeat replaces locks that do not work across machines; see
//! `heartbeat`.
//!
//! The holder of a lock may rename the work folder. A process that waited for the old lock file then holds a useless
//! lock, so after acquiring a lock, every process checks that the path still refers to the file that it locked.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Key, Store, files};
use crate::store::heartbeat::{Heartbeat, TIMEOUT, Wait};

/// The lock of a key; released when dropped.
#[derive(Debug)]
pub struct KeyLock {
    key: Key,
    /// Dropped before the file is unlocked.
    heartbeat: Heartbeat,
    _file: File,
}

impl KeyLock {
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

/// The process that holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    pid: u32,
    pub(super) host: String,
    /// The id of its batch job, if it runs in one.
    job: Option<String>,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)?;
        self.job.iter().try_for_each(|job| write!(f, ", job {job}"))
    }
}

/// The maximum number of attempts to lock a folder that is renamed in the meantime. Each time, another process has
/// completed its work; more attempts mean that the file system does not preserve inode numbers.
const ATTEMPTS: usize = 1000;

impl Store {
    /// Returns the work folder of a key, which exists while a process works on it.
    pub fn work_dir(&self, key: &Key) -> PathBuf {
        self.folder("work").join(key.as_str())
    }

    /// Returns the path of a key's log: the live one if it exists, otherwise the archived one.
    pub fn log_path(&self, key: &Key) -> PathBuf {
        self.live_or_archived(key, "log.txt", "log")
    }

    /// Returns the path of a key's events, like [`log_path`](Self::log_path).
    pub fn events_path(&self, key: &Key) -> PathBuf {
        self.live_or_archived(key, "events.jsonl", "jsonl")
    }

    fn live_or_archived(&self, key: &Key, live: &str, extension: &str) -> PathBuf {
        let live = self.work_dir(key).join(live);
        if live.exists() { live } else { self.archived_path(key, extension) }
    }

    fn archived_path(&self, key: &Key, extension: &str) -> PathBuf {
        self.folder("logs").join(key.shard()).join(format!("{key}.{extension}"))
    }

    /// Returns the archived log and events of a key.
    pub(super) fn archived_logs(&self, key: &Key) -> [PathBuf; 2] {
        [self.archived_path(key, "log"), self.archived_path(key, "jsonl")]
    }

    /// Acquires the lock of a key and creates its work folder. None if another process, or another lock of this
    /// process, holds the key.
    pub fn try_lock(&self, key: &Key) -> Result<Option<KeyLock>> {
        self.acquire(key, Wait::No, TIMEOUT)
    }

    /// Like [`try_lock`](Self::try_lock), but assumes that a holder on another machine has exited.
    pub(super) fn try_lock_stopped(&self, key: &Key) -> Result<Option<KeyLock>> {
        self.acquire(key, Wait::No, Duration::ZERO)
    }

    /// Acquires the lock of a key and creates its work folder. Waits if another process holds it.
    pub fn lock(&self, key: &Key) -> Result<KeyLock> {
        Ok(self.acquire(key, Wait::Yes, TIMEOUT)?.expect("waiting returns a lock or an error"))
    }

    /// Returns the last process that acquired the key. Only `try_lock` can determine whether it still holds the key.
    pub fn lock_holder(&self, key: &Key) -> Option<LockHolder> {
        let text = files::read_text(&self.work_dir(key).join("lock")).ok()?;
        let mut words = text.split_whitespace().map(str::to_string);
        Some(LockHolder { pid: words.next()?.parse().ok()?, host: words.next()?, job: words.next() })
    }

    /// Acquires the lock of a key. A holder on another machine has lost it once its heartbeat has not changed for
    /// `timeout`.
    fn acquire(&self, key: &Key, wait: Wait, timeout: Duration) -> Result<Option<KeyLock>> {
        let folder = self.work_dir(key);
        let path = folder.join("lock");
        self.create_folder(&self.folder("work"))?;
        for _ in 0..ATTEMPTS {
            files::create_folder(&folder)?;
            match fs::symlink_metadata(&folder) {
                // The previous holder or `gc` has just moved the folder away (also below).
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Ok(metadata) if !metadata.is_dir() => {
                    bail!("{} is a link, which srpipe does not follow: remove it", folder.display())
                }
                _ => {}
            }
            let options = &mut File::options();
            let mut file = match files::open_own(&path, options.read(true).write(true).create(true).truncate(false)) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                opened => opened.with_context(|| format!("opening {}", path.display()))?,
            };
            let locked = match wait {
                Wait::Yes => lock_uninterrupted(&file, File::lock),
                Wait::No => match file.try_lock() {
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(e)) => Err(e),
                    Ok(()) => Ok(()),
                },
            };
            locked.with_context(|| {
                format!(
                    "locking {} (if its file system does not support locks, choose another one with --runs-dir)",
                    path.display()
                )
            })?;
            if is_at(&file, &path)? {
                let is_elsewhere = self.lock_holder(key).is_some_and(|holder| holder.host != files::host());
                if is_elsewhere && !self.has_stopped(key, timeout, wait) {
                    return Ok(None);
                }
                let job = std::env::var("SLURM_JOB_ID").unwrap_or_default();
                let holder = format!("{} {} {job}\n", std::process::id(), files::host());
                file.set_len(0)
                    .and_then(|()| file.write_all(holder.as_bytes()))
                    .with_context(|| format!("writing {}", path.display()))?;
                files::remove_temporaries(&folder);
                return Ok(Some(KeyLock { key: key.clone(), heartbeat: self.beat(key)?, _file: file }));
            }
        }
        bail!("locking {}: it was replaced repeatedly; choose another file system with --runs-dir", path.display())
    }

    /// Archives the log and events of finished work, removes the work folder, and releases the lock.
    pub fn clean_work(&self, lock: KeyLock) -> Result<()> {
        let _guard = self.guard()?;
        self.archive_logs(&lock.key)?;
        self.discard_work(lock)
    }

    /// Removes the work folder of a key and releases the lock. The caller must hold a [`GcGuard`](super::GcGuard).
    pub(super) fn discard_work(&self, lock: KeyLock) -> Result<()> {
        let folder = self.work_dir(&lock.key);
        let KeyLock { heartbeat, _file: file, .. } = lock;
        // Stop writing to the folder.
        drop(heartbeat);
        // Hold the lock until the folder is renamed, so that no process resumes from half-removed work.
        let moved = files::move_away(&folder)?;
        drop(file);
        files::remove_folder(&moved).with_context(|| format!("removing the finished work of {}", folder.display()))
    }

    /// Moves the log and the events of a key to the archive.
    pub(super) fn archive_logs(&self, key: &Key) -> Result<()> {
        for (live, extension) in [("log.txt", "log"), ("events.jsonl", "jsonl")] {
            let (from, to) = (self.work_dir(key).join(live), self.archived_path(key, extension));
            if from.exists() {
                self.create_folder(files::parent_folder(&to))?;
                fs::rename(&from, &to).with_context(|| format!("moving {} to {}", from.display(), to.display()))?;
            }
        }
        Ok(())
    }
}

/// Waits for a lock; retries if it is interrupted by a signal.
pub(super) fn lock_uninterrupted(file: &File, lock: fn(&File) -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock(file) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            finished => return finished,
        }
    }
}

/// Whether a process has locked a file.
pub fn is_held(path: &Path) -> bool {
    files::open(path).is_ok_and(|(file, _)| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether `path` refers to the open file.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let open = file.metadata().with_context(|| format!("reading the state of {}", path.display()))?;
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        named => {
            let named = named.with_context(|| format!("reading the state of {}", path.display()))?;
            Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{another_process, eventually, store, temporaries};
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::symlink;
    use std::process::Stdio;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key() -> Key {
        Key::of(b"a preimage")
    }

    #[test]
    fn a_key_has_one_holder() {
        let (_folder, store) = store();
        let lock = store.try_lock(&key()).unwrap().unwrap();
        assert_eq!(lock.key(), &key());
        assert!(store.try_lock(&key()).unwrap().is_none());
        assert!(store.try_lock(&Key::of(b"another")).unwrap().is_some());
        let holder = store.lock_holder(&key()).unwrap();
        assert_eq!(holder, LockHolder { pid: std::process::id(), host: files::host(), job: None });
        drop(lock);
        assert!(eventually(|| store.try_lock(&key()).unwrap().is_some()));
    }

    #[test]
    fn a_waiting_thread_gets_the_lock_when_it_is_released() {
        let (_folder, store) = store();
        let lock = store.lock(&key()).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.lock(&key()).map(drop));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            drop(lock);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn cleaning_up_archives_the_log_and_removes_the_rest() {
        let (_folder, store) = store();
        let lock = store.lock(&key()).unwrap();
        let work = store.work_dir(&key());
        fs::create_dir(work.join("deeper")).unwrap();
        for (name, content) in [("log.txt", "log"), ("events.jsonl", "{}"), ("deeper/checkpoint", "bytes")] {
            fs::write(work.join(name), content).unwrap();
        }
        assert_eq!(store.log_path(&key()), work.join("log.txt"));
        assert_eq!(store.events_path(&key()), work.join("events.jsonl"));
        store.clean_work(lock).unwrap();
        assert!(!work.exists());
        assert_eq!(temporaries(&store), 0);
        assert_eq!(fs::read_to_string(store.log_path(&key())).unwrap(), "log");
        assert_eq!(fs::read_to_string(store.events_path(&key())).unwrap(), "{}");
        // Without a new log, the archived one is kept.
        store.clean_work(store.lock(&key()).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(store.log_path(&key())).unwrap(), "log");
    }

    #[test]
    fn a_key_has_one_holder_while_others_clean_up() {
        let (_folder, store) = store();
        let inside = AtomicUsize::new(0);
        let work = |i: usize| {
            for round in 0..50 {
                let lock = match i % 2 {
                    0 => store.lock(&key()).unwrap(),
                    _ => match store.try_lock(&key()).unwrap() {
                        Some(lock) => lock,
                        None => continue,
                    },
                };
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two threads hold the key");
                // The work folder exists while the lock is held.
                fs::write(store.work_dir(&key()).join("log.txt"), b"").unwrap();
                inside.fetch_sub(1, Ordering::SeqCst);
                if (i + round).is_multiple_of(3) { drop(lock) } else { store.clean_work(lock).unwrap() }
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|i| drop(scope.spawn(move || work(i)))));
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn a_lock_is_released_when_its_process_is_killed() {
        let (_folder, store) = store();
        let mut command = another_process("store::lock::tests::hold_a_lock_until_killed");
        let mut child = command.env("SRPIPE_TEST_RUNS", store.runs_dir()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("locked")), "the other process has the lock");
        assert!(store.try_lock(&key()).unwrap().is_none());
        assert_eq!(store.lock_holder(&key()).unwrap().pid, child.id());
        fs::write(store.work_dir(&key()).join("checkpoint"), b"half").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(eventually(|| store.try_lock(&key()).unwrap().is_some()), "the lock is free");
        assert_eq!(fs::read(store.work_dir(&key()).join("checkpoint")).unwrap(), b"half", "its work can be resumed");
    }

    #[test]
    #[ignore = "run by a_lock_is_released_when_its_process_is_killed, in another process"]
    fn hold_a_lock_until_killed() {
        let Some(runs) = std::env::var_os("SRPIPE_TEST_RUNS") else { return };
        let _lock = Store::open(Path::new(&runs)).unwrap().lock(&key()).unwrap();
        println!("locked");
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn links_are_not_followed() {
        let (folder, store) = store();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(store.folder("work")).unwrap();
        symlink(&outside, store.work_dir(&key())).unwrap();
        let error = store.lock(&key()).unwrap_err().to_string();
        assert!(error.contains("is a link") && error.contains("remove it"), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

        fs::remove_file(store.work_dir(&key())).unwrap();
        fs::create_dir(store.work_dir(&key())).unwrap();
        symlink(outside.join("file"), store.work_dir(&key()).join("lock")).unwrap();
        drop(store.try_lock(&key()).unwrap().unwrap());
        assert!(fs::symlink_metadata(store.work_dir(&key()).join("lock")).unwrap().is_file());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

        // A link in the work folder is removed, but its target is kept.
        fs::write(outside.join("file"), b"kept").unwrap();
        let lock = store.lock(&key()).unwrap();
        symlink(&outside, store.work_dir(&key()).join("data")).unwrap();
        store.clean_work(lock).unwrap();
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"kept");
    }
}
