//! Estimates the memory of a pass from what dfdx allocates for each operation.

use std::collections::BTreeSet;

use crate::nn::graph::{Graph, NodeId, Op};

const BYTES: usize = size_of::<f32>();
/// The number of copies of all parameters: weights, two moments, moving average, gradients, and temporary values of the
/// optimiser.
const PARAMETER_LISTS: usize = 7;

/// Returns the memory of a pass, in bytes per image.
///
/// dfdx's cache reuses memory only for values of exactly the same size, so the memory of at least one value of each
/// size stays allocated. In addition, prediction needs the values that later operations read, and training needs all
/// gradients, which dfdx frees only at the end of the pass.
pub fn bytes_per_image(graph: &Graph, training: bool) -> usize {
    let sizes: Vec<usize> = graph.nodes.iter().map(|n| n.op.reference_len(graph, n.shape, training)).collect();
    let values: usize = sizes.iter().collect::<BTreeSet<_>>().into_iter().sum();
    let rest =
        if training { sizes.iter().sum::<usize>() + 3 * graph.output_shape().len() } else { peak_pending(graph) };
    BYTES * (values + rest) + row_index_bytes(graph)
}

/// Returns the memory that a pass needs regardless of the number of images, in bytes.
pub fn parameter_bytes(graph: &Graph) -> usize {
    PARAMETER_LISTS * BYTES * graph.parameter_count()
}

/// Returns the size of the indices that convolutions use to gather neighbours, in bytes per image.
fn row_index_bytes(graph: &Graph) -> usize {
    let maps = (0..graph.nodes.len()).filter(|&n| matches!(graph.nodes[n].op, Op::Conv3x3(_)));
    let maps: BTreeSet<(usize, usize)> =
        maps.map(|n| (graph.nodes[n].shape.height, graph.nodes[n].shape.width)).collect();
    maps.iter().map(|(height, width)| 10 * height * width * size_of::<usize>()).sum()
}

/// Returns the size of the values that later operations read, in numbers: the maximum over the steps of a prediction.
fn peak_pending(graph: &Graph) -> usize {
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for (i, node) in graph.nodes.iter().enumerate() {
        node.op.inputs().into_iter().for_each(|x| last_use[x.0] = i);
    }
    let at = |now: usize| (0..now).filter(|&n| last_use[n] >= now).map(|n| graph.shape(NodeId(n)).len()).sum();
    (0..graph.nodes.len()).map(at).max().unwrap_or(0)
}
