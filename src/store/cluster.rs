//! What a store needs to be shared by machines: a folder for a run's jobs, hearts that beat, names that are looked up
//! afresh.
//!
//! Clocks of machines differ, and times of change come from a file server's: nothing here is read off them. A heart
//! beats by changing what its file says, and whoever waits measures by a clock of their own how long it has not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::files::{self, Durability};
use super::{Key, KeyLock, RunDir, Store};

/// In a run's folder: what it keeps of its jobs.
const JOBS: &str = ".slurm";
/// In a key's work folder: what changes as long as somebody works on it.
const BEAT: &str = "beat";
/// Between two beats.
const INTERVAL: Duration = Duration::from_secs(5);

impl RunDir {
    /// The folder of what the run keeps of its jobs on a cluster.
    pub fn jobs_dir(&self) -> PathBuf {
        self.path().join(JOBS)
    }

    /// A file in it: whole, and there for good when this returns.
    pub fn write_job_file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        files::check_name("the file's name", name)?;
        let path = self.jobs_dir().join(name);
        files::write(&path, bytes, Durability::Synced)?;
        Ok(path)
    }
}

/// Beats until it is dropped.
#[derive(Debug)]
pub struct Heart {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Heart {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Shows that this process lives, to whoever cannot see it: on another machine.
    pub fn beat(&self, lock: &KeyLock) -> Result<Heart> {
        let path = self.work_dir(lock.key()).join(BEAT);
        let beat =
            move |path: &Path, n: u64| fs::write(path, format!("{n} {} {}\n", std::process::id(), files::host()));
        beat(&path, 0).with_context(|| format!("writing {}", path.display()))?;
        let (end, ended) = channel::<()>();
        let go_on = move || {
            let mut n = 1;
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // A beat that is missed is no harm, the next one comes.
                let _ = beat(&path, n);
                n += 1;
            }
        };
        let thread = std::thread::Builder::new().name("heart".into()).spawn(go_on).context("starting a thread")?;
        Ok(Heart { end: Some(end), thread: Some(thread) })
    }

    /// The last beat of whoever works on a key, or did: no more than whether it changes means anything.
    pub fn last_beat(&self, key: &Key) -> Option<String> {
        fs::read_to_string(self.work_dir(key).join(BEAT)).ok()
    }

    /// Reads the folders that a result of `key` would be in. A file system of a network may go on telling for a while
    /// that a file is not there; it does not when the folder was read anew.
    pub fn refresh(&self, key: &Key) {
        let actions = self.folder("actions");
        for folder in [&actions, &actions.join(key.shard())] {
            fs::read_dir(folder).into_iter().flatten().for_each(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::store;

    #[test]
    fn a_heart_is_seen_while_it_beats_and_stops_with_its_owner() {
        let (_folder, store) = store();
        let key = Key::of(b"a preimage");
        assert_eq!(store.last_beat(&key), None);
        let lock = store.lock(&key).unwrap();
        let heart = store.beat(&lock).unwrap();
        let first = store.last_beat(&key).unwrap();
        assert!(first.starts_with("0 ") && first.trim_end().ends_with(&files::host()), "{first}");
        drop(heart);
        store.clean_work(lock).unwrap();
        assert_eq!(store.last_beat(&key), None, "nothing is written after the end");
    }
}
