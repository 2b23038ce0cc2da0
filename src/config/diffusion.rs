//! Parameters of the diffusion process and of what the network predicts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The noise process and what the network predicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiffusionParams {
    pub schedule: ScheduleKind,
    /// Steps T of the noise process.
    #[schemars(range(min = 2, max = 100_000))]
    pub timesteps: usize,
    /// Linear and quadratic schedule: the first beta at T = 1000, scaled by 1000/T for other T.
    #[schemars(range(min = 1e-8, max = 0.5))]
    pub beta_start: f64,
    /// Linear and quadratic schedule: the last beta at T = 1000, scaled by 1000/T for other T.
    #[schemars(range(min = 1e-8, max = 0.999))]
    pub beta_end: f64,
    pub objective: PredictionType,
    pub target: Target,
    /// Target `residual`: the factor that scales the residual to the range of an image, [-1, 1]. By default half the
    /// reciprocal of its standard deviation over the training images.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1000))]
    pub residual_scale: Option<f64>,
    pub loss_weighting: LossWeighting,
    /// The signal-to-noise ratio at which `min_snr` clips weights.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub min_snr_gamma: f64,
}

impl Default for DiffusionParams {
    fn default() -> Self {
        Self {
            schedule: ScheduleKind::default(),
            timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            objective: PredictionType::default(),
            target: Target::default(),
            residual_scale: None,
            loss_weighting: LossWeighting::default(),
            min_snr_gamma: 5.0,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Linear betas (Ho et al. 2020).
    Linear,
    /// Squared cosine alpha-bar (Nichol and Dhariwal 2021, eq. 17).
    #[default]
    Cosine,
    /// Sigmoid alpha-bar, from -3 to 3 (Chen 2023, section 2.2).
    Sigmoid,
    /// Linear square roots of the betas (Song et al. 2021, appendix D).
    Quadratic,
}

impl ScheduleKind {
    /// Whether it uses `beta_start` and `beta_end`.
    pub fn has_betas(self) -> bool {
        matches!(self, Self::Linear | Self::Quadratic)
    }
}

/// The weight of the squared error at each time in training. The validation loss is not weighted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossWeighting {
    /// 1 at every time.
    #[default]
    None,
    /// The signal-to-noise ratio, at most `min_snr_gamma`, as a weight on the clean image's error (Hang et al. 2023).
    MinSnr,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Objective")]
pub enum PredictionType {
    /// The noise (Ho et al. 2020).
    Eps,
    /// The clean image.
    X0,
    /// Velocity (Salimans and Ho 2022): sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0.
    #[default]
    V,
    /// No diffusion: one pass from the low-resolution image to the mean of the high-resolution ones.
    Regression,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The high-resolution image in [-1, 1].
    Image,
    /// The high-resolution image minus the bicubically enlarged low-resolution one, times `residual_scale`.
    #[default]
    Residual,
}
