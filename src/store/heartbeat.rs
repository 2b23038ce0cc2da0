//! Heartbeats, which show that a process on another machine is alive, and other support for network file systems.
//!
//! A heartbeat changes the content of a file periodically. A waiting process measures with its own clock how long the
//! content has not changed; modification times are not used, because the clocks of machines and file servers differ.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::files;
use super::{Key, Store};

/// The heartbeat file in a key's work folder.
const BEAT: &str = "beat";
/// The time between two beats.
const INTERVAL: Duration = Duration::from_secs(5);
/// A heartbeat that has not changed for this long has stopped.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// Whether to wait for a process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    Yes,
}

/// A thread that updates a heartbeat file until it is dropped.
#[derive(Debug)]
pub(super) struct Heartbeat {
    path: PathBuf,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Removing the file shows that the process has stopped, so that the next one need not wait.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Starts the heartbeat of a key, which shows other machines that this process works on it.
    pub(super) fn beat(&self, key: &Key) -> Result<Heartbeat> {
        let path = self.work_dir(key).join(BEAT);
        let beat = |path: &Path, n: u64| {
            let text = format!("{n} {} {}\n", std::process::id(), files::host());
            files::open_own(path, File::options().create(true).write(true).truncate(true))?.write_all(text.as_bytes())
        };
        beat(&path, 0).with_context(|| format!("writing {}", path.display()))?;
        let (end, ended) = channel::<()>();
        let to = path.clone();
        let keep_beating = move || {
            let mut n = 1;
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // Missing a beat is harmless.
                let _ = beat(&to, n);
                n += 1;
            }
        };
        let thread =
            std::thread::Builder::new().name("heartbeat".into()).spawn(keep_beating).context("starting a thread")?;
        Ok(Heartbeat { path, end: Some(end), thread: Some(thread) })
    }

    /// Waits until the heartbeat of a key has not changed for `timeout`, then returns true. With [`Wait::No`], returns
    /// false as soon as it changes.
    pub(super) fn has_stopped(&self, key: &Key, timeout: Duration, wait: Wait) -> bool {
        let mut last = self.last_beat(key);
        let mut since = Instant::now();
        while last.is_some() && since.elapsed() < timeout {
            std::thread::sleep(timeout / 20);
            let beat = self.last_beat(key);
            if beat.is_some() && beat != last {
                if wait == Wait::No {
                    return false;
                }
                since = Instant::now();
            }
            last = beat;
        }
        true
    }

    /// Returns the heartbeat of a process on another machine that holds a key and has not released it.
    pub(super) fn beat_on_other_host(&self, key: &Key) -> Option<String> {
        let holder = self.lock_holder(key).filter(|holder| holder.host != files::host());
        holder.and_then(|_| self.last_beat(key))
    }

    /// Returns the heartbeats on other machines that do not change for `timeout`. Waits that long if there are any.
    pub(super) fn stopped_on_other_hosts(&self, timeout: Duration) -> BTreeMap<Key, String> {
        let beat = |key: Key| Some((key.clone(), self.beat_on_other_host(&key)?));
        let mut unchanged: BTreeMap<Key, String> = self.work_keys().into_iter().filter_map(beat).collect();
        let start = Instant::now();
        while !unchanged.is_empty() && start.elapsed() < timeout {
            std::thread::sleep(timeout / 20);
            unchanged.retain(|key, before| self.beat_on_other_host(key).as_ref() == Some(before));
        }
        unchanged
    }

    /// Returns the heartbeat of a key. Its content has no meaning; only changes count.
    pub fn last_beat(&self, key: &Key) -> Option<String> {
        files::read_text(&self.work_dir(key).join(BEAT)).ok()
    }

    /// Lists the folders that contain the result of `key`. Network file systems may cache that a file does not exist;
    /// listing the folder refreshes the cache.
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
    use crate::store::testing::{eventually, release, store};

    #[test]
    fn a_heartbeat_lasts_as_long_as_the_lock() {
        let (_folder, store) = store();
        let key = Key::of(b"a preimage");
        assert_eq!(store.last_beat(&key), None);
        let lock = store.lock(&key).unwrap();
        let first = store.last_beat(&key).unwrap();
        assert!(first.starts_with("0 ") && first.trim_end().ends_with(&files::host()), "{first}");
        store.clean_work(lock).unwrap();
        assert_eq!(store.last_beat(&key), None, "no heartbeat after cleaning up");
        drop(store.lock(&key).unwrap());
        assert_eq!(store.last_beat(&key), None, "the heartbeat file is removed");
    }

    /// Simulates a process on another machine that holds the key.
    fn hold_elsewhere(store: &Store, key: &Key) {
        release(store.lock(key).unwrap(), &store.work_dir(key).join("lock"));
        fs::write(store.work_dir(key).join("lock"), "7 elsewhere 44_1\n").unwrap();
        fs::write(store.work_dir(key).join(BEAT), "0 7 elsewhere\n").unwrap();
    }

    #[test]
    fn locks_of_other_machines_last_as_long_as_their_heartbeat() {
        let (_folder, store) = store();
        let key = Key::of(b"a preimage");
        hold_elsewhere(&store, &key);
        assert_eq!(store.lock_holder(&key).unwrap().to_string(), "process 7 on elsewhere, job 44_1");
        let timeout = Duration::from_millis(400);
        let beats = || {
            for n in 1..8 {
                std::thread::sleep(timeout / 4);
                fs::write(store.work_dir(&key).join(BEAT), format!("{n} 7 elsewhere\n")).unwrap();
            }
            Instant::now()
        };
        std::thread::scope(|scope| {
            let beating = scope.spawn(beats);
            assert!(!store.has_stopped(&key, timeout, Wait::No));
            assert!(store.has_stopped(&key, timeout, Wait::Yes));
            assert!(beating.join().unwrap().elapsed() >= timeout / 2, "returns only after it stopped");
        });
        std::thread::scope(|scope| {
            scope.spawn(beats);
            assert!(store.stopped_on_other_hosts(timeout).is_empty());
            assert_eq!(store.live_keys(&BTreeMap::new()).len(), 1);
        });
        let stopped = store.stopped_on_other_hosts(timeout);
        assert_eq!(stopped.len(), 1, "an unchanged heartbeat has stopped");
        assert!(store.live_keys(&stopped).is_empty());
        // A process that stops cleanly removes its heartbeat, so no other process waits for it.
        fs::remove_file(store.work_dir(&key).join(BEAT)).unwrap();
        let start = Instant::now();
        assert!(eventually(|| store.try_lock(&key).unwrap().is_some()));
        assert!(start.elapsed() < TIMEOUT / 2);
    }
}
