//! Claims of a comparison: that one arm is better than another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::Metric;

/// That `arm` is better than `control`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The arm that is to be better.
    pub arm: String,
    /// What it is to be better than: best an arm that differs in nothing but what is claimed to help. Another arm, or
    /// `bicubic`.
    pub control: String,
    /// What decides. The claims `quality`, `coherence`, `artifacts` and `convergence` have one of their own:
    /// `heldout_loss`, `energy_score`, `spectrum_distance` and `flops_to_loss`.
    #[serde(default)]
    pub endpoint: Option<Metric>,
    /// Differences smaller than this are of no interest. In dB, in units of SSIM, or for other endpoints in percent of
    /// the control's value; where nothing is said 0.1 dB, 0.005, 1 %, and 5 % of what training took.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub margin: Option<f64>,
}

impl Claim {
    /// Returns the endpoint of the claim `name`: the file's, or the one that the name implies.
    pub fn endpoint(&self, name: &str) -> Option<Metric> {
        self.endpoint.or(match name {
            "quality" => Some(Metric::HeldoutLoss),
            "coherence" => Some(Metric::EnergyScore),
            "artifacts" => Some(Metric::SpectrumDistance),
            "convergence" => Some(Metric::FlopsToLoss),
            _ => None,
        })
    }
}
