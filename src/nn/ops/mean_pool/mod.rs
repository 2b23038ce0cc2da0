//! Mean pooling over square blocks.

mod cpu;
mod kernel;
mod reference;

use std::ops::Range;

use crate::nn::graph::{Graph, MeanPool, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends mean pooling over `factor × factor` blocks. Panics unless `factor` divides height and width.
    pub fn mean_pool(&mut self, x: NodeId, factor: usize) -> NodeId {
        self.mean_pool_of(x, 0..self.shape(x).channels, factor)
    }

    /// Appends mean pooling of a range of channels. Panics if a channel does not exist or `factor` does not divide
    /// height and width.
    pub fn mean_pool_of(&mut self, x: NodeId, channels: Range<usize>, factor: usize) -> NodeId {
        let s = self.shape(x);
        assert!(channels.end <= s.channels, "channels {channels:?} do not exist: the value has {}", s.channels);
        let is_divisible = s.height.is_multiple_of(factor) && s.width.is_multiple_of(factor);
        assert!(is_divisible, "{}×{} positions can't be divided into {factor}×{factor} blocks", s.height, s.width);
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
