//! 3×3 convolution.

mod cpu;
mod reference;
mod winograd;

use crate::nn::graph::{Conv3x3, Graph, Layout, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends a 3×3 convolution with `outputs` channels, stride 1 and zero padding 1.
    pub fn conv3x3(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Conv { outputs, inputs: s.channels, kernel: 3 };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, 9 * s.channels);
        self.push(Op::Conv3x3(Conv3x3 { x, weight, bias }), Shape::new(s.height, s.width, outputs))
    }
}

impl Operation for Conv3x3 {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.x]
    }

    fn multiply_adds(&self, graph: &Graph, output: Shape) -> usize {
        output.len() * 9 * graph.shape(self.x).channels
    }

    fn backward_multiply_adds(&self, graph: &Graph, output: Shape, requires_grad: &[bool]) -> usize {
        (1 + usize::from(requires_grad[self.x.0])) * self.multiply_adds(graph, output)
    }

    fn requires_grad(&self, _: bool) -> bool {
        true
    }
}
