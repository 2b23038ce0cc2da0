//! Parameters of `sample`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blobs::{EMA, LOSS, SAMPLES, TEST_HR, TEST_LR, VALIDATION_HR, VALIDATION_LR, WEIGHTS};
use super::{DegradeParams, EvaluationSplit, Input, Kind, SelectParams, TrainParams};

/// Super-resolves the test or validation images with a trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleParams {
    /// The `train` stage with the model, or the `select` stage that selects one.
    #[serde(skip_serializing)]
    pub model: String,
    /// The `degrade` stage whose images are super-resolved.
    #[serde(skip_serializing)]
    pub data: String,
    /// Which images are super-resolved. Use `validation` to select a model, so that the test images stay unused until
    /// the result is reported.
    #[serde(default, skip_serializing_if = "EvaluationSplit::is_test")]
    pub split: EvaluationSplit,
    /// The seed of the noise; by default the seed with which the model was trained.
    #[serde(default, skip_serializing)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub sampler: SamplerParams,
    /// The number K of samples per image; a regression model always computes one.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1, max = 256))]
    pub samples: usize,
    #[serde(default)]
    pub weights: Weights,
    /// The maximum number of images; all by default.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
    /// The number of samples drawn at the same time. Affects speed and memory, not the result.
    #[serde(default = "default_sample_batch", skip_serializing)]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
}

fn default_samples() -> usize {
    4
}

fn default_sample_batch() -> usize {
    64
}

/// The sampler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerParams {
    pub method: SamplerMethod,
    /// Steps per sample, with one network evaluation each unless `method` says otherwise; at most the model's timesteps.
    #[schemars(range(min = 1, max = 100_000))]
    pub steps: usize,
    /// DDIM: 0 is deterministic, 1 adds as much noise as DDPM.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
    pub spacing: Spacing,
    /// Project each estimate of the clean image so that its block means equal the low-resolution image, except where
    /// values are then clipped to the 8-bit range.
    pub project_lr: bool,
}

impl Default for SamplerParams {
    fn default() -> Self {
        Self { method: SamplerMethod::default(), steps: 25, eta: 0.0, spacing: Spacing::default(), project_lr: false }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplerMethod {
    /// Ancestral sampling (Ho et al. 2020, algorithm 2).
    Ddpm,
    /// Implicit sampling (Song et al. 2021, eq. 12).
    #[default]
    Ddim,
    /// DPM-Solver++ of second order, multistep (Lu et al. 2022, algorithm 2); deterministic.
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// Heun's method of second order (Karras et al. 2022, algorithm 1, without churn): two network evaluations per step,
    /// one in the last; deterministic.
    Heun,
}

/// Which of the T times are visited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// In equal strides from T - 1 down.
    #[default]
    Trailing,
    /// In equal strides from 0 up; skips the noisiest times.
    Leading,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The moving average of the weights.
    #[default]
    Ema,
    /// The weights of the last step.
    Raw,
}

impl Kind for SampleParams {
    const NAME: &'static str = "sample";
    const VERSION: u32 = 3;
    const OUTPUTS: &'static [&'static str] = &[SAMPLES, LOSS];
    const RUNS_NETWORK: bool = true;
    const OPTIONAL_OUTPUTS: &'static [&'static str] = &[TEST_HR, TEST_LR, VALIDATION_HR, VALIDATION_LR];
    const REFERENCES: &'static [(&'static str, &'static [&'static str])] =
        &[("model", &[TrainParams::NAME, SelectParams::NAME]), ("data", &[DegradeParams::NAME])];
    const HEADLINES: &'static [&'static str] = &["images_per_s"];
    const TIME_LINEAR: &'static [&'static str] = &["/sampler/steps", "/samples", "/limit"];

    fn outputs(&self) -> Vec<&str> {
        let [hr, lr] = self.split.blobs();
        vec![SAMPLES, hr, lr, LOSS]
    }

    fn inputs(&self) -> Vec<Input> {
        let weights = match self.weights {
            Weights::Ema => EMA,
            Weights::Raw => WEIGHTS,
        };
        vec![Input::of("model", &self.model, &[weights, LOSS]), Input::of("data", &self.data, &self.split.blobs())]
    }

    fn rename_inputs(&mut self, rename: &mut dyn FnMut(&mut String)) {
        rename(&mut self.model);
        rename(&mut self.data);
    }

    fn seed(&self, pipeline: u64) -> Option<u64> {
        Some(self.seed.unwrap_or(pipeline))
    }
}
