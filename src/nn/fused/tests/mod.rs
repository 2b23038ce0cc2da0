//! Every operation against the composed reference, on odd sizes and every instruction set of this machine.
//!
//! NEON on another machine, with Debian's packages qemu-user and gcc-aarch64-linux-gnu:
//!
//!     rustup target add aarch64-unknown-linux-gnu
//!     export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
//!     export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
//!     cargo test --lib --target aarch64-unknown-linux-gnu nn::

mod networks;
mod operations;

use super::*;
use crate::config::Weights;
use crate::nn::composed::ComposedBackend;
use crate::nn::graph::Shape;
use crate::nn::{Batch, Network, StepSettings, TrainState, create_network_on};

/// Numbers in [-1, 1) that depend on their seed and index.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n + 8).map(|_| next()).skip(8).collect()
}

struct Data {
    x: Vec<f32>,
    t: Vec<f32>,
    target: Vec<f32>,
    weights: Vec<f32>,
}

impl Data {
    fn new(graph: &Graph, batch: usize) -> Self {
        Self {
            x: numbers(1, batch * graph.input_shape().len()),
            t: numbers(2, batch).iter().map(|t| 0.5 + 0.5 * t).collect(),
            target: numbers(3, batch * graph.output_shape().len()),
            weights: numbers(4, batch).iter().map(|w| 1.5 + w).collect(),
        }
    }

    fn batch(&self) -> Batch<'_> {
        Batch { x: &self.x, t: &self.t, target: &self.target, weights: &self.weights }
    }
}

/// Random parameters, scales and shifts and gates as well.
fn state(graph: &Graph) -> TrainState {
    let mut state = TrainState::initial(graph, |name, n| numbers(name.len() as u64 + 77 * n as u64, n));
    for (i, values) in state.weights.iter_mut().enumerate() {
        let changes = numbers(1000 + i as u64, values.len());
        for (value, change) in values.iter_mut().zip(changes) {
            *value += 0.2 * change;
        }
    }
    state.ema = state.weights.clone();
    state
}

fn fused(graph: &Graph, isa: Isa) -> Box<dyn Network> {
    create_network_on(FusedBackend::with_isa(graph.clone(), isa), &state(graph)).unwrap()
}

/// Norm of the difference over the norm.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut differences(a, b)) / norm(&mut b.iter().map(|b| f64::from(*b))).max(1e-6)
}

/// The largest difference, which a single wrong number in many cannot hide from.
fn worst(a: &[f32], b: &[f32]) -> f64 {
    differences(a, b).fold(0.0, |m: f64, v| m.max(v.abs()))
}

fn differences(a: &[f32], b: &[f32]) -> impl Iterator<Item = f64> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b))
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |m: f64, v| m.max(f64::from(v.abs())))
}

/// Output, loss and gradients agree with the composed operations', and have the same bits on every instruction set.
fn check(graph: &Graph, batch: usize) {
    let data = Data::new(graph, batch);
    let reference =
        create_network_on(ComposedBackend::new(graph.clone(), Cpu::default()).unwrap(), &state(graph)).unwrap();
    let y = reference.predict(Weights::Raw, &data.x, &data.t).unwrap();
    let (loss, gradients) = reference.gradients(data.batch()).unwrap();
    let steepest = gradients.iter().map(|g| largest(g)).fold(0.0, f64::max);
    let mut first: Option<(Vec<f32>, f32, Vec<Vec<f32>>)> = None;
    for isa in Isa::ALL.into_iter().filter(|l| l.is_available()) {
        let network = fused(graph, isa);
        let our_y = network.predict(Weights::Raw, &data.x, &data.t).unwrap();
        let (our_loss, ours) = network.gradients(data.batch()).unwrap();
        let what = format!("{isa:?}, batch {batch}, {:?}", graph.input_shape());
        assert!(distance(&our_y, &y) < 1e-4, "output: {} with {what}", distance(&our_y, &y));
        assert!(worst(&our_y, &y) < 1e-4 * largest(&y), "output: {} with {what}", worst(&our_y, &y));
        assert!((our_loss - loss).abs() < 1e-4 * loss, "loss: {our_loss}, not {loss}, with {what}");
        for ((a, b), spec) in ours.iter().zip(&gradients).zip(&graph.params) {
            // Sums of many terms that cancel each other, as the gradient of a gate, or of a bias before a normalisation of
            // single channels, which has none, are as exact as their terms.
            let is_small = largest(b) < 1e-2 * steepest;
            let scale = if is_small { 1e-2 * steepest } else { largest(b) };
            assert!(is_small || distance(a, b) < 1e-4, "{}: {} with {what}", spec.name, distance(a, b));
            assert!(worst(a, b) < 1e-4 * scale, "{}: {} of {scale} with {what}", spec.name, worst(a, b));
        }
        let result = (our_y, our_loss, ours);
        match &first {
            None => first = Some(result),
            Some(first) => assert_eq!(*first, result, "other bits with {what}"),
        }
    }
}

/// A graph of `build`, from the value of a convolution (so that gradients reach it through the operation) and the time.
fn check_op(channels: usize, build: impl Fn(&mut Graph, NodeId, NodeId)) {
    for height in [2, 6, 10] {
        for width in [2, 6, 10] {
            let (mut graph, x, t) = Graph::new(Shape::new(height, width, 6));
            let x = graph.conv3x3(x, "first", channels);
            build(&mut graph, x, t);
            check(&graph, 1);
            check(&graph, 3);
        }
    }
}
