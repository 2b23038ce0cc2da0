//! The sum of two values.

mod cpu;
mod reference;

use crate::nn::graph::{Add, Graph, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends the sum of two different values. Panics unless their shapes match.
    pub fn add(&mut self, a: NodeId, b: NodeId) -> NodeId {
        assert_ne!(a, b);
        assert_eq!(self.shape(a), self.shape(b));
        self.push(Op::Add(Add { a, b }), self.shape(a))
    }
}

impl Operation for Add {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.a, self.b]
    }

    fn multiply_adds(&self, _: &Graph, _: Shape) -> usize {
        0
    }

    fn requires_grad(&self, inputs: bool) -> bool {
        inputs
    }
}
