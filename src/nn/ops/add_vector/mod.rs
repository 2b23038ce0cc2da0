//! The addition of a vector to every position.

mod cpu;
mod kernel;
mod reference;

use crate::nn::graph::{AddVector, Graph, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends the addition of a vector to every position. Panics unless the channels match.
    pub fn add_vector(&mut self, x: NodeId, v: NodeId) -> NodeId {
        assert_eq!(self.shape(v), Shape::vector(self.shape(x).channels));
        self.push(Op::AddVector(AddVector { x, v }), self.shape(x))
    }
}

impl Operation for AddVector {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.x, self.v]
    }

    fn multiply_adds(&self, _: &Graph, _: Shape) -> usize {
        0
    }

    fn requires_grad(&self, inputs: bool) -> bool {
        inputs
    }
}
