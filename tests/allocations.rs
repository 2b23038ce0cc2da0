//! The memory that a step allocates once its buffers exist. This is a separate test program, because the allocator
//! counts the allocations of all threads.

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use srpipe::config::Device;
use srpipe::config::{AttentionKind, AttentionParams, ModelParams, Weights};
use srpipe::model::unet;
use srpipe::nn::composed::memory;
use srpipe::nn::{Batch, CpuBackend, Network, StepSettings, create_cpu_network, create_network};
use srpipe::train::initial_state;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Returns the median number of bytes that a call allocates, after warm-up calls.
fn median_bytes(mut call: impl FnMut()) -> usize {
    const CALLS: usize = 15;
    (0..CALLS).for_each(|_| call());
    let region = |call: &mut dyn FnMut()| {
        let region = Region::new(ALLOCATOR);
        call();
        let change = region.change();
        change.bytes_allocated + change.bytes_reallocated.max(0) as usize
    };
    let mut bytes: Vec<usize> = (0..CALLS).map(|_| region(&mut call)).collect();
    bytes.sort();
    bytes[CALLS / 2]
}

/// A network and a batch.
struct Case {
    network: Box<dyn Network>,
    x: Vec<f32>,
    t: Vec<f32>,
    target: Vec<f32>,
    weights: Vec<f32>,
}

impl Case {
    fn new(base_channels: usize, batch: usize) -> Self {
        let attention = AttentionParams { kind: AttentionKind::Cross, resolutions: vec![8, 4], ..Default::default() };
        let graph = unet(&ModelParams { base_channels, attention, ..Default::default() }, 16, 4);
        let (input, output) = (graph.input_shape().len(), graph.output_shape().len());
        let network = create_network(Device::Cpu, graph.clone(), &initial_state(&graph, 1)).unwrap();
        let numbers = |n: usize| (0..n).map(|i| (i * 7919 % 65_537) as f32 / 32_768.5 - 1.0).collect();
        let t = (0..batch).map(|i| i as f32 / batch as f32).collect();
        Self { network, x: numbers(batch * input), t, target: numbers(batch * output), weights: vec![1.0; batch] }
    }

    /// Returns the number of bytes that a training step allocates.
    fn training_step(&mut self) -> usize {
        let batch = Batch { x: &self.x, t: &self.t, target: &self.target, weights: &self.weights };
        let settings = StepSettings { clip: Some(1.0), ema_decay: 0.9, ..Default::default() };
        median_bytes(|| assert!(self.network.train_step(batch, 1, &settings).unwrap().loss > 0.0))
    }

    /// Returns the number of bytes that a forward pass allocates.
    fn forward_pass(&self) -> usize {
        let mut y = vec![0.0; self.target.len()];
        median_bytes(|| self.network.predict_into(Weights::Raw, &self.x, &self.t, &mut y).unwrap())
    }
}

/// Serialises the tests, because allocations are counted for the whole process.
fn lock_allocator() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A training step allocates only bookkeeping: lists with one entry per parameter, dfdx's tape and its map of
/// gradients. This takes a few hundred bytes per parameter, for any width and batch size.
#[test]
fn a_step_after_warm_up_allocates_only_bookkeeping() {
    let _lock = lock_allocator();
    let mut small = Case::new(4, 2);
    let mut large = Case::new(16, 32);
    assert_eq!([small.forward_pass(), large.forward_pass()], [0, 0], "bytes per forward pass");
    let (parameters, steps) = (small.network.graph().params.len(), [small.training_step(), large.training_step()]);
    assert!(steps.iter().all(|bytes| *bytes < 320 * parameters), "{steps:?} bytes per training step");
    assert!(steps[0].abs_diff(steps[1]) < 1024, "{steps:?} bytes per training step");
}

/// Returns the memory that the composed operations use after a pass, and the predicted memory, in bytes. They free no
/// memory until a pass of another kind runs; on a GPU, they use the same amount of device memory.
fn used_and_predicted(kind: AttentionKind, training: bool, batch: usize) -> [f64; 2] {
    let attention = AttentionParams { kind, resolutions: vec![16, 8], ..Default::default() };
    let model = ModelParams { base_channels: 8, channel_mults: vec![1, 2], attention, ..Default::default() };
    let graph = unet(&model, 16, 4);
    let state = initial_state(&graph, 1);
    let (x, target) = (vec![0.5; batch * 16 * 16 * 6], vec![0.5; batch * 16 * 16 * 3]);
    let (t, weights) = (vec![0.5; batch], vec![1.0; batch]);
    let region = Region::new(ALLOCATOR);
    let mut network = create_cpu_network(CpuBackend::Composed, graph.clone(), &state).unwrap();
    if training {
        let batch = Batch { x: &x, t: &t, target: &target, weights: &weights };
        network.train_step(batch, 1, &StepSettings::default()).unwrap();
    } else {
        network.predict(Weights::Raw, &x, &t).unwrap();
    }
    let change = region.change();
    let used = change.bytes_allocated - change.bytes_deallocated;
    let predicted = memory::parameter_bytes(&graph) + batch * memory::bytes_per_image(&graph, training);
    [used as f64, predicted as f64]
}

#[test]
fn memory_of_composed_operations_matches_the_prediction() {
    let _lock = lock_allocator();
    // The first pass allocates the buffers of matrix products.
    used_and_predicted(AttentionKind::Mhsa, true, 16);
    for kind in [AttentionKind::None, AttentionKind::Mhsa, AttentionKind::Linear, AttentionKind::Cross] {
        for (training, batch) in [(true, 4), (true, 16), (false, 4), (false, 16)] {
            let [used, predicted] = used_and_predicted(kind, training, batch);
            let ratio = predicted / used;
            assert!((0.75..2.5).contains(&ratio), "{kind:?}, training {training}, batch {batch}: {ratio} of {used}");
        }
    }
}
