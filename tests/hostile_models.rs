//! Malicious checkpoints: a few hundred altered files, none of which may cause a panic or more allocation than its
//! length justifies. This is a separate test program, because the allocator counts the allocations of all threads.

use std::alloc::System;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};
use srpipe::config::Device;
use srpipe::config::*;
use srpipe::data::Images;
use srpipe::infer::Denoiser;
use srpipe::infer::TiledSampler;
use srpipe::model::{Checkpoint, Config, ModelCost, unet};
use srpipe::random::{Purpose, Stream, stream};
use srpipe::train::initial_state;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The maximum number of bytes that reading a file may allocate, in addition to twenty times its length.
const MAX_READ_BYTES: usize = 4 << 20;
/// The maximum number of bytes that upscaling a picture of 5×5 pixels may allocate, with tiles of at most [`MAX_TILE`]
/// pixels.
const MAX_UPSCALE_BYTES: usize = 256 << 20;
/// The maximum size of sampled tiles. Larger ones would take too long.
const MAX_TILE: usize = 64;

/// Returns a valid checkpoint.
fn checkpoint(kind: AttentionKind, objective: PredictionType) -> Vec<u8> {
    let attention = AttentionParams { kind, resolutions: vec![8], heads: 2, ..Default::default() };
    let model = ModelParams { base_channels: 4, channel_mults: vec![1, 2], attention, ..Default::default() };
    let diffusion = DiffusionParams { objective, timesteps: 100, residual_scale: Some(4.0), ..Default::default() };
    let graph = unet(&model, 16, 4);
    let weights = initial_state(&graph, 1).weights;
    let config = Config { model, diffusion, image_size: 16, scale: 4, cost: ModelCost::of(&graph), steps: 1 };
    Checkpoint { config, weights }.to_bytes().unwrap()
}

/// Splits a file into its header and its data.
fn split(bytes: &[u8]) -> (Value, &[u8]) {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + len]).unwrap(), &bytes[8 + len..])
}

/// Joins a header and data to a file.
fn join(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Collects JSON pointers to all values in a JSON value.
fn collect_pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| collect_pointers(value, format!("{at}/{key}"), found)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| collect_pointers(value, format!("{at}/{i}"), found))
        }
        _ => {}
    }
    found.push(at);
}

/// Returns values that are wrong almost everywhere.
fn wrong_values() -> Vec<Value> {
    let numbers = json!([0, 1, 2, 3, 5, 17, 31, 64, 4096, 1e9, 9e99, 1e-300, -1, -0.5, 0.5, u64::MAX, i64::MIN]);
    let others = json!([null, true, "x", "", [], {}, [0], [1, 1, 1, 1, 1, 1], [1e18, 1e18], "mhsa", "linear"]);
    [numbers, others].iter().flat_map(|list| list.as_array().unwrap().clone()).collect()
}

/// Returns files with one or two wrong values in the configuration, with wrong values in the list of tensors, with
/// flipped bits, and truncated ones.
fn altered(good: &[u8], random: &mut Stream) -> Vec<Vec<u8>> {
    let (header, data) = split(good);
    let config: Value = serde_json::from_str(header["__metadata__"]["srpipe"].as_str().unwrap()).unwrap();
    let mut files = vec![];
    let with_config = |config: &Value| {
        let mut header = header.clone();
        header["__metadata__"]["srpipe"] = json!(config.to_string());
        join(&header, data)
    };
    let mut in_config = vec![];
    collect_pointers(&config, String::new(), &mut in_config);
    let values = wrong_values();
    for pointer in &in_config {
        for _ in 0..4 {
            let mut config = config.clone();
            *config.pointer_mut(pointer).unwrap() = values[random.below(values.len())].clone();
            files.push(with_config(&config));
            let second = &in_config[random.below(in_config.len())];
            if let Some(value) = config.pointer_mut(second) {
                *value = values[random.below(values.len())].clone();
                files.push(with_config(&config));
            }
        }
    }
    let mut in_header = vec![];
    collect_pointers(&header, String::new(), &mut in_header);
    for _ in 0..80 {
        let mut header = header.clone();
        *header.pointer_mut(&in_header[random.below(in_header.len())]).unwrap() =
            values[random.below(values.len())].clone();
        files.push(join(&header, data));
    }
    for i in 0..120 {
        let mut file = good.to_vec();
        // Flip a bit of the header in half of the files.
        let end = if i % 2 == 0 { file.len() - data.len() } else { file.len() };
        file[random.below(end)] ^= 1 << random.below(8);
        files.push(file);
    }
    for _ in 0..30 {
        files.push(good[..random.below(good.len())].to_vec());
    }
    files.push([good, &[0; 100]].concat());
    files
}

/// Calls a function and returns how many bytes it allocates in total.
fn count_allocation<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let region = Region::new(ALLOCATOR);
    let result = call();
    let change = region.change();
    (result, change.bytes_allocated + change.bytes_reallocated.max(0) as usize)
}

#[test]
fn malicious_checkpoints_cause_no_panic_and_bounded_allocation() {
    let mut random = stream(1, Purpose::Synthetic, 0, 0);
    let picture = Images::new(1, 5, 5, (0..75).collect());
    let (mut refused, mut enlarged) = (0, 0);
    for (kind, objective) in
        [(AttentionKind::None, PredictionType::V), (AttentionKind::Cross, PredictionType::Regression)]
    {
        let good = checkpoint(kind, objective);
        for (i, file) in [vec![good.clone()], altered(&good, &mut random)].concat().into_iter().enumerate() {
            let header = String::from_utf8_lossy(&file[..file.len().min(1500)]).into_owned();
            let read = catch_unwind(|| count_allocation(|| Checkpoint::from_bytes(&file)));
            let (read, bytes) = read.unwrap_or_else(|_| panic!("file {i} panics: {header}"));
            assert!(bytes < MAX_READ_BYTES + 20 * file.len(), "file {i} takes {bytes} bytes to read: {header}");
            let Ok(checkpoint) = read else {
                assert!(i > 0, "the unaltered file: {:#}", read.unwrap_err());
                refused += 1;
                continue;
            };
            let enlarge = || {
                let denoiser = Denoiser::open(checkpoint, Device::Cpu).unwrap();
                if denoiser.config.image_size > MAX_TILE {
                    return;
                }
                let steps = denoiser.config.diffusion.timesteps.min(2);
                let sampler = SamplerParams { steps, ..Default::default() };
                assert!(TiledSampler::memory(&denoiser, 5, 5) < 1 << 30);
                // Very large weights may give non-finite values, which are an error as well.
                let _ = TiledSampler::new(&denoiser, &sampler, 0, &picture).sample(0, &mut |_| Ok(()));
            };
            let run = catch_unwind(AssertUnwindSafe(|| count_allocation(enlarge).1));
            let bytes = run.unwrap_or_else(|_| panic!("file {i} panics when upscaling: {header}"));
            assert!(bytes < MAX_UPSCALE_BYTES, "file {i} takes {bytes} bytes to upscale with: {header}");
            enlarged += 1;
        }
    }
    assert!(refused > 400 && enlarged > 50, "{refused} refused, {enlarged} used");
}
