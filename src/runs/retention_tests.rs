use std::fs;

use super::*;
use crate::config::StageKind;
use crate::runs::{RunDir, RunState};
use crate::runs::{RunRecord, StageRecord, StageRunState};
use crate::store::files::entries;
use crate::store::testing::{self, action, store, temporaries};

fn key(i: usize) -> Key {
    testing::key(&i.to_string())
}

/// Commits key `i`, with its own blob of 100 bytes and a blob that all keys share.
fn commit(store: &Store, i: usize) {
    store.commit(&key(i), &action(store, &i.to_string(), &[("own", &[i as u8; 100]), ("shared", b"shared")])).unwrap();
}

fn run(store: &Store, pipeline: &str, keys: &[usize]) -> RunDir {
    let stage = |&i: &usize| StageRecord {
        name: format!("stage{i}"),
        kind: StageKind::Fetch,
        key: Some(key(i)),
        state: StageRunState::Ran,
        seconds: None,
        metrics: BTreeMap::new(),
        error: None,
        job: None,
    };
    let record = RunRecord {
        id: String::new(),
        pipeline: String::new(),
        file: None,
        state: RunState::Ok,
        started_at: String::new(),
        finished_at: None,
        seconds: None,
        pid: 1,
        srpipe_version: String::new(),
        machine: None,
        executor: Default::default(),
        command: vec![],
        stages: keys.iter().map(stage).collect(),
        earlier_looks: vec![],
    };
    // Ids contain the time in milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(2));
    let run = store.create_run(pipeline, "", &record).unwrap();
    run.make_latest().unwrap();
    run
}

/// Like [`run`], for a run whose process has exited.
fn finished_run(store: &Store, pipeline: &str, keys: &[usize]) {
    release_run(run(store, pipeline, keys));
}

fn release_run(run: RunDir) {
    let lock = run.path().join(".lock");
    testing::release(run, &lock);
}

fn release_key(store: &Store, i: usize) {
    testing::release(store.lock(&key(i)).unwrap(), &store.work_dir(&key(i)).join("lock"));
}

/// Returns which of the first `keys` keys are cached.
fn cached(store: &Store, keys: usize) -> Vec<usize> {
    (0..keys).filter(|&i| store.action(&key(i)).unwrap().is_some()).collect()
}

const KEEP_1: Retention = Retention { keep: 1, max_bytes: None };

#[test]
fn results_that_no_kept_run_needs_are_removed() {
    let (_folder, store) = store();
    (0..6).for_each(|i| commit(&store, i));
    finished_run(&store, "a", &[0, 1]);
    let pinned = run(&store, "a", &[2]);
    pinned.pin().unwrap();
    release_run(pinned);
    finished_run(&store, "a", &[1, 3]);
    let live = run(&store, "b", &[4]);
    finished_run(&store, "b", &[3]);
    store.put(b"forgotten").unwrap();

    let would = collect_garbage(&store, KEEP_1, true).unwrap();
    assert_eq!(cached(&store, 6), [0, 1, 2, 3, 4, 5]);
    let removed = collect_garbage(&store, KEEP_1, false).unwrap();
    assert_eq!(removed, would);
    assert_eq!(cached(&store, 6), [1, 2, 3, 4]);
    assert_eq!(
        (removed.runs.len(), removed.results.actions, removed.results.blobs, removed.results.bytes),
        (1, 2, 3, 209)
    );
    assert_eq!((removed.results.blobs_left, removed.results.bytes_left), (5, 406));
    assert_eq!(store.runs("a").len(), 2);
    assert_eq!(collect_garbage(&store, KEEP_1, false).unwrap().runs, [""; 0]);
    drop(live);
    assert!(testing::eventually(|| collect_garbage(&store, KEEP_1, false).unwrap().results.actions == 1));
    assert_eq!(cached(&store, 6), [1, 2, 3]);
}

#[test]
fn a_size_limit_removes_the_oldest_runs_but_never_the_latest() {
    let (_folder, store) = store();
    (0..4).for_each(|i| commit(&store, i));
    (0..4).for_each(|i| finished_run(&store, "a", &[i]));
    let limit = |bytes| Retention { keep: 10, max_bytes: Some(bytes) };
    assert_eq!(collect_garbage(&store, limit(406), false).unwrap().results.actions, 0);
    assert_eq!(collect_garbage(&store, limit(250), false).unwrap().results.actions, 2);
    assert_eq!(cached(&store, 4), [2, 3]);
    collect_garbage(&store, limit(1), false).unwrap();
    assert_eq!(cached(&store, 4), [3]);
}

#[test]
fn work_is_kept_while_it_is_live_or_can_be_resumed() {
    let (_folder, store) = store();
    finished_run(&store, "a", &[0]);
    for i in 0..2 {
        release_key(&store, i);
        fs::write(store.work_dir(&key(i)).join("snapshot"), b"half").unwrap();
    }
    let lock = store.lock(&key(2)).unwrap();
    store.lease(&lock).unwrap();
    let put = store.put(b"put by a worker").unwrap();
    fs::create_dir_all(store.runs_dir().join("store/work/.tmp-gone")).unwrap();
    fs::write(store.blob_path(&put).with_file_name(".tmp-half"), b"ha").unwrap();

    let live = || testing::eventually(|| store.live_keys(&BTreeMap::new()) == [key(2)]);
    assert!(live());
    let removed = collect_garbage(&store, KEEP_1, false).unwrap();
    assert_eq!((removed.results.work, removed.results.temporaries, removed.results.blobs), (1, 2, 0));
    assert_eq!(temporaries(&store), 0);
    assert!(store.work_dir(&key(0)).exists() && !store.work_dir(&key(1)).exists());
    assert_eq!(store.read(&put).unwrap(), b"put by a worker");
    drop(lock);
    assert!(testing::eventually(|| collect_garbage(&store, KEEP_1, false).unwrap().results.blobs == 1));
    assert!(store.check(&put).is_err() && !store.work_dir(&key(2)).exists());
}

