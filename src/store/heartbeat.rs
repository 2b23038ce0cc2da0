//! What a store needs to be shared by machines: a folder for a run's jobs, hearts that beat, names that are looked up
//! afresh.
//!
//! Clocks of machines differ, and times of change come from a file server's: nothing here is read off them. A heart
//! beats by changing what its file says, and whoever waits measures by a clock of their own how long it has not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::files;
use super::lock::Wait;
use super::{Key, Store};

/// In a key's work folder: what changes as long as somebody works on it.
const BEAT: &str = "beat";
/// Between two beats.
const INTERVAL: Duration = Duration::from_secs(5);
/// A heart that stands still for this long has stopped.
pub const LEASE: Duration = Duration::from_secs(30);

/// Beats until it is dropped.
#[derive(Debug)]
pub struct Heart {
    path: PathBuf,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Heart {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Whoever comes next need not wait to see that it has stopped.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Shows that this process works on a key, to whoever cannot see it: on another machine.
    pub(super) fn beat(&self, key: &Key) -> Result<Heart> {
        let path = self.work_dir(key).join(BEAT);
        let beat = |path: &Path, n: u64| {
            let text = format!("{n} {} {}\n", std::process::id(), files::host());
            files::open_own(path, File::options().create(true).write(true).truncate(true))?.write_all(text.as_bytes())
        };
        beat(&path, 0).with_context(|| format!("writing {}", path.display()))?;
        let (end, ended) = channel::<()>();
        let to = path.clone();
        let go_on = move || {
            let mut n = 1;
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // A beat that is missed is no harm, the next one comes.
                let _ = beat(&to, n);
                n += 1;
            }
        };
        let thread = std::thread::Builder::new().name("heart".into()).spawn(go_on).context("starting a thread")?;
        Ok(Heart { path, end: Some(end), thread: Some(thread) })
    }

    /// Watches the heart of a key's last holder until it has stood still for `lease`; false where it beats and nobody wants to
    /// wait for it.
    pub(super) fn outlasts(&self, key: &Key, lease: Duration, wait: Wait) -> bool {
        let mut last = self.last_beat(key);
        let mut since = Instant::now();
        while last.is_some() && since.elapsed() < lease {
            std::thread::sleep(lease / 20);
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

    /// The beat of a process of another machine which said that it works on a key, and not that it stopped.
    pub(super) fn beat_elsewhere(&self, key: &Key) -> Option<String> {
        let holder = self.lock_holder(key).filter(|holder| holder.host != files::host());
        holder.and_then(|_| self.last_beat(key))
    }

    /// The beats of other machines that stand still for `lease`, for which this waits where there are any.
    pub(super) fn stopped_elsewhere(&self, lease: Duration) -> BTreeMap<Key, String> {
        let beat = |key: Key| Some((key.clone(), self.beat_elsewhere(&key)?));
        let mut still: BTreeMap<Key, String> = self.work_keys().into_iter().filter_map(beat).collect();
        let start = Instant::now();
        while !still.is_empty() && start.elapsed() < lease {
            std::thread::sleep(lease / 20);
            still.retain(|key, before| self.beat_elsewhere(key).as_ref() == Some(before));
        }
        still
    }

    /// The last beat of whoever works on a key, or did: no more than whether it changes means anything.
    pub fn last_beat(&self, key: &Key) -> Option<String> {
        files::read_text(&self.work_dir(key).join(BEAT)).ok()
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
        let first = store.last_beat(&key).unwrap();
        assert!(first.starts_with("0 ") && first.trim_end().ends_with(&files::host()), "{first}");
        store.clean_work(lock).unwrap();
        assert_eq!(store.last_beat(&key), None, "nothing is written after the end");
        drop(store.lock(&key).unwrap());
        assert_eq!(store.last_beat(&key), None, "whoever stops says so");
    }

    /// What a holder on another machine leaves that this one's locks know nothing of.
    fn held_elsewhere(store: &Store, key: &Key) {
        drop(store.lock(key).unwrap());
        fs::write(store.work_dir(key).join("lock"), "7 elsewhere 44_1\n").unwrap();
        fs::write(store.work_dir(key).join(BEAT), "0 7 elsewhere\n").unwrap();
    }

    #[test]
    fn a_holder_on_another_machine_is_waited_for_as_long_as_its_heart_beats() {
        let (_folder, store) = store();
        let key = Key::of(b"a preimage");
        held_elsewhere(&store, &key);
        assert_eq!(store.lock_holder(&key).unwrap().to_string(), "process 7 on elsewhere, job 44_1");
        let lease = Duration::from_millis(400);
        let beats = || {
            for n in 1..8 {
                std::thread::sleep(lease / 4);
                fs::write(store.work_dir(&key).join(BEAT), format!("{n} 7 elsewhere\n")).unwrap();
            }
            Instant::now()
        };
        std::thread::scope(|scope| {
            let beating = scope.spawn(beats);
            assert!(!store.outlasts(&key, lease, Wait::No));
            assert!(store.outlasts(&key, lease, Wait::Yes));
            assert!(beating.join().unwrap().elapsed() >= lease / 2, "not before it stopped");
        });
        std::thread::scope(|scope| {
            scope.spawn(beats);
            assert!(store.stopped_elsewhere(lease).is_empty());
            assert_eq!(store.live_keys(&BTreeMap::new()).len(), 1);
        });
        let stopped = store.stopped_elsewhere(lease);
        assert_eq!(stopped.len(), 1, "one that stands still has stopped");
        assert!(store.live_keys(&stopped).is_empty());
        // One that stops cleanly is not waited for.
        fs::remove_file(store.work_dir(&key).join(BEAT)).unwrap();
        let start = Instant::now();
        drop(store.try_lock(&key).unwrap().unwrap());
        assert!(start.elapsed() < LEASE / 2);
    }
}
