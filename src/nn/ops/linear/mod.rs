//! A linear map that is applied at every position.

mod cpu;
mod reference;

use crate::nn::graph::{Graph, Init, Layout, Linear, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends a linear layer with `outputs` channels.
    pub fn linear(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Linear { outputs, inputs: s.channels };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, s.channels);
        self.push(Op::Linear(Linear { x, weight, bias }), Shape::new(s.height, s.width, outputs))
    }

    /// Appends a 1×1 convolution (in PyTorch: `Conv2d` with kernel size 1) with `outputs` channels.
    pub fn conv1x1(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let s = self.shape(x);
        let layout = Layout::Conv { outputs, inputs: s.channels, kernel: 1 };
        let (weight, bias) = self.weight_and_bias(name, layout, outputs, s.channels);
        self.push(Op::Linear(Linear { x, weight, bias }), Shape::new(s.height, s.width, outputs))
    }

    /// Appends a 1×1 convolution whose weight and bias start at zero, so that a branch that ends in it initially has no
    /// effect.
    pub fn zero_conv1x1(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let y = self.conv1x1(x, name, outputs);
        let Op::Linear(Linear { weight, bias, .. }) = self.nodes[y.0].op else { unreachable!("just pushed") };
        for p in [weight, bias] {
            self.params[p.0].init = Init::Constant(0.0);
        }
        y
    }
}

impl Operation for Linear {
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
