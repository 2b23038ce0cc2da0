//! Runs one pipeline six times concurrently while `gc` runs in a loop: no run fails.
//!
//! `SRPIPE_TEST_RACES=1000` runs a thousand rounds instead of three.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use common::Pipeline;

#[test]
fn runs_and_gc_do_not_interfere() {
    let rounds = std::env::var("SRPIPE_TEST_RACES").map_or(3, |text| text.parse().unwrap());
    let (mut collections, mut reports) = (0, 0);
    for round in 0..rounds {
        let stage = |i: u32| format!("{{kind: command, command: [sh, -c, 'echo {i} >{{outputs.o}}'], outputs: [o]}}");
        let folder = (0..6).fold(Pipeline::new(), |pipeline, i| pipeline.stage(&format!("c{i}"), &stage(i))).folder();
        std::fs::create_dir_all(folder.runs().join("store")).unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let gc_thread = scope.spawn(|| {
                let mut n = 0;
                while !is_done.load(SeqCst) {
                    let output = folder.srpipe(&["gc", "--keep", "1"]);
                    assert_eq!(output.code, Some(0), "round {round}: {output}");
                    n += 1;
                }
                n
            });
            let report_thread = scope.spawn(|| {
                let mut n = 0;
                while !is_done.load(SeqCst) {
                    // There may be no run yet, or the run may be removed while it is read.
                    let output = folder.srpipe(&["report", "p"]);
                    assert!(!output.stderr.contains("panicked"), "round {round}: {output}");
                    n += 1;
                }
                n
            });
            let runs: Vec<_> = (0..6).map(|_| folder.start(&["run", "p.yaml"])).collect();
            let outputs: Vec<_> = runs.into_iter().map(|run| run.wait()).collect();
            is_done.store(true, SeqCst);
            collections += gc_thread.join().unwrap();
            reports += report_thread.join().unwrap();
            for output in outputs {
                assert_eq!(output.code, Some(0), "round {round}: {output}");
            }
        });
        let verified = folder.srpipe(&["verify"]);
        assert_eq!(verified.code, Some(0), "round {round}: {verified}");
        let snapshot = folder.snapshot();
        let temporary = snapshot.keys().find(|path| path.file_name().unwrap().to_string_lossy().starts_with(".tmp-"));
        assert_eq!(temporary, None, "round {round}");
    }
    println!("{} runs, {collections} collections, {reports} reports", rounds * 6);
}
