//! Benchmarks of single operations on batches of 32, in forward passes and in training steps. Each benchmark runs a
//! chain of several operations of one kind, so that copying the batch in and out does not dominate.
//!
//! Products report floating-point operations as a direct convolution would need them: an "item" is one operation, and
//! "Gitem/s" are GFLOP/s. With Winograd's algorithm, a 3×3 convolution may exceed the peak. Other operations report the
//! bytes of their inputs and outputs (GB/s). The peak speed and bandwidth of the machine are printed first.
//!
//!     RAYON_NUM_THREADS=1 SRPIPE_SIMD=avx2 cargo bench --bench operations -- products

mod setup;

use std::fmt;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use setup::{BATCH, Setup};
use srpipe::nn::fused::{FusedBackend, Isa, peak_flops};
use srpipe::nn::graph::{Graph, NodeId, Op, Shape, Silu};
use srpipe::nn::{Network, StepSettings, TrainState, create_network_on};

/// The number of operations in a chain.
const CHAIN: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A 3×3 convolution, alternately to this number of channels and back.
    Convolution(usize),
    /// A 1×1 convolution.
    Linear(usize),
    /// Three upsampling convolutions, starting from an eighth of the size.
    UpConvolution,
    /// Self-attention with this number of heads.
    Attention(usize),
    /// Attention to a quarter of the positions, like the tokens of a smaller image.
    CrossAttention(usize),
    LinearAttention(usize),
    NormSilu,
    /// A normalisation with scale and shift computed from a vector.
    FilmSilu,
    Silu,
    /// Adds the first value each time.
    Add,
    /// Halves the size three times.
    MaxPool,
    MeanPool,
    /// Concatenates the first value each time.
    Concat,
    AddVector,
    Gate,
}

/// A chain of operations on images of `size × size` pixels.
#[derive(Clone, Copy)]
struct Case {
    kind: Kind,
    size: usize,
    channels: usize,
}

const fn case(kind: Kind, size: usize, channels: usize) -> Case {
    Case { kind, size, channels }
}

const PRODUCTS: [Case; 18] = [
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
    case(Kind::Attention(1), 8, 128),
    case(Kind::Attention(4), 8, 128),
    case(Kind::Attention(4), 16, 64),
    case(Kind::Attention(4), 32, 32),
    case(Kind::Attention(1), 32, 32),
    case(Kind::CrossAttention(4), 16, 64),
    case(Kind::LinearAttention(4), 16, 64),
    case(Kind::LinearAttention(4), 32, 32),
];

const STREAMS: [Case; 9] = [
    case(Kind::NormSilu, 32, 32),
    case(Kind::FilmSilu, 32, 32),
    case(Kind::Silu, 32, 32),
    case(Kind::Add, 32, 32),
    case(Kind::MaxPool, 32, 32),
    case(Kind::MeanPool, 32, 32),
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
            Kind::Attention(heads) => write!(f, "attention of {heads} at {size}², {channels}"),
            Kind::CrossAttention(heads) => write!(f, "cross attention of {heads} at {size}², {channels}"),
            Kind::LinearAttention(heads) => write!(f, "linear attention of {heads} at {size}², {channels}"),
            _ => write!(f, "{kind:?} at {size}², {channels}"),
        }
    }
}

impl Case {
    /// Returns the chain, after a 1×1 convolution whose weights require gradients of the chain.
    fn graph(&self) -> Graph {
        let size = if let Kind::UpConvolution = self.kind { self.size / 8 } else { self.size };
        let (mut g, x, t) = Graph::new(Shape::new(size, size, 1));
        let first = g.conv1x1(x, "first", self.channels);
        let vector = g.linear(t, "vector", self.channels);
        let film = g.linear(t, "film", 2 * self.channels);
        let mut x = first;
        for i in 0..CHAIN {
            x = self.link(&mut g, (x, first, vector, film), i);
        }
        g
    }

