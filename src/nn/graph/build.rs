//! Appends nodes, parameters and probes to a graph. The operations' own methods are in `nn::ops`.

use super::{Graph, Init, Layout, Node, NodeId, Op, ParamId, ParamSpec, Probe, Shape};

impl Graph {
    /// Registers a layer for monitoring during training.
    pub fn probe(&mut self, layer: Probe) {
        self.probes.push(layer);
    }

    /// Declares a weight and a bias with PyTorch's default initialisation.
    pub(in crate::nn) fn weight_and_bias(
        &mut self,
        name: &str,
        layout: Layout,
        outputs: usize,
        fan_in: usize,
    ) -> (ParamId, ParamId) {
        let init = Init::Uniform { bound: 1.0 / (fan_in as f32).sqrt() };
        let weight = self.param(format!("{name}.weight"), layout, init);
        let bias = self.param(format!("{name}.bias"), Layout::Vector(outputs), init);
        (weight, bias)
    }

    /// Declares a parameter.
    pub(in crate::nn) fn param(&mut self, name: String, layout: Layout, init: Init) -> ParamId {
        self.params.push(ParamSpec { name, layout, init });
        ParamId(self.params.len() - 1)
    }

    /// Appends a node.
    pub(in crate::nn) fn push(&mut self, op: Op, shape: Shape) -> NodeId {
        self.nodes.push(Node { op, shape });
        NodeId(self.nodes.len() - 1)
    }
}
