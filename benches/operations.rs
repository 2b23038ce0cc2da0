//! Single operations on batches of 32, forward and in training steps, each as a chain of several of its kind, lest
//! copying the batch in and out be what is measured. Products count floating-point operations as a direct convolution
//! would need them (GFLOP/s), the others the bytes of their inputs and outputs (GB/s); what the machine can do is
//! printed first.
//!
//!     RAYON_NUM_THREADS=1 SRPIPE_SIMD=avx2 cargo bench --bench operations -- products

use std::fmt;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use srpipe::nn::fused::{Fused, Level, peak_flops};
use srpipe::nn::graph::{Graph, NodeId, Op, Shape};
use srpipe::nn::{Batch, Network, StepSettings, TrainState, on};
use srpipe::pipeline::params::Weights;

const BATCH: usize = 32;
/// Operations in a chain.
const CHAIN: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// 3×3, to as many channels as another number says and back.
    Convolution(usize),
    /// 1×1.
    Linear(usize),
    /// From an eighth of the size, doubled three times.
    UpConvolution,
    Attention,
    NormSilu,
    Silu,
    /// Halved three times.
    MaxPool,
    /// Each time with the first value.
    Concat,
    AddVector,
    Gate,
}

/// Operations on images of `size × size` pixels.
#[derive(Clone, Copy)]
struct Case {
    kind: Kind,
    size: usize,
    channels: usize,
}

const fn case(kind: Kind, size: usize, channels: usize) -> Case {
    Case { kind, size, channels }
}

const PRODUCTS: [Case; 11] = [
    case(Kind::Convolution(6), 32, 16),
    case(Kind::Convolution(16), 32, 16),
    case(Kind::Convolution(32), 32, 32),
    case(Kind::Convolution(32), 32, 64),
    case(Kind::Convolution(64), 16, 64),
    case(Kind::Convolution(128), 8, 128),
    case(Kind::Convolution(24), 10, 12),
    case(Kind::Linear(3), 32, 32),
    case(Kind::Linear(128), 8, 128),
    case(Kind::UpConvolution, 32, 64),
    case(Kind::Attention, 8, 128),
];

const STREAMS: [Case; 6] = [
    case(Kind::NormSilu, 32, 32),
    case(Kind::Silu, 32, 32),
    case(Kind::MaxPool, 32, 32),
    case(Kind::Concat, 32, 16),
    case(Kind::AddVector, 8, 128),
    case(Kind::Gate, 8, 128),
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Case { kind, size, channels } = self;
        match kind {
            Kind::Convolution(outputs) => write!(f, "3×3 at {size}², {channels} to {outputs}"),
            Kind::Linear(outputs) => write!(f, "1×1 at {size}², {channels} to {outputs}"),
            _ => write!(f, "{kind:?} at {size}², {channels}"),
        }
    }
}

impl Case {
    /// The chain, behind a 1×1 convolution that makes its operations pass gradients on.
    fn graph(&self) -> Graph {
        let size = if let Kind::UpConvolution = self.kind { self.size / 8 } else { self.size };
        let (mut g, x, t) = Graph::new(Shape::new(size, size, 1));
        let first = g.conv1x1(x, "first", self.channels);
        let vector = g.linear(t, "vector", self.channels);
        let mut x = first;
        for i in 0..CHAIN {
            x = self.link(&mut g, (x, first, vector), i);
        }
        g
    }

    fn link(&self, g: &mut Graph, (x, first, vector): (NodeId, NodeId, NodeId), i: usize) -> NodeId {
        let name = format!("{i}");
        let back_and_forth = |outputs| if i.is_multiple_of(2) { outputs } else { self.channels };
        match self.kind {
            Kind::Convolution(outputs) => g.conv3x3(x, &name, back_and_forth(outputs)),
            Kind::Linear(outputs) => g.conv1x1(x, &name, back_and_forth(outputs)),
            Kind::UpConvolution if i < 3 => g.up_conv2x2(x, &name, self.channels),
            Kind::MaxPool if i < 3 => g.max_pool2x2(x),
            Kind::UpConvolution | Kind::MaxPool => x,
            Kind::Attention => g.attention(x, x, x, 1),
            Kind::NormSilu => {
                let x = g.group_norm(x, &name, 8);
                g.silu(x)
            }
            Kind::Silu => g.silu(x),
            Kind::Concat => g.concat(x, first),
            Kind::AddVector => g.add_vector(x, vector),
            Kind::Gate => g.gate(x, first, &name).0,
        }
    }

    /// A batch's floating-point operations, forward.
    fn flops(&self) -> usize {
        BATCH * self.graph().forward_flops() as usize
    }

