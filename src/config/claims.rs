//! Claims of a comparison: that one arm is better than another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::Metric;

/// The claim that `arm` is better than `control`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The arm that is claimed to be better.
    pub arm: String,
    /// The arm to compare it with, or `bicubic`. Ideally, it differs from `arm` only in what is claimed to help.
    pub control: String,
    /// The metric that decides the claim. Claims named `quality`, `coherence`, `artifacts` and `convergence` default to
    /// `val_loss`, `energy_score`, `spectrum_distance` and `flops_to_loss`; other claims need an endpoint.
    #[serde(default)]
    pub endpoint: Option<Metric>,
    /// The smallest relevant difference: in dB for PSNR and `spectrum_distance`, as a difference of SSIM, or in percent of
    /// the control's value for other endpoints. Defaults to 0.1 dB, 0.005 and 1 %, but 5 % for `steps_to_loss` and
    /// `flops_to_loss`.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub margin: Option<f64>,
}

impl Claim {
    /// Returns the endpoint of the claim `name`: the file's, or the one that the name implies.
    pub fn endpoint(&self, name: &str) -> Option<Metric> {
        self.endpoint.or(match name {
            "quality" => Some(Metric::ValLoss),
            "coherence" => Some(Metric::EnergyScore),
            "artifacts" => Some(Metric::SpectrumDistance),
            "convergence" => Some(Metric::FlopsToLoss),
            _ => None,
        })
    }
}
