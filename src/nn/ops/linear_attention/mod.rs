//! Linear attention.

mod cpu;
mod kernel;
mod reference;
mod softmax;

use crate::nn::graph::{Graph, LinearAttention, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends linear attention with `heads` heads. Panics unless the shapes of q, k and v match.
    pub fn linear_attention(&mut self, q: NodeId, k: NodeId, v: NodeId, heads: usize) -> NodeId {
        let shape = self.attention_shape(q, k, v, heads);
        self.push(Op::LinearAttention(LinearAttention { q, k, v, heads }), shape)
    }
}

impl Operation for LinearAttention {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.q, self.k, self.v]
    }

    fn multiply_adds(&self, graph: &Graph, output: Shape) -> usize {
        let (queries, keys) = (graph.shape(self.q), graph.shape(self.k));
        (queries.positions() + keys.positions()) * queries.channels * output.channels / self.heads
    }

    fn requires_grad(&self, inputs: bool) -> bool {
        inputs
    }
}
