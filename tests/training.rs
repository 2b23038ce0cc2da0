//! End-to-end tests of training: results depend only on the key, not on the number of threads or on interruptions.

mod common;

use common::{Folder, Pipeline, is_alive, on_one_core, signal, wait_until};
use serde_json::Value;

/// Returns a pipeline whose training is long enough to be killed halfway, and short enough for a test.
fn pipeline() -> Pipeline {
    Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 32, validation: 4, test: 4}")
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage(
            "model",
            "{kind: train, data: pairs, model: {base_channels: 4, attention: {kind: seed}}, \
             optim: {steps: 900, batch_size: 8}, validation: {every: 300}}",
        )
}

impl Folder {
    /// Returns the number of steps reported so far.
    fn steps(&self) -> u64 {
        let status: Value = serde_json::from_str(&self.srpipe(&["status", "p.yaml", "--json"]).stdout).unwrap();
        let model = status["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == "model").unwrap();
        model["progress"]["done"].as_u64().unwrap_or(0)
    }
}

#[test]
fn threads_and_kills_do_not_change_a_checkpoint() {
    let one = pipeline().folder();
    let output = on_one_core(|| one.run(&[]));
    assert_eq!(output.code, Some(0), "{output}");
    let expected = one.digests("model");
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        ["attention.csv", "ema.safetensors", "loss.csv", "weights.safetensors"]
    );

    let all = pipeline().folder();
    assert_eq!(all.run(&[]).code, Some(0));
    assert_eq!(all.digests("model"), expected, "results depend on the number of threads");

    let killed = pipeline().folder();
    let mut before = 0;
    for round in 1..=5 {
        let run = killed.start(&["run", "p.yaml", "--json"]);
        wait_until("training makes progress", || killed.steps() > before);
        let children = run.children();
        // In one round, kill the stage's process as well, so that it cannot save its progress.
        if round == 3 {
            for &pid in &children {
                let _ = signal(pid, "KILL");
            }
        }
        run.signal("KILL");
        // If its stage was killed, the run may have exited by itself before the signal arrived.
        assert!(run.wait().signal == Some(9) || round == 3);
        wait_until("no process is left", || !children.iter().any(|&pid| is_alive(pid)));
        assert!(killed.steps() < 900, "the run ended before it was killed");
        before = killed.steps();
    }
    let last = killed.run(&["--json"]);
    assert_eq!(last.code, Some(0), "{last}");
    let resumed = last.events().iter().filter_map(|event| event["text"].as_str()).any(|text| {
        text.split("steps ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).is_some_and(|n: u64| n > 0)
    });
    assert!(resumed, "training did not resume from a snapshot\n{last}");
    assert_eq!(killed.digests("model"), expected, "results differ after interruptions");
}

#[test]
fn status_shows_the_saved_progress_of_interrupted_training() {
    let folder = pipeline().folder();
    let run = folder.start(&["run", "p.yaml", "--json"]);
    wait_until("training makes progress", || folder.steps() > 0);
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    let saved = folder.steps();
    let again = folder.run(&["--json"]);
    assert_eq!(again.code, Some(0), "{again}");
    assert!(again.stdout.contains(&format!("steps {saved} to 900")), "{saved}: {again}");
}