    /// The bytes of what a batch's operations read and write, forward; a normalisation and its activation are one.
    fn bytes(&self) -> usize {
        let graph = self.graph();
        let fused = |op: &Op| matches!(*op, Op::Silu { x } if matches!(graph.nodes[x.0].op, Op::GroupNorm { .. }));
        let of = |id: NodeId| graph.shape(id).len();
        let values = graph.nodes.iter().filter(|n| !fused(&n.op));
        let values = values.map(|n| n.shape.len() + n.op.inputs().into_iter().map(of).sum::<usize>());
        4 * BATCH * values.sum::<usize>()
    }
}

fn noise(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 65_537) as f32 / 32_768.5 - 1.0).collect()
}

struct Setup {
    network: Box<dyn Network>,
    x: Vec<f32>,
    t: Vec<f32>,
    target: Vec<f32>,
    weights: Vec<f32>,
}

impl Setup {
    fn new(graph: Graph) -> Self {
        let state = TrainState::initial(&graph, |_, n| noise(n));
        let (input, output) = (BATCH * graph.input_shape().len(), BATCH * graph.output_shape().len());
        let network = Fused::new(graph).and_then(|fused| on(fused, &state)).expect("the state is the graph's");
        Self { network, x: noise(input), t: vec![0.5; BATCH], target: noise(output), weights: vec![1.0; BATCH] }
    }

    fn forward(&self) -> Vec<f32> {
        self.network.predict(Weights::Raw, &self.x, &self.t).expect("shapes fit")
    }

    fn train(&mut self) -> f32 {
        let batch = Batch { x: &self.x, t: &self.t, target: &self.target, weights: &self.weights };
        self.network.train_step(batch, 1, &StepSettings { lr: 0.0, ..Default::default() }).expect("shapes fit").loss
    }
}

#[divan::bench(args = PRODUCTS)]
fn products_forward(bencher: Bencher, case: Case) {
    let setup = Setup::new(case.graph());
    bencher.counter(ItemsCount::new(case.flops())).bench_local(|| setup.forward());
}

/// Forward, and the gradients of both factors.
#[divan::bench(args = PRODUCTS)]
fn products_train(bencher: Bencher, case: Case) {
    let mut setup = Setup::new(case.graph());
    bencher.counter(ItemsCount::new(3 * case.flops())).bench_local(|| setup.train());
}

#[divan::bench(args = STREAMS)]
fn streams_forward(bencher: Bencher, case: Case) {
    let setup = Setup::new(case.graph());
    bencher.counter(BytesCount::new(case.bytes())).bench_local(|| setup.forward());
}

/// Forward, and backward as many bytes again for the gradients.
#[divan::bench(args = STREAMS)]
fn streams_train(bencher: Bencher, case: Case) {
    let mut setup = Setup::new(case.graph());
    bencher.counter(BytesCount::new(2 * case.bytes())).bench_local(|| setup.train());
}

/// A training step of one image whose passes are next to nothing, so that what is done once a parameter counts: packing,
/// the gradient's way through the tape, Adam and the moving average. The bytes are Adam's: five lists read, four written.
#[divan::bench(args = [64, 1024])]
fn update(bencher: Bencher, width: usize) {
    let (mut graph, _, t) = Graph::new(Shape::vector(1));
    let hidden = graph.linear(t, "a", width);
    graph.linear(hidden, "b", width);
    let bytes = 4 * 9 * graph.parameter_count();
    let mut setup = Setup::new(graph);
    let batch = Batch { x: &[0.0], t: &[0.5], target: &noise(width), weights: &[1.0] };
    bencher
        .counter(BytesCount::new(bytes))
        .bench_local(|| setup.network.train_step(batch, 1, &StepSettings::default()).expect("shapes fit").loss);
}

/// Bytes a second that all threads together read and write, copying buffers of `len` bytes.
fn copy_bandwidth(len: usize) -> f64 {
    let of_one = |_: rayon::BroadcastContext| {
        let (from, mut to) = (vec![1u8; len], vec![0u8; len]);
        let (end, mut best) = (Instant::now() + Duration::from_millis(200), 0.0f64);
        while Instant::now() < end {
            let start = Instant::now();
            let repeats = (1 << 24) / len + 1;
            for _ in 0..repeats {
                to.copy_from_slice(std::hint::black_box(&from));
                std::hint::black_box(&mut to);
            }
            best = best.max((2 * len * repeats) as f64 / start.elapsed().as_secs_f64());
        }
        best
    };
    rayon::broadcast(of_one).into_iter().sum()
}

fn main() {
    let level = Level::chosen().expect("an instruction set");
    println!(
        "{} on {} threads: {:.0} GFLOP/s; copying {:.0} GB/s within the second-level cache, {:.0} GB/s in memory",
        level.name(),
        rayon::current_num_threads(),
        peak_flops(level) / 1e9,
        copy_bandwidth(1 << 17) / 1e9,
        copy_bandwidth(1 << 26) / 1e9,
    );
    divan::main();
}
