//! The cost of a network, for plans, reports and the header of its checkpoint.

use serde::{Deserialize, Serialize};

use crate::nn::Graph;

/// The cost of a network. Operations are per image; a multiply-add counts as two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCost {
    /// The number of learned scalars.
    pub parameters: usize,
    /// The floating-point operations of the forward pass.
    pub forward_flops: u64,
    /// The floating-point operations of the forward and the backward pass.
    pub training_flops: u64,
    /// The name and width of each layer whose width was chosen to match a parameter count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    solved_widths: Vec<(String, usize)>,
}

impl ModelCost {
    /// Returns the cost of a network.
    pub fn of(graph: &Graph) -> Self {
        let solved = graph.probes.iter().filter_map(|probe| Some((probe.name.clone(), probe.width?)));
        Self {
            parameters: graph.parameter_count(),
            forward_flops: graph.forward_flops(),
            training_flops: graph.training_flops(),
            solved_widths: solved.collect(),
        }
    }
}

impl std::fmt::Display for ModelCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [forward, training] = [self.forward_flops, self.training_flops].map(|flops| flops as f64 / 1e6);
        write!(f, "{} parameters, {forward:.1} MFLOPs per image forward, {training:.1} in training", self.parameters)?;
        for (name, width) in &self.solved_widths {
            write!(f, "; {name} has width {width}")?;
        }
        Ok(())
    }
}
