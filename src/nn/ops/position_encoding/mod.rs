//! The sinusoidal encoding of positions.

mod cpu;
mod reference;

use crate::nn::graph::{Graph, NodeId, Op, Operation, PositionEncoding, Shape};

impl Graph {
    /// Appends the position encoding of a feature map whose positions are `spacing` pixels apart.
    pub fn position_encoding(&mut self, shape: Shape, spacing: usize) -> NodeId {
        self.push(Op::PositionEncoding(PositionEncoding { spacing }), shape)
    }
}

impl Operation for PositionEncoding {
    fn inputs(&self) -> Vec<NodeId> {
        vec![]
    }

    fn multiply_adds(&self, _: &Graph, _: Shape) -> usize {
        0
    }

    fn requires_grad(&self, inputs: bool) -> bool {
        inputs
    }
}
