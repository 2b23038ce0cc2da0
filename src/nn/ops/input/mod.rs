//! The inputs of a network: the image and the time.

mod cpu;
mod reference;

use crate::nn::graph::{Graph, Input, NodeId, Operation, Shape, Time};

impl Operation for Input {
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

impl Operation for Time {
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
