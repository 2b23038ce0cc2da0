//! Parameters of `train`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blobs::{ATTENTION, EMA, LOSS, TRAIN_HR, TRAIN_LR, VALIDATION_HR, VALIDATION_LR, WEIGHTS};
use super::metrics::VAL_LOSS_FIELD;
use super::{DegradeParams, DiffusionParams, Input, Kind, ModelParams};

/// Trains a model on pairs of low- and high-resolution images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainParams {
    /// The `degrade` stage with the pairs to train on.
    #[serde(skip_serializing)]
    pub data: String,
    /// The seed of initial weights, batches, times and noise; by default the pipeline's.
    #[serde(default, skip_serializing)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub model: ModelParams,
    #[serde(default)]
    pub diffusion: DiffusionParams,
    #[serde(default)]
    pub optim: OptimParams,
    #[serde(default, rename(serialize = "heldout", deserialize = "validation"), alias = "heldout")]
    pub validation: ValidationParams,
}

/// The optimiser and the length of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimParams {
    /// Peak learning rate of AdamW.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 10))]
    pub lr: f64,
    /// Images per optimiser step.
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
    /// The number of micro-batches that a batch is split into. Their gradients are added: the same step with less memory.
    #[schemars(range(min = 1, max = 65_536))]
    #[serde(rename(serialize = "accumulate", deserialize = "micro_batches"), alias = "accumulate")]
    pub micro_batches: usize,
    /// Optimiser steps; alternatively set `epochs` or `budget`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub steps: Option<u64>,
    /// Passes over the training images; alternatively set `steps` or `budget`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: Option<u64>,
    /// Seconds of training at `gflops`; alternatively set `steps` or `epochs`. All `train` stages of the file with the same
    /// budget have the same number of steps: as many as the most expensive of them can do in that time.
    #[serde(skip_serializing)]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub budget: Option<u64>,
    /// With `budget`: the machine's training speed in billions of operations per second, as measured by `srpipe bench`. It
    /// is a parameter because the same file must give the same number of steps everywhere.
    #[serde(skip_serializing)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gflops: Option<f64>,
    /// The fraction of the steps during which the learning rate rises linearly from 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup: f64,
    pub decay: Decay,
    /// The maximum global norm of the gradients, which are scaled down to it; null disables clipping.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: Option<f64>,
    /// Decay d of the weights' moving average, min(d, (1 + n)/(10 + n)) at step n.
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub ema: f64,
    /// Adam's decay rates of the first and second moment.
    #[schemars(inner(range(min = 0.0, max = 0.999_999)))]
    pub betas: [f64; 2],
    /// AdamW's weight decay (Loshchilov and Hutter 2019): each step subtracts this fraction of every weight, times the
    /// learning rate.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    /// Flip images horizontally at random.
    pub flips: bool,
}

impl Default for OptimParams {
    fn default() -> Self {
        Self {
            lr: 2e-3,
            batch_size: 16,
            micro_batches: 1,
            steps: None,
            epochs: None,
            budget: None,
            gflops: None,
            warmup: 0.05,
            decay: Decay::default(),
            clip: Some(1.0),
            ema: 0.999,
            betas: [0.9, 0.999],
            weight_decay: 0.0,
            flips: true,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// A constant learning rate.
    None,
    /// After the warm-up, the learning rate falls to 0 along half a cosine.
    #[default]
    Cosine,
}

/// The loss on validation images during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationParams {
    /// Steps between measurements; the last step is always measured.
    #[schemars(range(min = 1))]
    pub every: u64,
    /// The maximum number of validation images.
    #[schemars(range(min = 1))]
    pub images: usize,
}

impl Default for ValidationParams {
    fn default() -> Self {
        Self { every: 100, images: 256 }
    }
}

impl Kind for TrainParams {
    const NAME: &'static str = "train";
    const VERSION: u32 = 3;
    const OUTPUTS: &'static [&'static str] = &[WEIGHTS, EMA, LOSS];
    const OPTIONAL_OUTPUTS: &'static [&'static str] = &[ATTENTION];
    const RUNS_NETWORK: bool = true;
    const REFERENCES: &'static [(&'static str, &'static [&'static str])] = &[("data", &[DegradeParams::NAME])];
    const HEADLINES: &'static [&'static str] = &[VAL_LOSS_FIELD, "loss"];
    const TIME_LINEAR: &'static [&'static str] = &["/optim/steps", "/optim/epochs", "/optim/batch_size"];
    // The operations of a convolution are proportional to its input and to its output channels.
    const TIME_QUADRATIC: &'static [&'static str] = &["/model/base_channels"];

    fn inputs(&self) -> Vec<Input> {
        vec![Input::of("data", &self.data, &[TRAIN_HR, TRAIN_LR, VALIDATION_HR, VALIDATION_LR])]
    }

    fn rename_inputs(&mut self, rename: &mut dyn FnMut(&mut String)) {
        rename(&mut self.data);
    }

    fn seed(&self, pipeline: u64) -> Option<u64> {
        Some(self.seed.unwrap_or(pipeline))
    }
}
