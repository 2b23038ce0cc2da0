//! Mean pooling over square blocks.

mod cpu;
mod kernel;
mod reference;

use std::ops::Range;

use crate::nn::graph::{Graph, MeanPool, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends mean pooling of `factor × factor` blocks.
    pub fn mean_pool(&mut self, x: NodeId, factor: usize) -> NodeId {
        self.mean_pool_of(x, 0..self.shape(x).channels, factor)
    }

    /// Appends mean pooling of some channels. Panics unless `factor` divides height and width.
    pub fn mean_pool_of(&mut self, x: NodeId, channels: Range<usize>, factor: usize) -> NodeId {
        let s = self.shape(x);
        assert!(channels.end <= s.channels, "channels {channels:?} of {}", s.channels);
        let whole = s.height.is_multiple_of(factor) && s.width.is_multiple_of(factor);
        assert!(whole, "{}×{} positions can't be divided into {factor}×{factor} blocks", s.height, s.width);
        let shape = Shape::new(s.height / factor, s.width / factor, channels.len());
        self.push(Op::MeanPool(MeanPool { x, first: channels.start, factor }), shape)
    }
}

impl Operation for MeanPool {
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
