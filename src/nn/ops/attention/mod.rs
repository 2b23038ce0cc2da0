//! Softmax attention.

mod cpu;
pub(super) mod kernel;
mod reference;

use crate::nn::graph::{Attention, Graph, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends softmax attention with `heads` heads. Panics unless the shapes of q, k and v match.
    pub fn attention(&mut self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> NodeId {
        let shape = self.attention_shape(q, k, v, heads);
        self.push(Op::Attention(Attention { q, k, v, heads }), shape)
    }

    /// Returns the shape of the result of attention. Panics unless the shapes of q, k and v match and `heads` divides
    /// the channels.
    pub(in crate::nn::ops) fn attention_shape(&self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> Shape {
        let (query, key, value) = (self.shape(q), self.shape(k), self.shape(v));
        assert_eq!(query.channels, key.channels);
        assert_eq!(key.positions(), value.positions());
        let is_divisible = query.channels % heads == 0 && value.channels % heads == 0;
        assert!(is_divisible, "{} and {} channels can't be divided into {heads} heads", query.channels, value.channels);
        Shape::new(query.height, query.width, value.channels)
    }
}

impl Operation for Attention {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.q, self.k, self.v]
    }

    fn multiply_adds(&self, graph: &Graph, output: Shape) -> usize {
        let (queries, keys) = (graph.shape(self.q), graph.shape(self.k));
        queries.positions() * keys.positions() * (queries.channels + output.channels)
    }

    fn requires_grad(&self, inputs: bool) -> bool {
        inputs
    }
}
