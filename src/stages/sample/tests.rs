use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::{DegradeMethod, DiffusionParams, ModelParams, PredictionType, Target};
use crate::data::images::{Images, lr_metadata, to_u8};
use crate::data::resample;
use crate::model::{Config, ModelCost, denormalize, normalize, unet};
use crate::stages::testing::Bench;
use crate::store::Artifact;
use crate::train::initial_state;

const IMAGES: usize = 3;
const SAMPLES: usize = 2;

/// An untrained model and three test images of 8×8.
fn bench(objective: PredictionType) -> (Bench, SampleParams) {
    let mut bench = Bench::new();
    let model = ModelParams { base_channels: 2, channel_mults: vec![1, 2], zero_output: false, ..Default::default() };
    let diffusion = DiffusionParams { objective, target: Target::Image, ..Default::default() };
    let graph = unet(&model, 8, 4);
    let config = Config { model, diffusion, image_size: 8, scale: 4, cost: ModelCost::of(&graph), steps: 0 };
    let weights = |seed| initial_state(&graph, seed).weights;
    let checkpoint = |seed| Checkpoint { config: config.clone(), weights: weights(seed) }.to_bytes().unwrap();
    let hr = Images::new(IMAGES, 8, 8, (0..IMAGES * 192).map(|i| (i * 37 % 251) as u8).collect());
    let lr = resample::degrade(&hr, 4, DegradeMethod::Area).unwrap();
    let model = [
        (blobs::EMA, checkpoint(1)),
        (blobs::WEIGHTS, checkpoint(2)),
        (blobs::LOSS, b"step,loss,heldout_loss\n".to_vec()),
    ];
    let data = [
        (blobs::TEST_HR, hr.to_safetensors(&Default::default())),
        (blobs::TEST_LR, lr.to_safetensors(&lr_metadata(4, DegradeMethod::Area))),
    ];
    let put = |blobs: &[(&str, Vec<u8>)]| -> Artifact {
        blobs.iter().map(|(name, bytes)| (name.to_string(), bench.store.put(bytes).unwrap())).collect()
    };
    let inputs = BTreeMap::from([("model".to_string(), put(&model)), ("data".to_string(), put(&data))]);
    bench.inputs = inputs;
    let params = serde_json::json!({"model": "m", "data": "d", "samples": SAMPLES, "sampler": {"steps": 3}});
    (bench, serde_json::from_value(params).unwrap())
}

fn samples(bench: &Bench, outcome: &Outcome) -> Samples {
    let bytes = bench.store.read(&outcome.outputs[blobs::SAMPLES]).unwrap();
    Samples::from_safetensors(&bytes).unwrap().0
}

fn whole(bench: &Bench, params: &SampleParams) -> Outcome {
    let outcome = run(params, &bench.context(&|| false)).unwrap();
    std::fs::remove_file(part(bench)).unwrap();
    outcome
}

fn part(bench: &Bench) -> PathBuf {
    bench.folder.path().join("work").join(PART)
}

/// Requests a stop at the `nth` check; a sampler with three steps checks four times per batch.
fn stop(bench: &Bench, params: &SampleParams, nth: usize) {
    let asked = AtomicUsize::new(0);
    let error = run(params, &bench.context(&|| asked.fetch_add(1, Ordering::Relaxed) + 1 >= nth)).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
}

fn messages(bench: &Bench) -> Vec<String> {
    let text = |event: StageEvent| match event {
        StageEvent::Message { text } => Some(text),
        StageEvent::Progress { .. } => None,
    };
    bench.events.lock().unwrap().drain(..).filter_map(text).collect()
}

#[test]
fn every_byte_survives_normalisation() {
    assert!((0..=255).all(|v| to_u8(denormalize(normalize(v))) == v));
    assert_eq!([-7.0, -1.0, 1.0, 7.0].map(|v| to_u8(denormalize(v))), [0, 0, 255, 255]);
}

