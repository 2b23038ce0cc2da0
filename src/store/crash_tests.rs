//! Kills processes that share a store at random times.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::testing::{self, action, another_process, eventually, store};
use super::{Action, Key, Store};

/// Far more keys than the processes finish before the last one is killed.
const KEYS: u32 = 20_000;

fn key(i: u32) -> Key {
    testing::key(&i.to_string())
}

/// Stores the outputs of key `i`. Pairs of keys share a blob.
fn produce(store: &Store, i: u32) -> Action {
    let own = vec![i as u8; 50_000];
    action(store, &i.to_string(), &[("own", &own), ("shared", &(i / 2).to_le_bytes())])
}

/// Computes the keys among the first `count` that are not cached. Returns how many it computed.
fn work(store: &Store, count: u32) -> u32 {
    let done = |&i: &u32| {
        let lock = store.lock(&key(i)).unwrap();
        let is_cached = store.action(&key(i)).unwrap().is_some();
        if !is_cached {
            std::fs::write(store.work_dir(&key(i)).join("log.txt"), b"working\n").unwrap();
            store.commit(&key(i), &produce(store, i)).unwrap();
        }
        store.clean_work(lock).unwrap();
        !is_cached
    };
    (0..count).filter(done).count() as u32
}

#[test]
fn results_committed_by_killed_processes_are_intact() {
    let (_folder, store) = store();
    let start = || -> Child {
        let mut command = another_process("store::crash_tests::work_until_killed");
        command.env("SRPIPE_TEST_RUNS", store.runs_dir()).stdout(Stdio::null()).spawn().unwrap()
    };
    let cached = |i| store.action(&key(i)).unwrap();
    let mut count = 0;
    for round in 0..12 {
        let mut children = [start(), start()];
        // Kill them after some work and a delay that differs in each round.
        assert!(eventually(|| cached(count).is_some()), "no process makes progress");
        std::thread::sleep(Duration::from_micros(round * 300));
        for child in &mut children {
            child.kill().unwrap();
            assert!(!child.wait().unwrap().success(), "it finished before it was killed");
        }
        while let Some(action) = cached(count) {
            action.outputs.values().for_each(|digest| store.check(digest).unwrap());
            count += 1;
        }
        // Processes compute keys in order.
        assert!((count..count + 20).all(|i| cached(i).is_none()));
    }
    assert_eq!(work(&store, count + 5), 5);
    assert_eq!(work(&store, count + 5), 0);
    for i in 0..count + 5 {
        assert_eq!(cached(i), Some(produce(&store, i)));
        assert!(store.log_path(&key(i)).is_file());
    }
}

#[test]
#[ignore = "run by results_committed_by_killed_processes_are_intact, in another process"]
fn work_until_killed() {
    let Some(runs) = std::env::var_os("SRPIPE_TEST_RUNS") else { return };
    work(&Store::open(Path::new(&runs)).unwrap(), KEYS);
}
