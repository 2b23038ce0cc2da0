//! Processes that share a store and are killed at any moment.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::testing::{self, action, another_process, soon, store};
use super::{Action, Key, Store};

/// Far more than are done before the last process is killed.
const KEYS: u32 = 20_000;

fn key(i: u32) -> Key {
    testing::key(&i.to_string())
}

/// What key `i` makes. Neighbours have a blob in common.
fn make(store: &Store, i: u32) -> Action {
    let own = vec![i as u8; 50_000];
    action(store, &i.to_string(), &[("own", &own), ("shared", &(i / 2).to_le_bytes())])
}

/// Does the work of the first `count` keys that are not known, one holder each. Gives how many it did.
fn work(store: &Store, count: u32) -> u32 {
    let done = |&i: &u32| {
        let lock = store.lock(&key(i)).unwrap();
        let known = store.action(&key(i)).unwrap().is_some();
        if !known {
            std::fs::write(store.work_dir(&key(i)).join("log.txt"), b"working\n").unwrap();
            store.commit(&key(i), &make(store, i)).unwrap();
        }
        store.clean_work(lock).unwrap();
        !known
    };
    (0..count).filter(done).count() as u32
}

#[test]
fn what_killed_processes_committed_is_whole() {
    let (_folder, store) = store();
    let start = || -> Child {
        let mut command = another_process("store::crash_tests::work_until_killed");
        command.env("SRPIPE_TEST_RUNS", store.runs_dir()).stdout(Stdio::null()).spawn().unwrap()
    };
    let known = |i| store.action(&key(i)).unwrap();
    let mut count = 0;
    for round in 0..12 {
        let mut children = [start(), start()];
        // Killed in the midst of work: after some of it, and a moment that differs from round to round.
        assert!(soon(|| known(count).is_some()), "nobody works");
        std::thread::sleep(Duration::from_micros(round * 300));
        for child in &mut children {
            child.kill().unwrap();
            assert!(!child.wait().unwrap().success(), "it came to its end before it was killed");
        }
        while let Some(action) = known(count) {
            action.outputs.values().for_each(|digest| store.check(digest).unwrap());
            count += 1;
        }
        // Nobody goes on to the next key before this one is known.
        assert!((count..count + 20).all(|i| known(i).is_none()));
    }
    assert_eq!(work(&store, count + 5), 5);
    assert_eq!(work(&store, count + 5), 0);
    for i in 0..count + 5 {
        assert_eq!(known(i), Some(make(&store, i)));
        assert!(store.log_path(&key(i)).is_file());
    }
}

#[test]
#[ignore = "run by what_killed_processes_committed_is_whole, in another process"]
fn work_until_killed() {
    let Some(runs) = std::env::var_os("SRPIPE_TEST_RUNS") else { return };
    work(&Store::open(Path::new(&runs)).unwrap(), KEYS);
}
