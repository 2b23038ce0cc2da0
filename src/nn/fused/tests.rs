//! Every operation against the composed reference, on odd sizes and every instruction set of this machine.

use super::*;
use crate::nn::composed::Composed;
use crate::nn::graph::Shape;
use crate::nn::{Batch, Network, StepSettings, TrainState, on};
use crate::pipeline::params::Weights;

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

fn fused(graph: &Graph, level: Level) -> Box<dyn Network> {
    on(Fused::with_level(graph.clone(), level), &state(graph)).unwrap()
}

/// Norm of the difference over the norm.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut b.iter().map(|b| f64::from(*b))).max(1e-6)
}

/// Output, loss and gradients agree with the composed operations', and have the same bits on every instruction set.
fn check(graph: &Graph, batch: usize) {
    let data = Data::new(graph, batch);
    let reference = on(Composed::new(graph.clone(), Cpu::default()), &state(graph)).unwrap();
    let y = reference.predict(Weights::Raw, &data.x, &data.t).unwrap();
    let (loss, gradients) = reference.gradients(data.batch()).unwrap();
    let mut first: Option<(Vec<f32>, f32, Vec<Vec<f32>>)> = None;
    for level in Level::ALL.into_iter().filter(|l| l.is_available()) {
        let network = fused(graph, level);
        let our_y = network.predict(Weights::Raw, &data.x, &data.t).unwrap();
        let (our_loss, ours) = network.gradients(data.batch()).unwrap();
        let what = format!("{level:?}, batch {batch}, {:?}", graph.input_shape());
        assert!(distance(&our_y, &y) < 1e-4, "output: {} with {what}", distance(&our_y, &y));
        assert!((our_loss - loss).abs() < 1e-4 * loss, "loss: {our_loss}, not {loss}, with {what}");
        for ((a, b), spec) in ours.iter().zip(&gradients).zip(&graph.params) {
            // A bias before a normalisation of single channels has no gradient but rounding errors.
            let scale = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(scale < 1e-6 || distance(a, b) < 1e-4, "{}: {} with {what}", spec.name, distance(a, b));
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
    for (height, width, batch) in [(2, 6, 3), (6, 10, 1), (10, 2, 3)] {
        let (mut graph, x, t) = Graph::new(Shape::new(height, width, 6));
        let x = graph.conv3x3(x, "first", channels);
        build(&mut graph, x, t);
        check(&graph, batch);
    }
}

#[test]
fn convolutions() {
    for (channels, outputs) in [(8, 12), (12, 24), (24, 8), (3, 5), (17, 40)] {
        check_op(channels, |g, x, _| {
            g.conv3x3(x, "conv", outputs);
        });
    }
    let (mut graph, x, _) = Graph::new(Shape::new(12, 20, 6));
    let x = graph.conv3x3(x, "a", 48);
    graph.conv3x3(x, "b", 32);
    check(&graph, 5);
    // Register tiles of four panels, of two and of one, and of a part of one.
    for outputs in [72, 112, 124] {
        let (mut graph, x, _) = Graph::new(Shape::new(6, 10, 6));
        let x = graph.conv3x3(x, "a", outputs);
        graph.conv1x1(x, "b", outputs);
        check(&graph, 3);
    }
}

#[test]
fn linear_layers_and_added_vectors() {
    for channels in [8, 12, 24] {
        check_op(channels, |g, x, _| {
            g.conv1x1(x, "linear", 3 + channels);
        });
        check_op(channels, |g, x, t| {
            let v = g.linear(t, "a", 5);
            let v = g.silu(v);
            let v = g.linear(v, "b", channels);
            let y = g.add_vector(x, v);
            let z = g.add_vector(x, v);
            let z = g.conv3x3(z, "c", channels);
            g.concat(y, z);
        });
    }
}

#[test]
fn transposed_convolutions() {
    for channels in [8, 12, 24] {
        check_op(channels, |g, x, _| {
            g.up_conv2x2(x, "up", channels / 2 + 1);
        });
    }
}

#[test]
fn normalisations_and_activations() {
    for (channels, groups) in [(8, 8), (12, 4), (24, 1), (24, 8)] {
        check_op(channels, |g, x, _| {
            let x = g.group_norm(x, "norm", groups);
            g.silu(x);
        });
        check_op(channels, |g, x, _| {
            let y = g.group_norm(x, "norm", groups);
            let z = g.silu(y);
            let z = g.concat(z, x);
            g.concat(y, z);
        });
        check_op(channels, |g, x, _| {
            let x = g.silu(x);
            g.group_norm(x, "norm", groups);
        });
    }
}

#[test]
fn pooling_and_concatenation() {
    for channels in [8, 12, 24] {
        check_op(channels, |g, x, _| {
            let pooled = g.max_pool2x2(x);
            let up = g.up_conv2x2(pooled, "up", 4);
            let both = g.concat(up, x);
            let y = g.conv3x3(both, "conv", 8);
            let again = g.concat(both, y);
            // Reads `x` after it was concatenated.
            let z = g.silu(x);
            g.concat(again, z);
        });
        let (mut graph, x, _) = Graph::new(Shape::new(6, 6, channels));
        let y = graph.conv3x3(x, "conv", 4);
        let y = graph.concat(x, y);
        graph.max_pool2x2(y);
        check(&graph, 2);
    }
}

#[test]
fn attention_with_a_gate() {
    for (channels, heads) in [(8, 1), (12, 3), (24, 4)] {
        check_op(channels, |g, x, _| {
            let q = g.conv1x1(x, "query", channels / 2 * heads);
            let k = g.conv1x1(x, "key", channels / 2 * heads);
            let v = g.conv1x1(x, "value", channels);
            let y = g.attention(q, k, v, heads);
            g.gate(y, x, "gamma");
        });
        check_op(channels, |g, x, _| {
            let small = g.max_pool2x2(x);
            let values = g.silu(small);
            let y = g.attention(x, small, values, heads);
            g.gate(y, x, "gamma");
        });
    }
}

/// More queries than are weighed at a time.
#[test]
fn attention_on_larger_images() {
    let (mut graph, x, _) = Graph::new(Shape::new(12, 14, 6));
    let q = graph.conv1x1(x, "query", 4);
    let k = graph.conv1x1(x, "key", 4);
    let v = graph.conv1x1(x, "value", 10);
    graph.attention(q, k, v, 2);
    check(&graph, 2);
}

#[test]
fn linear_attention() {
    for (channels, heads) in [(8, 1), (12, 3), (24, 4), (40, 2)] {
        check_op(channels, |g, x, _| {
            let q = g.conv1x1(x, "query", 5 * heads);
            let k = g.conv1x1(x, "key", 5 * heads);
            let v = g.conv1x1(x, "value", channels);
            let y = g.linear_attention(q, k, v, heads);
            g.gate(y, x, "gamma");
        });
        check_op(channels, |g, x, _| {
            let small = g.max_pool2x2(x);
            let values = g.silu(small);
            let y = g.linear_attention(x, small, values, heads);
            g.gate(y, x, "gamma");
        });
    }
}

#[test]
fn normalisations_with_film() {
    for (channels, groups) in [(8, 8), (12, 4), (24, 1), (24, 8)] {
        check_op(channels, |g, x, t| {
            let v = g.linear(t, "film", 2 * channels);
            let y = g.film_norm(x, v, "norm", groups);
            g.silu(y);
        });
        // The film of two normalisations, and an input that is read again.
        check_op(channels, |g, x, t| {
            let v = g.linear(t, "film", 2 * channels);
            let y = g.film_norm(x, v, "a", groups);
            let z = g.silu(y);
            let z = g.conv3x3(z, "conv", channels);
            let z = g.film_norm(z, v, "b", groups);
            let z = g.silu(z);
            g.concat(z, x);
        });
    }
}

#[test]
fn sums_and_means() {
    for channels in [8, 12, 24] {
        check_op(channels, |g, x, _| {
            let a = g.silu(x);
            let a = g.conv3x3(a, "a", channels);
            let y = g.add(a, x);
            let b = g.conv1x1(y, "b", channels);
            // Both read elsewhere as well, and a sum of sums.
            let z = g.add(y, b);
            let z = g.add(z, b);
            g.concat(z, y);
        });
        check_op(channels, |g, x, _| {
            let small = g.mean_pool(x, 2);
            let part = g.mean_pool_of(x, 3..7, 2);
            let both = g.concat(small, part);
            let up = g.up_conv2x2(both, "up", 4);
            g.concat(up, x);
        });
        check_op(channels, |g, x, _| {
            g.mean_pool_of(x, 1..channels - 2, 2);
        });
    }
    let (mut graph, x, _) = Graph::new(Shape::new(12, 12, 6));
    let tokens = graph.mean_pool_of(x, 3..6, 4);
    let x = graph.conv1x1(tokens, "a", 20);
    let mean = graph.mean_pool(x, 3);
    let v = graph.linear(mean, "b", 20);
    graph.add_vector(x, v);
    check(&graph, 3);
}

#[test]
fn times_and_places() {
    for channels in [8, 10, 34] {
        check_op(channels, |g, x, t| {
            let wave = g.sinusoid(t, channels);
            let v = g.linear(wave, "v", channels);
            let x = g.add_vector(x, v);
            let places = g.positions(g.shape(x), 4);
            let y = g.conv1x1(places, "places", channels);
            let z = g.add(y, x);
            g.add(z, places);
        });
    }
}

/// Two 3×3 convolutions, each normalised and activated.
fn block(g: &mut Graph, x: NodeId, name: &str, outputs: usize) -> NodeId {
    let mut y = x;
    for i in [0, 3] {
        y = g.conv3x3(y, &format!("{name}.{i}"), outputs);
        let groups = (1..=8).rev().find(|n| outputs.is_multiple_of(*n)).unwrap();
        y = g.group_norm(y, &format!("{name}.{}", i + 1), groups);
        y = g.silu(y);
    }
    y
}

/// The U-Net of the seed model, with attention in its bottleneck or without.
fn unet(size: usize, base: usize, attention: bool) -> Graph {
    let (mut graph, x, t) = Graph::new(Shape::new(size, size, 6));
    let g = &mut graph;
    let e1 = block(g, x, "enc1", base);
    let pooled = g.max_pool2x2(e1);
    let e2 = block(g, pooled, "enc2", 2 * base);
    let pooled = g.max_pool2x2(e2);
    let z = block(g, pooled, "bottleneck", 4 * base);
    let v = g.linear(t, "time_embed.0", base);
    let v = g.silu(v);
    let v = g.linear(v, "time_embed.2", 4 * base);
    let mut z = g.add_vector(z, v);
    if attention {
        let q = g.conv1x1(z, "attention.query", base / 2);
        let k = g.conv1x1(z, "attention.key", base / 2);
        let v = g.conv1x1(z, "attention.value", 4 * base);
        let y = g.attention(q, k, v, 1);
        (z, _) = g.gate(y, z, "attention.gamma");
    }
    let up = g.up_conv2x2(z, "upconv2", 2 * base);
    let d2 = g.concat(up, e2);
    let d2 = block(g, d2, "dec2", 2 * base);
    let up = g.up_conv2x2(d2, "upconv1", base);
    let d1 = g.concat(up, e1);
    let d1 = block(g, d1, "dec1", base);
    g.conv1x1(d1, "out", 3);
    graph
}

#[test]
fn the_seed_unet() {
    check(&unet(32, 8, true), 2);
    check(&unet(8, 16, false), 9);
    // Widths that no vector divides.
    check(&unet(12, 6, true), 3);
    check(&unet(8, 10, true), 1);
}

fn trained(graph: &Graph, data: &Data, clip: Option<f64>, mut network: Box<dyn Network>) -> TrainState {
    for step in 0..3 {
        let settings = StepSettings {
            lr: 1e-3 * (step + 1) as f64,
            clip,
            weight_decay: 0.3,
            ema_decay: 0.9,
            ..Default::default()
        };
        network.train_step(data.batch(), 1, &settings).unwrap();
    }
    assert_eq!(graph.params.len(), network.state().weights.len());
    network.state()
}

#[test]
fn optimiser_steps_follow_the_reference() {
    // Two channels a group at least: a bias before the normalisation of a single channel has no gradient, and Adam
    // makes whole steps of its rounding errors.
    let graph = unet(8, 16, true);
    let data = Data::new(&graph, 4);
    for clip in [None, Some(0.1)] {
        let reference = on(Composed::new(graph.clone(), Cpu::default()), &state(&graph)).unwrap();
        let reference = trained(&graph, &data, clip, reference);
        let ours = trained(&graph, &data, clip, fused(&graph, Level::best()));
        for (a, b) in [(&ours.weights, &reference.weights), (&ours.ema, &reference.ema)] {
            for (a, b) in a.iter().zip(b) {
                assert!(distance(a, b) < 1e-3, "{}", distance(a, b));
            }
        }
        assert_eq!(ours.step, 3);
    }
}

#[test]
fn bytes_depend_neither_on_the_number_of_threads_nor_on_the_instruction_set() {
    let graph = unet(16, 16, true);
    let data = Data::new(&graph, 11);
    let with = |threads: usize, level: Level| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let run = || {
            let y = fused(&graph, level).predict(Weights::Raw, &data.x, &data.t).unwrap();
            (y, trained(&graph, &data, Some(1.0), fused(&graph, level)))
        };
        let result = std::sync::Mutex::new(None);
        pool.in_place_scope(|scope| scope.spawn(|_| *result.lock().unwrap() = Some(run())));
        result.into_inner().unwrap().unwrap()
    };
    let one = with(1, Level::best());
    assert_eq!(one, with(2, Level::best()));
    for level in Level::ALL.into_iter().filter(|l| l.is_available()) {
        assert_eq!(one, with(3, level), "{}", level.name());
    }
}
