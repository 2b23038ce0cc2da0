//! Single operations, forward and in a training step, batches of 32. "Items" are floating-point operations as a direct
//! convolution counts them, so `Gitem/s` reads GFLOP/s; the machine's peak is printed first. Operations that multiply
//! nothing count a multiply-add a value.
//!
//!     RAYON_NUM_THREADS=1 cargo bench --bench operations

use std::fmt;

use divan::{Bencher, counter::ItemsCount};
use srpipe::nn::fused::Fused;
use srpipe::nn::graph::{Graph, Shape};
use srpipe::nn::{Batch, Network, StepSettings, TrainState, on};
use srpipe::pipeline::params::Weights;

const BATCH: usize = 32;

#[derive(Clone, Copy)]
enum Operation {
    Convolution { outputs: usize },
    UpConvolution { outputs: usize },
    NormSilu,
    MaxPool,
    Attention,
}

/// An operation on an image of `size × size` pixels.
#[derive(Clone, Copy)]
struct Case {
    operation: Operation,
    size: usize,
    channels: usize,
}

const CASES: [Case; 10] = [
    Case { operation: Operation::Convolution { outputs: 16 }, size: 32, channels: 6 },
    Case { operation: Operation::Convolution { outputs: 16 }, size: 32, channels: 16 },
    Case { operation: Operation::Convolution { outputs: 32 }, size: 32, channels: 32 },
    Case { operation: Operation::Convolution { outputs: 32 }, size: 32, channels: 64 },
    Case { operation: Operation::Convolution { outputs: 64 }, size: 16, channels: 64 },
    Case { operation: Operation::Convolution { outputs: 128 }, size: 8, channels: 128 },
    Case { operation: Operation::UpConvolution { outputs: 64 }, size: 8, channels: 128 },
    Case { operation: Operation::NormSilu, size: 32, channels: 32 },
    Case { operation: Operation::MaxPool, size: 32, channels: 32 },
    Case { operation: Operation::Attention, size: 8, channels: 128 },
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Case { operation, size, channels } = self;
        match operation {
            Operation::Convolution { outputs } => write!(f, "convolution {size}² {channels} to {outputs}"),
            Operation::UpConvolution { outputs } => write!(f, "up-convolution {size}² {channels} to {outputs}"),
            Operation::NormSilu => write!(f, "norm and SiLU {size}² {channels}"),
            Operation::MaxPool => write!(f, "max pool {size}² {channels}"),
            Operation::Attention => write!(f, "attention {size}² {channels}"),
        }
    }
}

impl Case {
    fn graph(&self) -> Graph {
        let (mut g, x, _) = Graph::new(Shape::new(self.size, self.size, self.channels));
        match self.operation {
            Operation::Convolution { outputs } => g.conv3x3(x, "op", outputs),
            Operation::UpConvolution { outputs } => g.up_conv2x2(x, "op", outputs),
            Operation::NormSilu => {
                let x = g.group_norm(x, "op", 8);
                g.silu(x)
            }
            Operation::MaxPool => g.max_pool2x2(x),
            Operation::Attention => g.attention(x, x, x, 1),
        };
        g
    }

    /// A forward pass's operations on a batch.
    fn flops(&self) -> usize {
        let graph = self.graph();
        let products = graph.forward_flops() as usize;
        BATCH * if products > 0 { products } else { 2 * graph.input_shape().len() }
    }
}

fn noise(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 65_537) as f32 / 32_768.5 - 1.0).collect()
}

fn network(graph: &Graph) -> Box<dyn Network> {
    let state = TrainState::initial(graph, |_, n| noise(n));
    on(Fused::new(graph.clone()), &state).expect("the state is the graph's")
}

#[divan::bench(args = CASES)]
fn forward(bencher: Bencher, case: Case) {
    let graph = case.graph();
    let (network, x, t) = (network(&graph), noise(BATCH * graph.input_shape().len()), vec![0.5; BATCH]);
    bencher
        .counter(ItemsCount::new(case.flops()))
        .bench_local(|| network.predict(Weights::Raw, &x, &t).expect("shapes fit"));
}

/// Forward pass, gradient of the filter and update; an input has no gradient.
#[divan::bench(args = CASES.iter().copied().filter(|c| matches!(c.operation, Operation::Convolution { .. })))]
fn train(bencher: Bencher, case: Case) {
    let graph = case.graph();
    let mut network = network(&graph);
    let (x, t) = (noise(BATCH * graph.input_shape().len()), vec![0.5; BATCH]);
    let (target, weights) = (noise(BATCH * graph.output_shape().len()), vec![1.0; BATCH]);
    let batch = Batch { x: &x, t: &t, target: &target, weights: &weights };
    bencher
        .counter(ItemsCount::new(2 * case.flops()))
        .bench_local(|| network.train_step(batch, &StepSettings::default()).expect("shapes fit").loss);
}

fn main() {
    let (graph, _, _) = Graph::new(Shape::vector(1));
    let fused = Fused::new(graph);
    println!("{}: peak {:.0} GFLOP/s a core", fused.level().name(), fused.peak_flops() / 1e9);
    divan::main();
}