/// The state after a process was killed between its commit and its cleanup.
#[test]
fn work_of_finished_stages_is_removed_and_its_log_archived() {
    let (_folder, store) = store();
    release_key(&store, 0);
    fs::write(store.work_dir(&key(0)).join("log.txt"), b"the log").unwrap();
    commit(&store, 0);
    finished_run(&store, "a", &[0]);
    assert_eq!(collect_garbage(&store, KEEP_1, true).unwrap().results.work, 1);
    assert!(store.work_dir(&key(0)).exists());
    assert_eq!(collect_garbage(&store, KEEP_1, false).unwrap().results.work, 1);
    assert!(!store.work_dir(&key(0)).exists());
    assert_eq!(fs::read(store.log_path(&key(0))).unwrap(), b"the log");
    assert_eq!(cached(&store, 1), [0]);
}

#[test]
fn nothing_is_removed_while_a_guard_exists() {
    let (_folder, store) = store();
    commit(&store, 0);
    std::thread::scope(|scope| {
        let guard = store.guard().unwrap();
        let gc = scope.spawn(|| collect_garbage(&store, KEEP_1, false).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!gc.is_finished());
        assert_eq!(cached(&store, 1), [0], "readers do not wait");
        // The record of the run contains the key before the guard is dropped.
        let run = run(&store, "a", &[0]);
        drop(guard);
        assert_eq!(gc.join().unwrap().results.actions, 0);
        drop(run);
    });
}

#[test]
fn links_are_not_followed() {
    let (folder, store) = store();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), b"outside").unwrap();
    fs::create_dir_all(store.runs_dir().join("store")).unwrap();
    std::os::unix::fs::symlink(&outside, store.runs_dir().join("store/.tmp-link")).unwrap();
    assert_eq!(collect_garbage(&store, KEEP_1, false).unwrap().results.temporaries, 1);
    assert!(outside.join("file").exists());
}

/// Reading would follow such links, so the results behind them must not be removed.
#[test]
fn links_in_place_of_folders_are_refused() {
    let (folder, store) = store();
    commit(&store, 0);
    finished_run(&store, "a", &[0]);
    let kept = collect_garbage(&store, KEEP_1, false).unwrap();
    assert!(kept.results.blobs_left > 0 && kept.results.actions == 0, "{kept:?}");
    let outside = folder.path().join("outside");
    let shard = |kind: &str| entries(&store.runs_dir().join("store").join(kind)).remove(0);
    for place in [
        store.runs_dir().join("store/actions"),
        store.runs_dir().join("store/blobs"),
        shard("actions"),
        shard("blobs"),
        store.runs_dir().join("a"),
    ] {
        fs::rename(&place, &outside).unwrap();
        std::os::unix::fs::symlink(&outside, &place).unwrap();
        for error in [collect_garbage(&store, KEEP_1, false).unwrap_err(), store.verify(|_| Ok(())).unwrap_err()] {
            let error = error.to_string();
            assert!(error.starts_with(&format!("{} is a link", place.display())), "{error}");
        }
        fs::remove_file(&place).unwrap();
        fs::rename(&outside, &place).unwrap();
    }
    assert_eq!(collect_garbage(&store, KEEP_1, false).unwrap(), kept);
}

#[test]
fn a_run_with_a_damaged_record_keeps_its_linked_results() {
    let (_folder, store) = store();
    (0..3).for_each(|i| commit(&store, i));
    let damaged = run(&store, "a", &[0]);
    damaged.link_stage("stage0", &store.action(&key(0)).unwrap().unwrap().outputs).unwrap();
    run(&store, "a", &[1]);
    fs::write(damaged.path().join("run.json"), b"{").unwrap();
    collect_garbage(&store, Retention { keep: 2, max_bytes: None }, false).unwrap();
    assert_eq!(cached(&store, 3), [0, 1]);
}

#[test]
fn leftovers_of_killed_runs_are_removed() {
    let (_folder, store) = store();
    commit(&store, 0);
    let kept = run(&store, "a", &[0]);
    drop(kept.clone());
    let pipeline = store.runs_dir().join("a");
    let abandoned = pipeline.join("20261123-083227.123-k3xa");
    for folder in [&abandoned, &pipeline.join(".tmp-run"), &pipeline.join("notes")] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("pipeline.yaml"), b"").unwrap();
    }
    let (path, id) = (kept.path().to_path_buf(), kept.id().to_string());
    drop(kept);
    fs::write(path.join(".tmp-report"), b"").unwrap();
    assert!(testing::eventually(|| !store.runs("a")[0].is_live()));
    let removed = collect_garbage(&store, KEEP_1, false).unwrap();
    assert_eq!(removed.results.temporaries, 3, "{removed:?}");
    let mut left: Vec<_> = fs::read_dir(&pipeline).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [id.as_str(), "latest", "notes"]);
    assert_eq!(temporaries(&store), 0);
}
