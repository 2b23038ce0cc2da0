//! A network with initial weights, and a batch of noise.

use srpipe::config::Weights;
use srpipe::nn::{Batch, Network, StepSettings, TrainState};

pub const BATCH: usize = 32;

pub struct Setup {
    network: Box<dyn Network>,
    x: Vec<f32>,
    t: Vec<f32>,
    target: Vec<f32>,
    weights: Vec<f32>,
    y: Vec<f32>,
}

impl Setup {
    pub fn new(
        batch: usize,
        graph: srpipe::nn::Graph,
        open: impl FnOnce(srpipe::nn::Graph, &TrainState) -> Box<dyn Network>,
    ) -> Self {
        let state = TrainState::initial(&graph, |name, n| noise(name.len(), n));
        let x = noise(1, batch * graph.input_shape().len());
        let target = noise(2, batch * graph.output_shape().len());
        let t = (0..batch).map(|i| i as f32 / batch as f32).collect();
        let y = vec![0.0; target.len()];
        Self { network: open(graph, &state), x, t, target, weights: vec![1.0; batch], y }
    }

    pub fn train(&mut self, settings: &StepSettings) -> f32 {
        let batch = Batch { x: &self.x, t: &self.t, target: &self.target, weights: &self.weights };
        self.network.train_step(batch, 1, settings).expect("shapes fit").loss
    }

    pub fn forward(&mut self) {
        self.network.predict_into(Weights::Raw, &self.x, &self.t, &mut self.y).expect("shapes fit");
    }
}

/// Returns `n` pseudo-random numbers in [-1, 1).
fn noise(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 65_537) as f32 / 32_768.5 - 1.0).collect()
}
