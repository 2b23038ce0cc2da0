//! 2×2 max pooling.

mod cpu;
mod kernel;
mod reference;

use crate::nn::graph::{Graph, MaxPool2x2, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends 2×2 max pooling with stride 2. Panics unless height and width are even.
    pub fn max_pool2x2(&mut self, x: NodeId) -> NodeId {
        let s = self.shape(x);
        let is_even = s.height.is_multiple_of(2) && s.width.is_multiple_of(2);
        assert!(is_even, "max pooling needs even sizes, found {}×{}", s.height, s.width);
        self.push(Op::MaxPool2x2(MaxPool2x2 { x }), Shape::new(s.height / 2, s.width / 2, s.channels))
    }
}

impl Operation for MaxPool2x2 {
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
