//! Recomputes attention weights from the values of queries and keys, for visualisation and diagnostics. The forward
//! pass of a network does not use this module.

use super::graph::{Attention, Graph, LinearAttention, NodeId, Op};

/// Returns the query and key nodes of an attention layer; `None` for other nodes.
pub fn queries_and_keys(graph: &Graph, attention: NodeId) -> Option<[NodeId; 2]> {
    match graph.nodes[attention.0].op {
        Op::Attention(Attention { q, k, .. }) | Op::LinearAttention(LinearAttention { q, k, .. }) => Some([q, k]),
        _ => None,
    }
}

/// The attention weights of one layer for a batch.
pub struct AttentionWeights<'a> {
    pub heads: usize,
    linear: bool,
    channels: usize,
    /// The number of query positions per image.
    pub queries: usize,
    /// The number of key positions per image.
    pub keys: usize,
    q: &'a [f32],
    k: &'a [f32],
}

impl<'a> AttentionWeights<'a> {
    /// Creates the weights of an `Attention` or `LinearAttention` node from the values of its queries `q: (B, H, W, C)`
    /// and of its keys `k`. Panics for other nodes.
    pub fn new(graph: &Graph, attention: NodeId, q: &'a [f32], k: &'a [f32]) -> Self {
        let (heads, linear) = match graph.nodes[attention.0].op {
            Op::Attention(Attention { heads, .. }) => (heads, false),
            Op::LinearAttention(LinearAttention { heads, .. }) => (heads, true),
            _ => panic!("not an attention node"),
        };
        let inputs = graph.nodes[attention.0].op.inputs();
        let [queries, keys] = [inputs[0], inputs[1]].map(|n| graph.shape(n));
        let (channels, [queries, keys]) = (queries.channels, [queries, keys].map(|shape| shape.positions()));
        Self { heads, linear, channels, queries, keys, q, k }
    }

    /// Returns one head's queries and keys for one image of the batch.
    pub fn head(&self, image: usize, head: usize) -> Head<'_> {
        let d = self.channels / self.heads;
        let rows = |v: &'a [f32], positions: usize| {
            let of_image = &v[image * positions * self.channels..][..positions * self.channels];
            of_image.chunks_exact(self.channels).map(move |row| &row[head * d..][..d])
        };
        let mut keys: Vec<Vec<f64>> = rows(self.k, self.keys).map(to_f64).collect();
        if self.linear {
            for c in 0..d {
                let column = softmax(keys.iter().map(|row| row[c]).collect());
                keys.iter_mut().zip(column).for_each(|(row, v)| row[c] = v);
            }
        }
        Head { queries: rows(self.q, self.queries).collect(), keys, linear: self.linear }
    }
}

/// One attention head for one image.
pub struct Head<'a> {
    queries: Vec<&'a [f32]>,
    keys: Vec<Vec<f64>>,
    linear: bool,
}

impl Head<'_> {
    /// Returns the weights of all keys for one query position; they sum to 1. For linear attention, they are a row of
    /// the equivalent weight matrix softmax(q) · softmax(k)ᵀ.
    pub fn weights(&self, position: usize) -> Vec<f64> {
        let query = to_f64(self.queries[position]);
        let scale = (query.len() as f64).sqrt();
        let query = if self.linear { softmax(query) } else { query };
        let dot = |key: &Vec<f64>| query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
        let weights: Vec<f64> = self.keys.iter().map(dot).collect();
        if self.linear { weights } else { softmax(weights.into_iter().map(|w| w / scale).collect()) }
    }
}

fn to_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn softmax(values: Vec<f64>) -> Vec<f64> {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = values.into_iter().map(|v| (v - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|v| v / sum).collect()
}
