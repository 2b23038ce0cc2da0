//! The sinusoidal encoding of the time.

mod cpu;
mod reference;

use crate::nn::graph::{Graph, NodeId, Op, Operation, Shape, TimeEncoding};

impl Graph {
    /// Appends the sinusoidal encoding of a time. Panics unless `channels` is even.
    pub fn time_encoding(&mut self, t: NodeId, channels: usize) -> NodeId {
        assert_eq!(self.shape(t), Shape::vector(1));
        assert!(
            channels.is_multiple_of(2),
            "the number of channels must be even, a sine and a cosine per frequency; found {channels}"
        );
        self.push(Op::TimeEncoding(TimeEncoding { t }), Shape::vector(channels))
    }
}

impl Operation for TimeEncoding {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.t]
    }

    fn multiply_adds(&self, _: &Graph, _: Shape) -> usize {
        0
    }

    fn requires_grad(&self, _: bool) -> bool {
        false
    }
}
