//! Concatenation of channels.

mod cpu;
mod reference;

use crate::nn::graph::{Concat, Graph, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends the concatenation of channels. Panics unless heights and widths match.
    pub fn concat(&mut self, a: NodeId, b: NodeId) -> NodeId {
        let (s, t) = (self.shape(a), self.shape(b));
        assert_eq!((s.height, s.width), (t.height, t.width));
        self.push(Op::Concat(Concat { a, b }), Shape::new(s.height, s.width, s.channels + t.channels))
    }
}

impl Operation for Concat {
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
