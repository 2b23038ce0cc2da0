//! What a comparison is asked: claims that one arm is better than another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    pub endpoint: Option<Endpoint>,
    /// Differences smaller than this are of no interest. In dB, in units of SSIM, or for other endpoints in percent of
    /// the control's value; where nothing is said 0.1 dB, 0.005, 1 %, and 5 % of what training took.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub margin: Option<f64>,
}

/// A figure that can decide a claim, named as in `summary.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// The held-out loss at the end of training.
    HeldoutLoss,
    /// PSNR of the first sample. A sampler's is below that of a blurred answer: it does not tell which is better.
    PsnrSample,
    /// PSNR of the mean of all samples.
    PsnrMean,
    /// PSNR of the luma of the first sample.
    PsnrYSample,
    /// PSNR of the luma of the mean of all samples.
    PsnrYMean,
    /// SSIM of the first sample.
    SsimSample,
    /// SSIM of the mean of all samples.
    SsimMean,
    /// PSNR of the first sample, degraded, against the low-resolution image.
    ConsistencyPsnr,
    /// Continuous ranked probability score: pixel by pixel.
    Crps,
    /// Energy score of patches of 8×8: whether pixels fit together.
    EnergyScore,
    /// Power above the frequencies of the low-resolution image.
    SpectrumDistance,
    /// Structure of patches of 7×7.
    SlicedWasserstein,
    /// Training steps until the held-out loss was what both arms reach.
    StepsToLoss,
    /// Operations of training until the held-out loss was what both arms reach.
    FlopsToLoss,
}

/// What a difference by an endpoint is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    #[serde(rename = "dB")]
    Decibel,
    #[serde(rename = "")]
    One,
    /// Of the control's value.
    #[serde(rename = "%")]
    Percent,
}

impl Endpoint {
    pub const ALL: [Self; 14] = [
        Self::HeldoutLoss,
        Self::PsnrSample,
        Self::PsnrMean,
        Self::PsnrYSample,
        Self::PsnrYMean,
        Self::SsimSample,
        Self::SsimMean,
        Self::ConsistencyPsnr,
        Self::Crps,
        Self::EnergyScore,
        Self::SpectrumDistance,
        Self::SlicedWasserstein,
        Self::StepsToLoss,
        Self::FlopsToLoss,
    ];

    /// What decides a claim of this name where the file does not say.
    pub fn of_claim(name: &str) -> Option<Self> {
        match name {
            "quality" => Some(Self::HeldoutLoss),
            "coherence" => Some(Self::EnergyScore),
            "artifacts" => Some(Self::SpectrumDistance),
            "convergence" => Some(Self::FlopsToLoss),
            _ => None,
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Self::PsnrSample
            | Self::PsnrMean
            | Self::PsnrYSample
            | Self::PsnrYMean
            | Self::ConsistencyPsnr
            | Self::SpectrumDistance => Unit::Decibel,
            Self::SsimSample | Self::SsimMean => Unit::One,
            Self::HeldoutLoss
            | Self::Crps
            | Self::EnergyScore
            | Self::SlicedWasserstein
            | Self::StepsToLoss
            | Self::FlopsToLoss => Unit::Percent,
        }
    }

    /// In its unit.
    pub fn default_margin(self) -> f64 {
        match self.unit() {
            Unit::Decibel => 0.1,
            Unit::One => 0.005,
            Unit::Percent if self.is_of_convergence() => 5.0,
            Unit::Percent => 1.0,
        }
    }

    /// Whether the greater value is the better one.
    pub fn more_is_better(self) -> bool {
        match self.unit() {
            Unit::Decibel => self != Self::SpectrumDistance,
            Unit::One => true,
            Unit::Percent => false,
        }
    }

    /// Whether it is measured in training: then nothing but a trained arm has it, and only arms that learn to predict
    /// the same under the same noise can be told apart by it.
    pub fn is_of_training(self) -> bool {
        self == Self::HeldoutLoss || self.is_of_convergence()
    }

    /// Whether it is of the same thing in two arms that draw so many samples of an image. Means of more samples are nearer
    /// to the image; proper scores are estimated without bias from any number but one.
    pub fn allows(self, samples: [usize; 2]) -> bool {
        let [a, b] = samples;
        match self {
            Self::PsnrMean | Self::PsnrYMean | Self::SsimMean => a == b,
            Self::Crps | Self::EnergyScore => a == b || (a > 1 && b > 1),
            _ => true,
        }
    }

    pub fn is_of_convergence(self) -> bool {
        matches!(self, Self::StepsToLoss | Self::FlopsToLoss)
    }
}

impl Claim {
    /// `None` where neither file nor name says one.
    pub fn endpoint(&self, name: &str) -> Option<Endpoint> {
        self.endpoint.or_else(|| Endpoint::of_claim(name))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_called_as_in_the_file() {
        assert_eq!(Endpoint::PsnrYMean.to_string(), "psnr_y_mean");
        let mut names: Vec<String> = Endpoint::ALL.iter().map(Endpoint::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Endpoint::ALL.len());
    }

    #[test]
    fn margins_are_those_that_are_documented() {
        let margin = |endpoint: Endpoint| (endpoint.default_margin(), endpoint.unit());
        assert_eq!(margin(Endpoint::HeldoutLoss), (1.0, Unit::Percent));
        assert_eq!(margin(Endpoint::PsnrMean), (0.1, Unit::Decibel));
        assert_eq!(margin(Endpoint::SsimMean), (0.005, Unit::One));
        assert_eq!(margin(Endpoint::StepsToLoss), (5.0, Unit::Percent));
        assert!(Endpoint::ConsistencyPsnr.more_is_better() && !Endpoint::SpectrumDistance.more_is_better());
    }
}
