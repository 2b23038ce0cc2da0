//! The weights of attention, from the values of its queries and keys: for people, not on the way of a network.

use super::graph::{Graph, NodeId, Op};

/// The nodes of a layer's queries and keys; `None` of what is no attention.
pub fn queries_and_keys(graph: &Graph, attention: NodeId) -> Option<[NodeId; 2]> {
    match graph.nodes[attention.0].op {
        Op::Attention { q, k, .. } | Op::LinearAttention { q, k, .. } => Some([q, k]),
        _ => None,
    }
}

/// The weights of one layer for a batch.
pub struct AttentionWeights<'a> {
    pub heads: usize,
    linear: bool,
    channels: usize,
    /// Positions that ask, of each image.
    pub queries: usize,
    /// Positions that are looked at, of each image.
    pub keys: usize,
    q: &'a [f32],
    k: &'a [f32],
}

impl<'a> AttentionWeights<'a> {
    /// Of an `Attention` or a `LinearAttention`, whose queries have the values `q: (B, H, W, C)` and keys `k`. Panics for
    /// other nodes.
    pub fn new(graph: &Graph, attention: NodeId, q: &'a [f32], k: &'a [f32]) -> Self {
        let (heads, linear) = match graph.nodes[attention.0].op {
            Op::Attention { heads, .. } => (heads, false),
            Op::LinearAttention { heads, .. } => (heads, true),
            _ => panic!("only attention has weights"),
        };
        let inputs = graph.nodes[attention.0].op.inputs();
        let [queries, keys] = [inputs[0], inputs[1]].map(|n| graph.shape(n));
        let (channels, [queries, keys]) = (queries.channels, [queries, keys].map(|shape| shape.positions()));
        Self { heads, linear, channels, queries, keys, q, k }
    }

    /// One head's, of one image of the batch.
    pub fn head(&self, image: usize, head: usize) -> Head<'_> {
        let d = self.channels / self.heads;
        let rows = |v: &'a [f32], positions: usize| {
            let of_image = &v[image * positions * self.channels..][..positions * self.channels];
            of_image.chunks_exact(self.channels).map(move |row| &row[head * d..][..d])
        };
        let mut keys: Vec<Vec<f64>> = rows(self.k, self.keys).map(in_f64).collect();
        if self.linear {
            for c in 0..d {
                let column = softmax(keys.iter().map(|row| row[c]).collect());
                keys.iter_mut().zip(column).for_each(|(row, v)| row[c] = v);
            }
        }
        Head { queries: rows(self.q, self.queries).collect(), keys, linear: self.linear }
    }
}

/// A head that is asked for its weights.
pub struct Head<'a> {
    queries: Vec<&'a [f32]>,
    keys: Vec<Vec<f64>>,
    linear: bool,
}

impl Head<'_> {
    /// How much the position looks at each other one; they sum to 1. Linear attention's weights are those that it comes
    /// down to, softmax(q) · softmax(k)ᵀ.
    pub fn weights(&self, position: usize) -> Vec<f64> {
        let query = in_f64(self.queries[position]);
        let scale = (query.len() as f64).sqrt();
        let query = if self.linear { softmax(query) } else { query };
        let dot = |key: &Vec<f64>| query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
        let weights: Vec<f64> = self.keys.iter().map(dot).collect();
        if self.linear { weights } else { softmax(weights.into_iter().map(|w| w / scale).collect()) }
    }
}

fn in_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn softmax(values: Vec<f64>) -> Vec<f64> {
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = values.into_iter().map(|v| (v - highest).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|v| v / sum).collect()
}
