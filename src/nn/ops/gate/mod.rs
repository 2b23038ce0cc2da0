//! A residual connection with a learned factor.

mod cpu;
mod kernel;
mod reference;

use crate::nn::graph::{Gate, Graph, Init, Layout, NodeId, Op, Operation, ParamId, Shape};

impl Graph {
    /// Appends `gamma · branch + skip`, with a learned gamma that starts at 0. Returns the node and gamma. Panics
    /// unless the shapes match.
    pub fn gate(&mut self, branch: NodeId, skip: NodeId, name: &str) -> (NodeId, ParamId) {
        assert_eq!(self.shape(branch), self.shape(skip));
        let gamma = self.param(name.to_string(), Layout::Vector(1), Init::Constant(0.0));
        (self.push(Op::Gate(Gate { branch, skip, gamma }), self.shape(skip)), gamma)
    }
}

impl Operation for Gate {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.branch, self.skip]
    }

    fn multiply_adds(&self, _: &Graph, _: Shape) -> usize {
        0
    }

    fn requires_grad(&self, _: bool) -> bool {
        true
    }
}
