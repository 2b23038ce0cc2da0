//! How much memory passes take.

use crate::nn::graph::{Graph, NodeId, Op};

const BYTES: usize = size_of::<f32>();
/// Lists of the parameters' size: weights, two moments, moving average, gradients, and what the optimiser has in hand.
const PARAMETER_LISTS: usize = 7;

/// Bytes that every image of a pass takes, about. A training's are its gradients, which dfdx keeps to the end of the
/// pass, while it lets go of the values; a prediction's are the largest operation's and those of the values that wait.
pub fn of_an_image(graph: &Graph, training: bool) -> usize {
    let sizes = (0..graph.nodes.len()).map(|n| of_a_node(graph, NodeId(n)));
    BYTES * if training { sizes.sum::<usize>() } else { sizes.max().unwrap_or(0) + waiting(graph) }
}

/// Bytes that a pass takes whatever its images.
pub fn of_the_parameters(graph: &Graph) -> usize {
    PARAMETER_LISTS * BYTES * graph.parameter_count()
}

/// Numbers between what a node reads and its value, which is among them.
fn of_a_node(graph: &Graph, id: NodeId) -> usize {
    let (positions, len) = (graph.shape(id).positions(), graph.shape(id).len());
    match graph.nodes[id.0].op {
        Op::Input | Op::Time | Op::Sinusoid { .. } | Op::Positions { .. } => len,
        // Two copies with a row of zeros, nine with neighbours, the product, and that with the bias.
        Op::Conv3x3 { x, .. } => 11 * positions * graph.shape(x).channels + 2 * len,
        Op::Linear { .. } | Op::Gate { .. } => 2 * len,
        Op::UpConv2x2 { .. } | Op::Concat { .. } => 3 * len,
        Op::GroupNorm { .. } => 5 * len,
        Op::FilmNorm { .. } => 7 * len,
        Op::Silu { .. } => 2 * len,
        Op::MaxPool2x2 { .. } => 3 * len,
        Op::MeanPool { factor, .. } => (2 * factor * factor + 1) * len,
        Op::Add { .. } | Op::AddVector { .. } => len,
        // Products, scaled ones, and three of a softmax.
        Op::Attention { q, k, heads, .. } => {
            5 * heads * graph.shape(q).positions() * graph.shape(k).positions() + 2 * len
        }
        Op::LinearAttention { q, k, .. } => 4 * (graph.shape(q).len() + graph.shape(k).len()) + 2 * len,
    }
}

/// The most numbers that wait to be read at any time in a prediction.
fn waiting(graph: &Graph) -> usize {
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for (i, node) in graph.nodes.iter().enumerate() {
        node.op.inputs().into_iter().for_each(|x| last_use[x.0] = i);
    }
    let at = |now: usize| (0..now).filter(|&n| last_use[n] >= now).map(|n| graph.shape(NodeId(n)).len()).sum();
    (0..graph.nodes.len()).map(at).max().unwrap_or(0)
}
