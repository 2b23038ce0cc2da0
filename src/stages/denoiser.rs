//! A trained model as what a chain asks for: the clean values in noisy ones.

use anyhow::Result;
use rayon::prelude::*;

use crate::diffusion::{self, Schedule, Step, clean};
use crate::model::{Checkpoint, Config, TargetSpace, interleave};
use crate::nn::{self, Network, TrainState};
use crate::pipeline::Device;
use crate::pipeline::params::{Objective, SamplerParams, Weights};

/// A checkpoint's network on its device, with what its numbers mean. Images are in batches, one after the other, each
/// `(size, size, 3)` with the model's size.
pub struct Denoiser {
    pub config: Config,
    pub space: TargetSpace,
    network: Box<dyn Network>,
}

impl Denoiser {
    pub fn open(checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let graph = checkpoint.graph();
        let Checkpoint { config, weights } = checkpoint;
        let mut state = TrainState::initial(&graph, |_, n| vec![0.0; n]);
        state.weights = weights;
        let network = nn::open(device, graph, &state)?;
        Ok(Self { space: TargetSpace::new(&config.diffusion), config, network })
    }

    /// Values of an image, `3 · size · size`.
    pub fn image_len(&self) -> usize {
        3 * self.config.image_size * self.config.image_size
    }

    /// A regression answers in one pass; there is no chain to it.
    pub fn is_regression(&self) -> bool {
        self.config.diffusion.objective == Objective::Regression
    }

    /// The steps of a chain.
    pub fn steps(&self, sampler: &SamplerParams) -> Vec<Step> {
        diffusion::steps(&Schedule::new(&self.config.diffusion), sampler)
    }

    /// The clean values in `x` at a step, given the enlarged low-resolution images `up` in [-1, 1]; clamped to those of
    /// images.
    pub fn clean(&self, x: &[f64], up: &[f64], step: Step) -> Result<Vec<f64>> {
        let t = step.t as f32 / self.config.diffusion.timesteps as f32;
        let output = self.predict(x.iter().map(|&v| v as f32), up, t)?;
        let (objective, space) = (self.config.diffusion.objective, self.space);
        let values = (x.par_iter().zip(&output).zip(up))
            .map(|((&x, &y), &up)| space.clamp(clean(objective, step.alpha_bar, x, y as f64), up));
        Ok(values.collect())
    }

    /// The clean values that a regression answers.
    pub fn answer(&self, up: &[f64]) -> Result<Vec<f64>> {
        Ok(self.predict(std::iter::repeat(0.0), up, 0.0)?.iter().map(|&v| v as f64).collect())
    }

    fn predict(&self, noisy: impl Iterator<Item = f32>, up: &[f64], t: f32) -> Result<Vec<f32>> {
        let images = up.len() / self.image_len();
        let up: Vec<f32> = up.iter().map(|&u| u as f32).collect();
        let mut output = vec![0.0; up.len()];
        self.network.predict_into(Weights::Raw, &interleave(noisy, &up), &vec![t; images], &mut output)?;
        Ok(output)
    }
}
