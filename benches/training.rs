//! Benchmarks of a training step and a forward pass of the tutorial's U-Net: 32×32 pixels, batches of 32.
//!
//!     RAYON_NUM_THREADS=2 SRPIPE_SIMD=avx2 cargo bench --bench training -- fused

mod setup;

use std::fmt;

use divan::{Bencher, counter::ItemsCount};
use setup::{BATCH, Setup};
use srpipe::config::{AttentionKind, AttentionParams, ModelParams};
use srpipe::model::unet;
use srpipe::nn::{CpuBackend, StepSettings, create_cpu_network};

fn network(base_channels: usize, attention: AttentionParams, backend: CpuBackend) -> Setup {
    let model = ModelParams { attention, ..ModelParams::tutorial(base_channels, AttentionKind::None) };
    let graph = unet(&model, 32, 4);
    Setup::new(BATCH, graph, |graph, state| {
        create_cpu_network(backend, graph, state).expect("the state fits the graph")
    })
}

fn plain(base_channels: usize, backend: CpuBackend) -> Setup {
    network(base_channels, AttentionParams::default(), backend)
}

fn step(setup: &mut Setup) -> f32 {
    setup.train(&StepSettings { lr: 1e-4, clip: Some(1.0), ema_decay: 0.999, ..Default::default() })
}

#[divan::bench(args = [16, 32, 64])]
fn fused_train(bencher: Bencher, base: usize) {
    let mut setup = plain(base, CpuBackend::Fused);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| step(&mut setup));
}

#[divan::bench(args = [16, 32, 64])]
fn fused_forward(bencher: Bencher, base: usize) {
    let mut setup = plain(base, CpuBackend::Fused);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| setup.forward());
}

/// A kind of attention at one resolution, with four heads (the tutorial's has one); base 32.
#[derive(Debug, Clone, Copy)]
struct Attention(AttentionKind, usize);

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?} at {1}²", self.0, self.1)
    }
}

fn attentions() -> impl Iterator<Item = Attention> {
    let kinds = [AttentionKind::Sagan, AttentionKind::Mhsa, AttentionKind::Linear, AttentionKind::Cross];
    [8, 16, 32].into_iter().flat_map(move |size| kinds.map(|kind| Attention(kind, size)))
}

fn attentive(Attention(kind, size): Attention) -> Setup {
    network(32, AttentionParams { kind, resolutions: vec![size], ..Default::default() }, CpuBackend::Fused)
}

#[divan::bench(args = attentions(), sample_count = 15)]
fn attention_train(bencher: Bencher, attention: Attention) {
    let mut setup = attentive(attention);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| step(&mut setup));
}

#[divan::bench(args = attentions(), sample_count = 15)]
fn attention_forward(bencher: Bencher, attention: Attention) {
    let mut setup = attentive(attention);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| setup.forward());
}

#[divan::bench(sample_count = 3)]
fn composed_train(bencher: Bencher) {
    let mut setup = plain(32, CpuBackend::Composed);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| step(&mut setup));
}

fn main() {
    divan::main();
}
