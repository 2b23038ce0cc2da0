//! One writer a key: a lock of the operating system on `work/<key>/lock`, which dies with its process.
//!
//! The holder may move the whole work folder away. Whoever waited on the old lock file then holds a lock that guards
//! nothing; so everyone who gets a lock looks again whether the path still names the file that they locked.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Key, Store, files};

/// The right to work on a key; given up when dropped.
#[derive(Debug)]
pub struct KeyLock {
    key: Key,
    _file: File,
}

impl KeyLock {
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// Whose process holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    pub pid: u32,
    pub host: String,
}

enum Wait {
    No,
    Yes,
}

impl Store {
    /// The folder of the work on a key while it goes on.
    pub fn work_dir(&self, key: &Key) -> PathBuf {
        self.folder("work").join(key.as_str())
    }

    /// The log of the work on `key`: the live one, else the one kept of finished work.
    pub fn log_path(&self, key: &Key) -> PathBuf {
        self.live_or_kept(key, "log.txt", "log")
    }

    /// The events of the work on `key`, likewise.
    pub fn events_path(&self, key: &Key) -> PathBuf {
        self.live_or_kept(key, "events.jsonl", "jsonl")
    }

    fn live_or_kept(&self, key: &Key, live: &str, extension: &str) -> PathBuf {
        let live = self.work_dir(key).join(live);
        if live.exists() { live } else { self.kept(key, extension) }
    }

    fn kept(&self, key: &Key, extension: &str) -> PathBuf {
        self.folder("logs").join(key.shard()).join(format!("{key}.{extension}"))
    }

    /// The lock of a key, with its work folder made; None where another process, or another lock of this one, has it.
    pub fn try_lock(&self, key: &Key) -> Result<Option<KeyLock>> {
        self.acquire(key, Wait::No)
    }

    /// The lock of a key, with its work folder made; waits for it.
    pub fn lock(&self, key: &Key) -> Result<KeyLock> {
        Ok(self.acquire(key, Wait::Yes)?.expect("waiting ends with the lock or an error"))
    }

    /// Who said last that they hold the key. Whether they still do, only `try_lock` tells.
    pub fn lock_holder(&self, key: &Key) -> Option<LockHolder> {
        let text = fs::read_to_string(self.work_dir(key).join("lock")).ok()?;
        let (pid, host) = text.trim_end().split_once(' ')?;
        Some(LockHolder { pid: pid.parse().ok()?, host: host.to_string() })
    }

    fn acquire(&self, key: &Key, wait: Wait) -> Result<Option<KeyLock>> {
        let folder = self.work_dir(key);
        let path = folder.join("lock");
        loop {
            files::create_folder(&folder)?;
            if !fs::symlink_metadata(&folder).is_ok_and(|m| m.is_dir()) {
                bail!("{} is a link, which srpipe does not follow: remove it", folder.display());
            }
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = match opened {
                // The holder moved the folder away just now.
                Err(e) if e.kind() == ErrorKind::NotFound && !folder.exists() => continue,
                opened => opened.with_context(|| format!("opening {}", path.display()))?,
            };
            let locked = match wait {
                Wait::Yes => file.lock(),
                Wait::No => match file.try_lock() {
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(e)) => Err(e),
                    Ok(()) => Ok(()),
                },
            };
            match locked {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                locked => locked.with_context(|| {
                    format!(
                        "locking {}; if its file system has no locks, choose another with --runs-dir",
                        path.display()
                    )
                })?,
            }
            if is_at(&file, &path)? {
                let holder = format!("{} {}\n", std::process::id(), files::host());
                file.set_len(0)
                    .and_then(|()| file.write_all(holder.as_bytes()))
                    .with_context(|| format!("writing {}", path.display()))?;
                return Ok(Some(KeyLock { key: key.clone(), _file: file }));
            }
        }
    }

    /// Removes the work folder of a key that is done, keeping its log and events, and gives up the lock.
    pub fn clean_work(&self, lock: KeyLock) -> Result<()> {
        let folder = self.work_dir(&lock.key);
        for (live, extension) in [("log.txt", "log"), ("events.jsonl", "jsonl")] {
            let (from, to) = (folder.join(live), self.kept(&lock.key, extension));
            if from.exists() {
                files::create_folder(to.parent().expect("it lies in a folder"))?;
                fs::rename(&from, &to).with_context(|| format!("moving {} to {}", from.display(), to.display()))?;
            }
        }
        // Moved first, so that no half-removed work is ever found under the key.
        let gone = tempfile::Builder::new().prefix(files::TEMPORARY).tempdir_in(self.folder("work"));
        let gone = gone.with_context(|| format!("creating a folder in {}", self.folder("work").display()))?;
        fs::rename(&folder, gone.path().join("work")).with_context(|| format!("removing {}", folder.display()))?;
        drop(lock);
        gone.close().with_context(|| format!("removing the finished work of {}", folder.display()))
    }
}

/// Whether `path` names the very file that is open.
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
