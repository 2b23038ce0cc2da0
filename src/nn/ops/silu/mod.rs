//! SiLU activation.

mod cpu;
mod kernel;
mod reference;

use crate::nn::graph::{Graph, NodeId, Op, Operation, Shape, Silu};

impl Graph {
    /// Appends a SiLU activation.
    pub fn silu(&mut self, x: NodeId) -> NodeId {
        self.push(Op::Silu(Silu { x }), self.shape(x))
    }
}

impl Operation for Silu {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.x]
    }

    fn multiply_adds(&self, _: &Graph, _: Shape) -> usize {
        0
    }

    fn requires_grad(&self, inputs: bool) -> bool {
        inputs
    }
}
