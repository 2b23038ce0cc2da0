//! A trained network that estimates clean images from noisy ones.

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use crate::config::Device;
use crate::config::{PredictionType, SamplerParams, Weights};
use crate::data::images::to_u8;
use crate::diffusion::{self, Schedule, Step, predict_x0};
use crate::model::{Checkpoint, Config, TargetSpace, denormalize, interleave};
use crate::nn::fused::forward_memory;
use crate::nn::{self, Network, TrainState};

/// A checkpoint's network on its device and the parameters that define its output. Batches are concatenated images,
/// each `(size, size, 3)` with the model's size.
pub struct Denoiser {
    pub config: Config,
    pub(super) space: TargetSpace,
    pub(super) network: Box<dyn Network>,
}

impl Denoiser {
    /// Creates the network of a checkpoint on a device.
    pub fn open(checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let graph = checkpoint.graph();
        let Checkpoint { config, weights } = checkpoint;
        let mut state = TrainState::initial(&graph, |_, n| vec![0.0; n]);
        state.weights = weights;
        let network = nn::create_network(device, graph, &state)?;
        Ok(Self { space: TargetSpace::new(&config.diffusion), config, network })
    }

    /// Returns the number of values in an image, `3 · size · size`.
    pub fn image_len(&self) -> usize {
        3 * self.config.image_size * self.config.image_size
    }

    /// Returns the memory, in bytes, that the network needs on the CPU for `images` images at a time.
    pub(super) fn memory(&self, images: usize) -> u64 {
        forward_memory(self.network.graph(), images)
    }

    /// Whether the model is a regression, which needs one pass and no chain.
    pub fn is_regression(&self) -> bool {
        self.config.diffusion.objective == PredictionType::Regression
    }

    /// Returns the steps of a chain.
    pub(super) fn steps(&self, sampler: &SamplerParams) -> Vec<Step> {
        diffusion::steps(&Schedule::new(&self.config.diffusion), sampler)
    }

    /// Returns the predicted clean values of `x` at a step, given the enlarged low-resolution images `up` in [-1, 1];
    /// clamped to the range of images.
    pub(super) fn predict_clean(&self, x: &[f64], up: &[f64], step: Step) -> Result<Vec<f64>> {
        let t = step.t as f32 / self.config.diffusion.timesteps as f32;
        let output = self.predict(x.iter().map(|&v| v as f32), up, t);
        let output = output.with_context(|| format!("at t = {} of {}", step.t, self.config.diffusion.timesteps))?;
        let (objective, space) = (self.config.diffusion.objective, self.space);
        let values = (x.par_iter().zip(&output).zip(up))
            .map(|((&x, &y), &up)| space.clamp(predict_x0(objective, step.alpha_bar, x, y as f64), up));
        Ok(values.collect())
    }

    /// Returns the output of a regression model.
    pub(super) fn predict_regression(&self, up: &[f64]) -> Result<Vec<f64>> {
        Ok(self.predict(std::iter::repeat(0.0), up, 0.0)?.iter().map(|&v| v as f64).collect())
    }

    /// Converts the values of finished images to 8 bits. Each value comes with the value of the enlarged low-resolution
    /// image at the same position. All pixels that a network generates are converted here.
    ///
    /// # Errors
    /// Fails if a value is not finite.
    pub(super) fn pixels(&self, values: impl Iterator<Item = (f64, f64)>) -> Result<Vec<u8>> {
        let pixel = |(clean, up): (f64, f64)| {
            let grey = denormalize(self.space.decode(clean, up));
            ensure!(grey.is_finite(), "a value of the finished image is {grey}, not a finite number: {CAUSES}");
            Ok(to_u8(grey))
        };
        values.map(pixel).collect()
    }

    /// Returns the output of the network at time `t`, given the noisy and the enlarged low-resolution images.
    fn predict(&self, noisy: impl Iterator<Item = f32>, up: &[f64], t: f32) -> Result<Vec<f32>> {
        let images = up.len() / self.image_len();
        let up: Vec<f32> = up.iter().map(|&u| u as f32).collect();
        let mut output = vec![0.0; up.len()];
        self.network.predict_into(Weights::Raw, &interleave(noisy, &up), &vec![t; images], &mut output)?;
        ensure_finite("a value of the network's output", &output)?;
        Ok(output)
    }
}

/// The likely causes of values that are not finite.
const CAUSES: &str = "training diverged, or the model file is damaged";

/// Fails if a value is not finite, because clamping would turn it into a grey level.
pub(super) fn ensure_finite(what: &str, values: &[f32]) -> Result<()> {
    let wrong = values.iter().find(|value| !value.is_finite());
    wrong.map_or(Ok(()), |wrong| Err(anyhow::anyhow!("{what} is {wrong}, not a finite number: {CAUSES}")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{AttentionKind, AttentionParams, DiffusionParams, ModelParams};
    use crate::model::{ModelCost, unet};

    /// Returns an untrained model for images of 16×16 at scale 4.
    pub fn denoiser(kind: AttentionKind) -> Denoiser {
        let attention = AttentionParams { kind, ..Default::default() };
        let model = ModelParams { base_channels: 4, attention, ..Default::default() };
        let diffusion = DiffusionParams { residual_scale: Some(4.0), ..Default::default() };
        let graph = unet(&model, 16, 4);
        let weights = crate::train::initial_state(&graph, 1).weights;
        let config = Config { model, diffusion, image_size: 16, scale: 4, cost: ModelCost::of(&graph), steps: 0 };
        Denoiser::open(Checkpoint { config, weights }, Device::Cpu).unwrap()
    }

    /// The weights are finite, but so large that their products overflow.
    #[test]
    fn non_finite_values_are_errors() {
        let mut denoiser = denoiser(AttentionKind::Mhsa);
        let values = vec![0.3; denoiser.image_len()];
        let step = Step { t: 880, alpha_bar: 0.1, alpha_bar_next: 0.2 };
        assert!(denoiser.predict_clean(&values, &values, step).is_ok() && denoiser.predict_regression(&values).is_ok());
        let mut state = denoiser.network.state();
        state.weights.iter_mut().flatten().for_each(|weight| *weight = 1e30);
        denoiser.network.set_state(&state).unwrap();
        let error = format!("{:#}", denoiser.predict_clean(&values, &values, step).unwrap_err());
        assert!(
            error.starts_with("at t = 880 of 1000: a value of the network's output is ") && error.contains("diverged"),
            "{error}"
        );
        assert!(denoiser.predict_regression(&values).unwrap_err().to_string().contains("not a finite number"));
        assert!(denoiser.attention(&values, &values, 0).unwrap_err().to_string().contains("an attention layer"));
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(denoiser.pixels([(0.0, 0.0), (wrong, 0.0)].into_iter()).is_err());
            assert!(denoiser.pixels([(0.0, wrong)].into_iter()).is_err());
        }
        assert_eq!(denoiser.pixels([(0.0, 1.0), (1e9, 0.0), (-1e9, 0.0)].into_iter()).unwrap(), [255, 255, 0]);
    }
}