#[test]
fn samples_depend_on_weights_and_seed_but_not_on_the_batch_size() {
    let (bench, params) = bench(PredictionType::V);
    let expected = whole(&bench, &params).outputs;
    for batch_size in [1, 4, 5] {
        assert_eq!(whole(&bench, &SampleParams { batch_size, ..params.clone() }).outputs, expected, "{batch_size}");
    }
    let raw = whole(&bench, &SampleParams { weights: Weights::Raw, ..params.clone() });
    assert_ne!(raw.outputs[blobs::SAMPLES], expected[blobs::SAMPLES]);
    let seeded = run(&params, &Context { seed: 2, ..bench.context(&|| false) }).unwrap();
    assert_ne!(seeded.outputs[blobs::SAMPLES], expected[blobs::SAMPLES]);
}

#[test]
fn after_running_out_of_memory_batches_are_smaller_and_the_metrics_show_their_size() {
    let (bench, params) = bench(PredictionType::V);
    let expected = whole(&bench, &params);
    assert!(!expected.metrics.contains_key("batch_size"));
    let params = SampleParams { batch_size: 4, ..params };
    for (batch_divisor, batch_size) in [(2, 2.0), (16, 1.0)] {
        let outcome = run(&params, &Context { batch_divisor, ..bench.context(&|| false) }).unwrap();
        std::fs::remove_file(part(&bench)).unwrap();
        assert_eq!((outcome.outputs, outcome.metrics["batch_size"]), (expected.outputs.clone(), batch_size));
    }
}

#[test]
fn a_regression_computes_one_sample_and_can_be_interrupted() {
    let (bench, params) = bench(PredictionType::Regression);
    stop(&bench, &params, 1);
    let outcome = whole(&bench, &SampleParams { batch_size: 2, ..params });
    assert_eq!((samples(&bench, &outcome).samples, outcome.metrics["samples"]), (1, 1.0));
}

#[test]
fn interrupted_sampling_resumes_with_another_batch_size_and_gives_identical_results() {
    let (bench, params) = bench(PredictionType::V);
    let expected = whole(&bench, &params).outputs;
    let single = SampleParams { batch_size: 1, ..params.clone() };
    // Stops in the second batch, then at the end of the third remaining batch.
    stop(&bench, &single, 6);
    stop(&bench, &single, 12);
    messages(&bench);
    let last = run(&SampleParams { batch_size: 2, ..params }, &bench.context(&|| false)).unwrap();
    assert_eq!(last.outputs, expected);
    assert_eq!(messages(&bench), ["resuming after 3 of 6 samples"]);
}

/// Damages the file as a power failure or a faulty disk may.
#[test]
fn damaged_or_truncated_partial_samples_are_sampled_again() {
    let (bench, params) = bench(PredictionType::V);
    let expected = whole(&bench, &params).outputs;
    let single = SampleParams { batch_size: 1, ..params };
    let record = 8 + 32 + 192;
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage, usize); 6] = [
        ("cut within the last", |bytes| bytes.truncate(bytes.len() - 1), 2),
        ("cut within the first", |bytes| bytes.truncate(100), 0),
        ("a pixel of the second", |bytes| bytes[232 + 40 + 50] ^= 1, 1),
        ("the first one's length", |bytes| bytes[7] = 1, 0),
        ("zeros at the end", |bytes| bytes.extend([0; 4096]), 3),
        ("the last batch twice", |bytes| bytes.extend_from_within(464..), 3),
    ];
    for (what, damage, kept) in damages {
        stop(&bench, &single, 4 * 3 + 2);
        let mut bytes = std::fs::read(part(&bench)).unwrap();
        assert_eq!(bytes.len(), 3 * record);
        damage(&mut bytes);
        std::fs::write(part(&bench), bytes).unwrap();
        messages(&bench);
        assert_eq!(whole(&bench, &single).outputs, expected, "{what}");
        let damaged = "; the rest is damaged and sampled again";
        assert_eq!(messages(&bench), [format!("resuming after {kept} of 6 samples{damaged}")], "{what}");
    }
}
