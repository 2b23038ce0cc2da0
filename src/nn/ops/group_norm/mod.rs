//! Group normalisation, with or without FiLM conditioning.

mod cpu;
mod kernel;
mod reference;

use crate::nn::graph::{FilmNorm, Graph, GroupNorm, Init, Layout, NodeId, Op, Operation, Shape};

impl Graph {
    /// Appends a group normalisation. Panics unless `groups` divides the channels.
    pub fn group_norm(&mut self, x: NodeId, name: &str, groups: usize) -> NodeId {
        let norm = self.norm_params(x, name, groups);
        self.push(Op::GroupNorm(norm), self.shape(x))
    }

    /// Appends a group normalisation with FiLM conditioning. Panics unless `groups` divides the channels and `v` has
    /// two numbers per channel.
    pub fn film_norm(&mut self, x: NodeId, v: NodeId, name: &str, groups: usize) -> NodeId {
        assert_eq!(self.shape(v), Shape::vector(2 * self.shape(x).channels));
        let norm = self.norm_params(x, name, groups);
        self.push(Op::FilmNorm(FilmNorm { norm, v }), self.shape(x))
    }

    fn norm_params(&mut self, x: NodeId, name: &str, groups: usize) -> GroupNorm {
        let channels = self.shape(x).channels;
        assert_eq!(channels % groups, 0, "{channels} channels can't be divided into {groups} groups");
        let weight = self.param(format!("{name}.weight"), Layout::Vector(channels), Init::Constant(1.0));
        let bias = self.param(format!("{name}.bias"), Layout::Vector(channels), Init::Constant(0.0));
        GroupNorm { x, groups, weight, bias }
    }
}

impl Operation for GroupNorm {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.x]
    }

    fn multiply_adds(&self, _: &Graph, _: Shape) -> usize {
        0
    }

    fn requires_grad(&self, _: bool) -> bool {
        true
    }
}

impl Operation for FilmNorm {
    fn inputs(&self) -> Vec<NodeId> {
        vec![self.norm.x, self.v]
    }

    fn multiply_adds(&self, _: &Graph, _: Shape) -> usize {
        0
    }

    fn requires_grad(&self, _: bool) -> bool {
        true
    }
}
