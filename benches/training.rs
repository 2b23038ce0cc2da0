//! A training step and a forward pass of the tutorial's U-Net: 32×32 pixels, batches of 32.
//!
//!     RAYON_NUM_THREADS=2 SRPIPE_SIMD=avx2 cargo bench --bench training -- fused

use divan::{Bencher, counter::ItemsCount};
use srpipe::model::unet;
use srpipe::nn::composed::Composed;
use srpipe::nn::fused::Fused;
use srpipe::nn::{Batch, Network, StepSettings, TrainState, on};
use srpipe::pipeline::params::{AttentionKind, ModelParams, Weights};

const BATCH: usize = 32;

/// A network of new weights, and images for it.
struct Setup {
    network: Box<dyn Network>,
    x: Vec<f32>,
    t: Vec<f32>,
    target: Vec<f32>,
    weights: Vec<f32>,
}

impl Setup {
    fn new(base_channels: usize, kind: AttentionKind, fused: bool) -> Self {
        let graph = unet(&ModelParams::tutorial(base_channels, kind), 32, 4);
        let state = TrainState::initial(&graph, |name, n| noise(name.len(), n));
        let x = noise(1, BATCH * graph.input_shape().len());
        let target = noise(2, BATCH * graph.output_shape().len());
        let t = (0..BATCH).map(|i| i as f32 / BATCH as f32).collect();
        let network = match fused {
            true => on(Fused::new(graph).expect("an instruction set"), &state),
            false => on(Composed::new(graph, dfdx::prelude::Cpu::default()), &state),
        };
        Self { network: network.expect("the state is the graph's"), x, t, target, weights: vec![1.0; BATCH] }
    }

    fn train(&mut self) -> f32 {
        let batch = Batch { x: &self.x, t: &self.t, target: &self.target, weights: &self.weights };
        let settings = StepSettings { lr: 1e-4, clip: Some(1.0), ema_decay: 0.999, ..Default::default() };
        self.network.train_step(batch, 1, &settings).expect("shapes fit").loss
    }

    fn forward(&self) -> Vec<f32> {
        self.network.predict(Weights::Raw, &self.x, &self.t).expect("shapes fit")
    }
}

/// Numbers in [-1, 1).
fn noise(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 65_537) as f32 / 32_768.5 - 1.0).collect()
}

#[divan::bench(args = [16, 32, 64])]
fn fused_train(bencher: Bencher, base: usize) {
    let mut setup = Setup::new(base, AttentionKind::None, true);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| setup.train());
}

#[divan::bench(args = [16, 32, 64])]
fn fused_forward(bencher: Bencher, base: usize) {
    let setup = Setup::new(base, AttentionKind::None, true);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| setup.forward());
}

#[divan::bench]
fn fused_train_with_attention(bencher: Bencher) {
    let mut setup = Setup::new(32, AttentionKind::Seed, true);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| setup.train());
}

#[divan::bench(sample_count = 3)]
fn composed_train(bencher: Bencher) {
    let mut setup = Setup::new(32, AttentionKind::None, false);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| setup.train());
}

fn main() {
    divan::main();
}
