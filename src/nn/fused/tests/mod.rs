//! Tests every operation against the composed reference, with every instruction set of this machine and with sizes that
//! are not multiples of the vector width.
//!
//! To test NEON on another machine, with Debian's packages qemu-user and gcc-aarch64-linux-gnu:
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

/// Returns pseudo-random numbers in [-1, 1).
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

/// Random inputs and targets for a graph.
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

/// Returns a state with random parameters, including scales, shifts and gates.
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

/// Creates the network on the fused backend, with the parameters of [`state`].
fn fused(graph: &Graph, isa: Isa) -> Box<dyn Network> {
    create_network_on(FusedBackend::with_isa(graph.clone(), isa), &state(graph)).unwrap()
}

/// Returns the norm of the difference divided by the norm of `b`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut differences(a, b)) / norm(&mut b.iter().map(|b| f64::from(*b))).max(1e-6)
}

/// Returns the largest absolute difference, to catch single wrong values among many.
fn max_difference(a: &[f32], b: &[f32]) -> f64 {
    differences(a, b).fold(0.0, |m: f64, v| m.max(v.abs()))
}

fn differences(a: &[f32], b: &[f32]) -> impl Iterator<Item = f64> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b))
}

fn max_abs(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |m: f64, v| m.max(f64::from(v.abs())))
}

/// Checks that output, loss and gradients agree with those of the composed operations, and are bit-identical for all
/// instruction sets.
fn check(graph: &Graph, batch: usize) {
    let data = Data::new(graph, batch);
    let reference =
        create_network_on(ComposedBackend::new(graph.clone(), Cpu::default()).unwrap(), &state(graph)).unwrap();
    let y = reference.predict(Weights::Raw, &data.x, &data.t).unwrap();
    let (loss, gradients) = reference.gradients(data.batch()).unwrap();
    let max_gradient = gradients.iter().map(|g| max_abs(g)).fold(0.0, f64::max);
    let mut first: Option<(Vec<f32>, f32, Vec<Vec<f32>>)> = None;
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let network = fused(graph, isa);
        let our_y = network.predict(Weights::Raw, &data.x, &data.t).unwrap();
        let (our_loss, ours) = network.gradients(data.batch()).unwrap();
        let case = format!("{isa:?}, batch {batch}, {:?}", graph.input_shape());
        assert!(distance(&our_y, &y) < 1e-4, "output: {} with {case}", distance(&our_y, &y));
        assert!(max_difference(&our_y, &y) < 1e-4 * max_abs(&y), "output: {} with {case}", max_difference(&our_y, &y));
        assert!((our_loss - loss).abs() < 1e-4 * loss, "loss: expected {loss}, found {our_loss} with {case}");
        for ((a, b), spec) in ours.iter().zip(&gradients).zip(&graph.params) {
            // A sum of many terms that cancel is only as accurate as its terms, for example the gradient of a gate, or
            // that of a bias before a normalisation of single channels, which is zero.
            let is_small = max_abs(b) < 1e-2 * max_gradient;
            let scale = if is_small { 1e-2 * max_gradient } else { max_abs(b) };
            assert!(is_small || distance(a, b) < 1e-4, "{}: {} with {case}", spec.name, distance(a, b));
            assert!(
                max_difference(a, b) < 1e-4 * scale,
                "{}: {} of {scale} with {case}",
                spec.name,
                max_difference(a, b)
            );
        }
        let result = (our_y, our_loss, ours);
        match &first {
            None => first = Some(result),
            Some(first) => assert_eq!(*first, result, "different bits with {case}"),
        }
    }
}

/// Checks graphs of several sizes with the operations that `build` appends. It gets the value of a convolution, so that
/// gradients pass through the operations, and the time.
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
