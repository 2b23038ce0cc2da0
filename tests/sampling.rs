//! End-to-end tests of sampling and comparison: samples depend only on the key, not on batch size, threads or
//! interruptions.

mod common;

use std::path::PathBuf;

use common::{Folder, Pipeline, is_alive, on_one_core, signal, wait_until};
use safetensors::{Dtype, SafeTensors};

const IMAGES: usize = 5;
const SAMPLES: usize = 3;
/// The number of bytes per sample.
const LEN: usize = 32 * 32 * 3;

/// Returns a pipeline that barely trains two models, with very little noise in the diffusion process. A sample then
/// shows the noise that it started from, whatever the model.
fn models() -> Pipeline {
    let train = |attention: &str| {
        format!(
            "{{kind: train, data: pairs, model: {{base_channels: 8, attention: {{kind: {attention}}}}}, \
             diffusion: {{schedule: linear, beta_start: 1e-5, beta_end: 1e-4, target: image}}, \
             optim: {{steps: 12, batch_size: 4, lr: 1e-2}}}}"
        )
    };
    Pipeline::new()
        .stage("images", &format!("{{kind: fetch, dataset: synthetic, train: 16, validation: 4, test: {IMAGES}}}"))
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage("baseline", &train("none"))
        .stage("attention", &train("seed"))
}

/// Returns a pipeline that samples with this batch size and compares the samples.
fn compared(batch_size: usize) -> Folder {
    let sample = |model: &str, weights: &str| {
        format!(
            "{{kind: sample, model: {model}, data: pairs, samples: {SAMPLES}, sampler: {{method: ddim, steps: 4}}, \
             weights: {weights}, batch_size: {batch_size}}}"
        )
    };
    models()
        .stage("of_ema", &sample("baseline", "ema"))
        .stage("of_raw", &sample("baseline", "raw"))
        .stage("of_attention", &sample("attention", "ema"))
        .stage("compare", "{kind: compare, arms: {ema: of_ema, raw: of_raw, attention: of_attention}, rows: 2}")
        .folder()
}

/// Returns the samples of a stage, image by image.
fn samples(folder: &Folder, stage: &str) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(folder.runs().join("p/latest").join(stage).join("samples.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("samples").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::U8, &[IMAGES, SAMPLES, 32, 32, 3][..]));
    tensor.data().chunks(LEN).map(<[u8]>::to_vec).collect()
}

/// Returns the mean absolute difference between pairs of samples, in 8-bit levels.
fn distance<'a>(pairs: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) -> f64 {
    let of_pair = |(a, b): (&Vec<u8>, &Vec<u8>)| {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>() / LEN as f64
    };
    let all: Vec<f64> = pairs.map(of_pair).collect();
    all.iter().sum::<f64>() / all.len() as f64
}

#[test]
fn samples_and_metrics_depend_neither_on_batches_nor_on_threads() {
    let (few, many) = (compared(7), compared(32));
    let one_thread = on_one_core(|| few.run(&[]));
    assert_eq!(one_thread.code, Some(0), "{one_thread}");
    let all_threads = many.run(&[]);
    assert_eq!(all_threads.code, Some(0), "{all_threads}");
    for stage in ["of_ema", "of_raw", "of_attention", "compare"] {
        let digests = few.digests(stage);
        assert!(digests.len() >= 4, "{digests:?}");
        assert_eq!(digests, many.digests(stage), "{stage}");
    }

    let [ema, raw, attention] = ["of_ema", "of_raw", "of_attention"].map(|stage| samples(&few, stage));
    assert!(ema != raw, "the moving average must differ from the last weights");
    // A third of standard normal values are outside [-1, 1] and become 0 or 255.
    let ends = ema.concat().iter().filter(|&&v| v == 0 || v == 255).count() as f64 / ema.concat().len() as f64;
    assert!((0.15..0.5).contains(&ends), "{ends}");
    // All arms start from the same noise, but each chain of an arm has its own.
    let between_arms = distance(ema.iter().zip(&attention));
    let between_samples = distance(ema.iter().zip(&ema[1..]));
    assert!(between_samples > 30.0 && 4.0 * between_arms < between_samples, "{between_arms} {between_samples}");
    assert!(ema != attention, "different models must give different samples");

    assert!(one_thread.stdout.contains("5 test images, 3 samples per image"), "{one_thread}");
}

#[test]
fn killed_sampling_resumes_with_identical_results() {
    let pipeline = |batch_size: usize| {
        let sample = format!(
            "{{kind: sample, model: baseline, data: pairs, samples: 8, sampler: {{method: ddim, steps: 25}}, \
             batch_size: {batch_size}}}"
        );
        models().stage("samples", &sample).folder()
    };
    let whole = pipeline(64);
    assert_eq!(whole.run(&[]).code, Some(0));

    let killed = pipeline(1);
    assert_eq!(killed.run(&["--set", "stages.samples.limit=1"]).code, Some(0), "the model is trained");
    let mut before = 0;
    for round in 0..4 {
        let run = killed.start(&["run", "p.yaml"]);
        wait_until("more images are finished", || partial_bytes(&killed) > before);
        let children = run.children();
        // In every second round, kill the stage's process as well, so that it cannot save its progress.
        if round % 2 == 0 {
            for &pid in &children {
                let _ = signal(pid, "KILL");
            }
        }
        run.signal("KILL");
        // If its stage was killed, the run may have exited by itself before the signal arrived.
        assert!(run.wait().signal == Some(9) || round % 2 == 0, "the run ended before it was killed");
        wait_until("no process is left", || !children.iter().any(|&pid| is_alive(pid)));
        before = partial_bytes(&killed);
    }
    let last = killed.run(&["--json"]);
    assert_eq!(last.code, Some(0), "{last}");
    let has_resumed =
        |event: serde_json::Value| event["text"].as_str().is_some_and(|text| text.starts_with("resuming after "));
    assert!(last.events().into_iter().any(has_resumed), "{last}");
    assert_eq!(killed.digests("samples"), whole.digests("samples"));
}

/// Returns the size of the partial samples in bytes.
fn partial_bytes(folder: &Folder) -> u64 {
    let work = std::fs::read_dir(folder.runs().join("store/work")).into_iter().flatten().flatten();
    let parts = work.map(|key| -> PathBuf { key.path().join("samples.part") });
    parts.filter_map(|part| std::fs::metadata(part).ok()).map(|part| part.len()).sum()
}
