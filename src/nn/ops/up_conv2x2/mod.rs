//! Transposed 2×2 convolution.

mod cpu;
mod kernel;
mod reference;

use crate::nn::graph::{Graph, Layout, NodeId, Op, Operation, Shape, UpConv2x2};

impl Graph {
    /// Appends a transposed 2×2 convolution with stride 2, which doubles height and width.
    pub fn up_conv2x2(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::UpConv { inputs: s.channels, outputs };
        // PyTorch computes the fan-in of a transposed convolution from the second axis of its weight.
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, 4 * outputs);
        self.push(Op::UpConv2x2(UpConv2x2 { x, weight, bias }), Shape::new(2 * s.height, 2 * s.width, outputs))
    }
}

impl Operation for UpConv2x2 {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.x]
    }

    fn multiply_adds(&self, graph: &Graph, output: Shape) -> usize {
        output.len() * graph.shape(self.x).channels
    }

    fn backward_multiply_adds(&self, graph: &Graph, output: Shape, requires_grad: &[bool]) -> usize {
        (1 + usize::from(requires_grad[self.x.0])) * self.multiply_adds(graph, output)
    }

    fn requires_grad(&self, _: bool) -> bool {
        true
    }
}
