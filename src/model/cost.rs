//! What a network costs, for plans and reports and for the header of its checkpoint.

use serde::{Deserialize, Serialize};

use crate::nn::Graph;

/// Sizes of a network; operations are of one image, two a multiply-add.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCost {
    /// Learned values.
    pub parameters: usize,
    pub forward_flops: u64,
    /// Forward and backward.
    pub training_flops: u64,
    /// The layers whose width was solved for, and the width.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub solved_widths: Vec<(String, usize)>,
}

impl ModelCost {
    pub fn of(graph: &Graph) -> Self {
        let solved = graph.probes.iter().filter_map(|w| Some((w.name.clone(), w.width?)));
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
        write!(f, "{} parameters, {forward:.1} MFLOP an image forward, {training:.1} in training", self.parameters)?;
        for (name, width) in &self.solved_widths {
            write!(f, "; {name} is {width} wide")?;
        }
        Ok(())
    }
}