    fn link(&self, g: &mut Graph, (x, first, vector, film): (NodeId, NodeId, NodeId, NodeId), i: usize) -> NodeId {
        let name = format!("{i}");
        let back_and_forth = |outputs| if i.is_multiple_of(2) { outputs } else { self.channels };
        match self.kind {
            Kind::Convolution(outputs) => g.conv3x3(x, &name, back_and_forth(outputs)),
            Kind::Linear(outputs) => g.conv1x1(x, &name, back_and_forth(outputs)),
            Kind::UpConvolution if i < 3 => g.up_conv2x2(x, &name, self.channels),
            Kind::MaxPool if i < 3 => g.max_pool2x2(x),
            Kind::MeanPool if i < 3 => g.mean_pool(x, 2),
            Kind::UpConvolution | Kind::MaxPool | Kind::MeanPool => x,
            Kind::Attention(heads) => g.attention(x, x, x, heads),
            Kind::CrossAttention(heads) => {
                let tokens = g.max_pool2x2(first);
                g.attention(x, tokens, tokens, heads)
            }
            Kind::LinearAttention(heads) => g.linear_attention(x, x, x, heads),
            Kind::NormSilu => {
                let x = g.group_norm(x, &name, 8);
                g.silu(x)
            }
            Kind::FilmSilu => {
                let x = g.film_norm(x, film, &name, 8);
                g.silu(x)
            }
            Kind::Silu => g.silu(x),
            Kind::Add => g.add(x, first),
            Kind::Concat => g.concat(x, first),
            Kind::AddVector => g.add_vector(x, vector),
            Kind::Gate => g.gate(x, first, &name).0,
        }
    }

    /// Returns the floating-point operations of a forward pass of a batch.
    fn flops(&self) -> usize {
        BATCH * self.graph().forward_flops() as usize
    }

    /// Returns the bytes that a forward pass of a batch reads and writes; a normalisation and its activation count as
    /// one operation.
    fn bytes(&self) -> usize {
        let graph = self.graph();
        let fused = |op: &Op| matches!(*op, Op::Silu(Silu { x }) if matches!(graph.nodes[x.0].op, Op::GroupNorm(_) | Op::FilmNorm(_)));
        let of = |id: NodeId| graph.shape(id).len();
        let values = graph.nodes.iter().filter(|n| !fused(&n.op));
        let values = values.map(|n| n.shape.len() + n.op.inputs().into_iter().map(of).sum::<usize>());
        4 * BATCH * values.sum::<usize>()
    }
}

fn fused(graph: Graph) -> Setup {
    Setup::new(BATCH, graph, open)
}

fn open(graph: Graph, state: &TrainState) -> Box<dyn Network> {
    FusedBackend::new(graph).and_then(|fused| create_network_on(fused, state)).expect("the state fits the graph")
}

/// Runs a training step with a learning rate of 0.
fn train_without_update(setup: &mut Setup) -> f32 {
    setup.train(&StepSettings { lr: 0.0, ..Default::default() })
}

#[divan::bench(args = PRODUCTS)]
fn products_forward(bencher: Bencher, case: Case) {
    let mut setup = fused(case.graph());
    bencher.counter(ItemsCount::new(case.flops())).bench_local(|| setup.forward());
}

/// The forward pass, and the gradients of both factors.
#[divan::bench(args = PRODUCTS)]
fn products_train(bencher: Bencher, case: Case) {
    let mut setup = fused(case.graph());
    bencher.counter(ItemsCount::new(3 * case.flops())).bench_local(|| train_without_update(&mut setup));
}

#[divan::bench(args = STREAMS)]
fn streams_forward(bencher: Bencher, case: Case) {
    let mut setup = fused(case.graph());
    bencher.counter(BytesCount::new(case.bytes())).bench_local(|| setup.forward());
}

/// The forward pass, and the same number of bytes for the gradients in the backward pass.
#[divan::bench(args = STREAMS)]
fn streams_train(bencher: Bencher, case: Case) {
    let mut setup = fused(case.graph());
    bencher.counter(BytesCount::new(2 * case.bytes())).bench_local(|| train_without_update(&mut setup));
}

/// A training step of one image. Its passes cost almost nothing, so this measures the work per parameter: packing,
/// gradient accumulation, Adam and the moving average. The bytes are those of Adam: five arrays read, four written.
#[divan::bench(args = [64, 1024])]
fn update(bencher: Bencher, width: usize) {
    let (mut graph, _, t) = Graph::new(Shape::vector(1));
    let hidden = graph.linear(t, "a", width);
    graph.linear(hidden, "b", width);
    let bytes = 4 * 9 * graph.parameter_count();
    let mut setup = Setup::new(1, graph, open);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| setup.train(&StepSettings::default()));
}

/// Returns the bytes per second that all threads together read and write when they copy buffers of `len` bytes.
fn copy_bandwidth(len: usize) -> f64 {
    let measure = |_: rayon::BroadcastContext| {
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
    rayon::broadcast(measure).into_iter().sum()
}

fn main() {
    let isa = Isa::from_env().expect("an instruction set");
    println!(
        "{} on {} threads: {:.0} GFLOP/s; copying {:.0} GB/s within the second-level cache, {:.0} GB/s in memory",
        isa.name(),
        rayon::current_num_threads(),
        peak_flops(isa) / 1e9,
        copy_bandwidth(1 << 17) / 1e9,
        copy_bandwidth(1 << 26) / 1e9,
    );
    divan::main();
}
