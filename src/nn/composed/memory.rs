//! Estimates the memory of passes: what dfdx allocates for each operation, as counted from its tapes.

use std::collections::BTreeSet;

use crate::nn::graph::{Graph, NodeId, Op};

const BYTES: usize = size_of::<f32>();
/// The number of lists of the parameters' size: weights, two moments, moving average, gradients, and temporaries of the
/// optimiser.
const PARAMETER_LISTS: usize = 7;

/// Returns the bytes per image of a pass. dfdx's cache reuses memory only for exactly the same size, so one value of
/// each size is alive at once; in addition, values that are waiting to be read or, in training, all gradients, which
/// live until the end of the pass.
pub fn bytes_per_image(graph: &Graph, training: bool) -> usize {
    let sizes: Vec<usize> = (0..graph.nodes.len()).map(|n| node_len(graph, NodeId(n), training)).collect();
    let values: usize = sizes.iter().collect::<BTreeSet<_>>().into_iter().sum();
    let rest =
        if training { sizes.iter().sum::<usize>() + 3 * graph.output_shape().len() } else { peak_pending(graph) };
    BYTES * (values + rest) + row_index_bytes(graph)
}

/// Returns the bytes that a pass needs regardless of the number of images.
pub fn parameter_bytes(graph: &Graph) -> usize {
    PARAMETER_LISTS * BYTES * graph.parameter_count()
}

/// Returns the size of all intermediate values of an operation, in numbers, including its result.
fn node_len(graph: &Graph, id: NodeId, training: bool) -> usize {
    let (positions, len) = (graph.shape(id).positions(), graph.shape(id).len());
    match graph.nodes[id.0].op {
        Op::Input | Op::Time | Op::Sinusoid { .. } | Op::PositionEncoding { .. } => len,
        // Two copies with a row of zeros, nine with the neighbours, the product, and the product with the bias.
        Op::Conv3x3 { x, .. } => 11 * positions * graph.shape(x).channels + 2 * len,
        Op::Linear { .. } | Op::Gate { .. } | Op::Silu { .. } => 2 * len,
        Op::UpConv2x2 { .. } | Op::Concat { .. } | Op::MaxPool2x2 { .. } => 3 * len,
        Op::GroupNorm { .. } => 5 * len,
        Op::FilmNorm { .. } => 7 * len,
        Op::MeanPool { factor, .. } => (2 * factor * factor + 1) * len,
        Op::Add { .. } | Op::AddVector { .. } => len,
        Op::Attention { q, k, v, heads } => {
            let weights = heads * graph.shape(q).positions() * graph.shape(k).positions();
            // Splitting heads copies the values.
            let heads_apart = if heads == 1 { 0 } else { [q, k, v].map(|x| graph.shape(x).len()).iter().sum() };
            if training { 2 * weights + 3 * len + heads_apart } else { weights + 3 * len + heads_apart }
        }
        Op::LinearAttention { q, k, v, .. } => {
            2 * (graph.shape(q).len() + graph.shape(k).len()) + graph.shape(v).len() + 2 * len
        }
    }
}

/// Returns the bytes of the neighbour indices, per image.
fn row_index_bytes(graph: &Graph) -> usize {
    let maps = (0..graph.nodes.len()).filter(|&n| matches!(graph.nodes[n].op, Op::Conv3x3 { .. }));
    let maps: BTreeSet<(usize, usize)> =
        maps.map(|n| (graph.nodes[n].shape.height, graph.nodes[n].shape.width)).collect();
    maps.iter().map(|(height, width)| 10 * height * width * size_of::<usize>()).sum()
}

/// Returns the maximum size of values that are waiting to be read at any time during prediction, in numbers.
fn peak_pending(graph: &Graph) -> usize {
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for (i, node) in graph.nodes.iter().enumerate() {
        node.op.inputs().into_iter().for_each(|x| last_use[x.0] = i);
    }
    let at = |now: usize| (0..now).filter(|&n| last_use[n] >= now).map(|n| graph.shape(NodeId(n)).len()).sum();
    (0..graph.nodes.len()).map(at).max().unwrap_or(0)
}
