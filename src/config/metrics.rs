//! The metrics of a comparison. Each is declared once, here; tables, `metrics.csv`, `summary.json`, floors, claims, the
//! report and the reference iterate over [`Metric::ALL`].

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PredictionType;

/// The older name of `val_loss`, which is still its name in stage keys, JSON and CSV files, and the events and metrics
/// of stages.
pub const VAL_LOSS_FIELD: &str = "heldout_loss";

/// Returns the name of a metric of a `train` stage as tables and progress show it.
pub fn shown_name(name: &str) -> &str {
    if name == VAL_LOSS_FIELD { Metric::ValLoss.id() } else { name }
}

/// The unit in which a metric is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Decibel,
    /// Between 0 and 1, or a ratio.
    One,
    /// Levels of 8-bit pixels.
    Level,
    /// The training loss.
    Loss,
    Step,
    Flop,
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
    /// Values closer to 1 are better.
    One,
}

/// What a value of a metric is measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A test image: `metrics.csv` has a column for it, and `summary.json` the mean.
    Image,
    /// All test images together.
    Images,
    /// The distance between the distributions of all test images and the real ones; compare it with its floor.
    Distribution,
    /// The training run of the arm's network.
    Training,
    /// A pair of training runs: how long each took to reach a loss that both reach. Only for claims.
    Convergence,
}

/// Which arms a metric can compare, given their numbers K of samples per image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Samples {
    /// All: it does not depend on K.
    Any,
    /// Two arms that draw samples, or two that do not. It measures a single sample, which is less similar to the image
    /// than the mean of all possible samples, which a deterministic network estimates.
    Draw,
    /// Arms with K ≥ 2, for which its estimate is unbiased. With one sample, it is only the error of that sample.
    Unbiased,
    /// All, but arms that draw samples need K ≥ 2 for an unbiased estimate for infinitely many samples.
    Extrapolated,
    /// Two arms that draw samples with equal K, or two that do not draw samples. The mean of more samples has a smaller
    /// error.
    Same,
}

/// The samples of an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// The number K of samples per image.
    pub samples: usize,
    /// Whether they are random draws. Enlargement and regression are deterministic for any K.
    pub is_random: bool,
}

impl Drawn {
    /// Bicubic enlargement.
    pub const BICUBIC: Self = Self { samples: 1, is_random: false };

    /// Returns the samples of a model. If its objective is unknown, as for commands, they count as random draws: the
    /// mean of many draws must not be mistaken for a single one.
    pub fn new(samples: usize, objective: Option<PredictionType>) -> Self {
        Self { samples, is_random: objective != Some(PredictionType::Regression) }
    }
}

/// Why a metric cannot compare two arms, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objection {
    pub reason: &'static str,
    pub help: &'static str,
}

/// The declaration of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    /// The name in claims and, unless [`Metric::field`] says otherwise, in files.
    pub id: &'static str,
    /// The heading in tables.
    pub heading: &'static str,
    pub scale: Scale,
    pub decimals: usize,
    pub better: Better,
    pub scope: Scope,
    pub samples: Samples,
    /// Whether it can decide a claim.
    pub is_endpoint: bool,
    /// Whether tables show it; `summary.json` always contains it.
    pub in_tables: bool,
    pub description: &'static str,
}

macro_rules! metrics {
    ($($name:ident: $id:literal, $heading:literal, $scale:ident, $decimals:literal, $better:ident, $scope:ident,
       $samples:ident, endpoint: $endpoint:literal, in_tables: $shown:literal, $description:literal;)*) => {
        /// A metric of an arm.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Metric {
            $(#[doc = $description] $name),*
        }

        impl Metric {
            /// In the order of tables and files.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            pub const fn declaration(self) -> &'static Declaration {
                match self {
                    $(Self::$name => &Declaration {
                        id: $id,
                        heading: $heading,
                        scale: Scale::$scale,
                        decimals: $decimals,
                        better: Better::$better,
                        scope: Scope::$scope,
                        samples: Samples::$samples,
                        is_endpoint: $endpoint,
                        in_tables: $shown,
                        description: $description,
                    }),*
                }
            }
        }
    };
}

metrics! {
    PsnrSample: "psnr_sample", "PSNR", Decibel, 2, Higher, Image, Draw, endpoint: true, in_tables: true,
        "PSNR of the first sample. Blurred images score higher than sharp samples, so a higher value does not mean a better arm.";
    PsnrMean: "psnr_mean", "PSNR of mean", Decibel, 2, Higher, Image, Same, endpoint: true, in_tables: true,
        "PSNR of the mean of all samples of an image. Claims compare the mean of infinitely many samples instead.";
    PsnrMeanLimit: "psnr_mean_limit", "PSNR, K → ∞", Decibel, 2, Higher, Image, Extrapolated, endpoint: false,
        in_tables: true,
        "Estimated PSNR of the mean of infinitely many samples. It is computed from the mean squared error over all images, so images with large errors count more.";
    PsnrYSample: "psnr_y_sample", "PSNR-Y", Decibel, 2, Higher, Image, Draw, endpoint: true, in_tables: false,
        "PSNR of the luma of the first sample, cropped at each edge by as many pixels as the scale.";
    PsnrYMean: "psnr_y_mean", "PSNR-Y of mean", Decibel, 2, Higher, Image, Same, endpoint: true, in_tables: false,
        "PSNR of the luma of the mean of all samples, cropped at each edge by as many pixels as the scale.";
    SsimSample: "ssim_sample", "SSIM", One, 4, Higher, Image, Draw, endpoint: true, in_tables: true,
        "SSIM of the first sample.";
    SsimMean: "ssim_mean", "SSIM of mean", One, 4, Higher, Image, Same, endpoint: true, in_tables: true,
        "SSIM of the mean of all samples.";
    SsimYSample: "ssim_y_sample", "SSIM-Y", One, 4, Higher, Image, Draw, endpoint: true, in_tables: false,
        "SSIM of the luma of the first sample, cropped at each edge by as many pixels as the scale.";
    SsimYMean: "ssim_y_mean", "SSIM-Y of mean", One, 4, Higher, Image, Same, endpoint: true, in_tables: false,
        "SSIM of the luma of the mean of all samples, cropped at each edge by as many pixels as the scale.";
    ConsistencyPsnr: "consistency_psnr", "LR-PSNR", Decibel, 1, Higher, Image, Any, endpoint: true, in_tables: true,
        "PSNR of the first sample, degraded again, against the low-resolution image.";
    ConsistencyPsnrMean: "consistency_psnr_mean", "LR-PSNR of mean", Decibel, 1, Higher, Image, Same,
        endpoint: false, in_tables: false,
        "PSNR of the mean of all samples, degraded again, against the low-resolution image.";
    Crps: "crps", "CRPS", Level, 2, Lower, Image, Unbiased, endpoint: true, in_tables: true,
        "Continuous ranked probability score of all samples, pixel by pixel, in 8-bit levels.";
    EnergyScore: "energy_score", "energy score", Level, 2, Lower, Image, Unbiased, endpoint: true, in_tables: true,
        "Energy score of all samples in patches of 8×8, in 8-bit levels. It also measures whether the pixels of a sample fit together.";
    Calibration: "calibration", "calibration", One, 2, One, Images, Unbiased, endpoint: false, in_tables: true,
        "The variance of the samples divided by the squared error of their mean, both for infinitely many samples: 1 for \
         samples of the true distribution, less if the samples vary too little.";
    SpectrumDistance: "spectrum_distance", "spectrum", Decibel, 2, Lower, Distribution, Any,
        endpoint: true, in_tables: true,
        "Distance between the power spectra of the first samples and of the real images, above the frequencies of the low-resolution image.";
    SlicedWasserstein: "sliced_wasserstein", "patches", Level, 2, Lower, Distribution, Any,
        endpoint: true, in_tables: true,
        "Distance between the distributions of 7×7 patches of the first samples and of the real images, in 8-bit levels.";
    ValLoss: "val_loss", "validation loss", Loss, 5, Lower, Training, Any, endpoint: true, in_tables: true,
        "The validation loss at the end of training.";
    StepsToLoss: "steps_to_loss", "steps to loss", Step, 0, Lower, Convergence, Any, endpoint: true, in_tables: false,
        "Training steps until the validation loss reaches a value that both arms reach.";
    FlopsToLoss: "flops_to_loss", "FLOPs to loss", Flop, 0, Lower, Convergence, Any, endpoint: true, in_tables: false,
        "Floating-point operations of training until the validation loss reaches a value that both arms reach.";
}

/// The unit of a difference between two arms in an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    #[serde(rename = "dB")]
    Decibel,
    #[serde(rename = "")]
    One,
    /// Percent of the control's value.
    #[serde(rename = "%")]
    Percent,
}

impl Unit {
    /// The unit as it follows a number.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Decibel => " dB",
            Self::One => "",
            Self::Percent => " %",
        }
    }

    pub fn decimals(self) -> usize {
        match self {
            Self::Decibel | Self::Percent => 2,
            Self::One => 4,
        }
    }
}

impl Metric {
    /// The metrics that can decide a claim.
    pub fn endpoints() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|metric| metric.declaration().is_endpoint)
    }

    pub fn id(self) -> &'static str {
        self.declaration().id
    }

    /// Returns the name in stage keys, `summary.json` and `metrics.csv`.
    pub fn field(self) -> &'static str {
        match self {
            Self::ValLoss => VAL_LOSS_FIELD,
            metric => metric.id(),
        }
    }

    pub fn scope(self) -> Scope {
        self.declaration().scope
    }

    /// The unit of differences in this metric.
    pub fn unit(self) -> Unit {
        match self.declaration().scale {
            Scale::Decibel => Unit::Decibel,
            Scale::One => Unit::One,
            Scale::Level | Scale::Loss | Scale::Step | Scale::Flop => Unit::Percent,
        }
    }

    /// The default margin of claims, in [`unit`](Self::unit).
    pub fn default_margin(self) -> f64 {
        match self.unit() {
            Unit::Decibel => 0.1,
            Unit::One => 0.005,
            Unit::Percent if self.is_convergence() => 5.0,
            Unit::Percent => 1.0,
        }
    }

    /// Whether higher values are better.
    pub fn is_higher_better(self) -> bool {
        self.declaration().better == Better::Higher
    }

    /// Whether it is measured in training. Then only trained arms have it, and it is comparable only between losses of
    /// the same [`LossKind`](super::LossKind).
    pub fn is_of_training(self) -> bool {
        matches!(self.scope(), Scope::Training | Scope::Convergence)
    }

    pub fn is_convergence(self) -> bool {
        self.scope() == Scope::Convergence
    }

    /// Returns the metric that decides claims with this endpoint.
    pub fn deciding_metric(self) -> Self {
        match self {
            Self::PsnrMean => Self::PsnrMeanLimit,
            metric => metric,
        }
    }

    /// Returns the reason why its values cannot compare two arms, if there is one. For a claim, call it on the
    /// [`deciding_metric`](Self::deciding_metric).
    pub fn objection(self, arms: [Drawn; 2]) -> Option<Objection> {
        let too_few = |arm: &Drawn| arm.samples < 2;
        let [a, b] = arms;
        let objection = |reason, help| Some(Objection { reason, help });
        match self.declaration().samples {
            Samples::Draw if a.is_random != b.is_random => objection(
                "one of them draws samples, and even a perfect sample scores lower than the mean of all possible samples",
                "choose `psnr_mean`, which compares the means of infinitely many samples",
            ),
            Samples::Unbiased if arms.iter().any(too_few) => objection(
                "it needs at least two samples per image from both; with one, it is only the error of that sample",
                "set `samples: 2` or more in the `sample` stages of both; a regression model and `bicubic` have \
                 only one, so choose `psnr_mean` against them",
            ),
            Samples::Extrapolated if arms.iter().any(|arm| arm.is_random && too_few(arm)) => objection(
                "it needs at least two samples per image from every arm that draws samples",
                "set `samples: 2` or more in the `sample` stages, for example in `defaults.sample`",
            ),
            Samples::Same if a.is_random != b.is_random || (a.is_random && a.samples != b.samples) => objection(
                "it needs two arms that draw the same number of samples per image, or two deterministic arms",
                "set the same `samples` in the `sample` stages of both, for example in `defaults.sample`; \
                 against a deterministic arm, choose `psnr_mean`",
            ),
            Samples::Any | Samples::Draw | Samples::Unbiased | Samples::Extrapolated | Samples::Same => None,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let metric = Self::ALL.iter().copied().find(|metric| [metric.id(), metric.field()].contains(&text));
        metric.ok_or_else(|| format!("there is no metric `{text}`"))
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.field())
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The schema allows endpoints only, because pipeline files contain no other metrics.
impl JsonSchema for Metric {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |metric: Self| json_schema!({"description": metric.declaration().description, "type": "string", "const": metric.id()});
        let all: Vec<Schema> = Self::endpoints().map(one).collect();
        json_schema!({"description": "A metric that can decide a claim.", "oneOf": all})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinct_and_parse() {
        for (i, metric) in Metric::ALL.iter().enumerate() {
            assert_eq!([metric.id(), metric.field()].map(|name| name.parse()), [Ok(*metric), Ok(*metric)]);
            assert!(Metric::ALL[..i].iter().all(|other| other.id() != metric.id()), "{metric}");
        }
        assert!("psnr".parse::<Metric>().is_err());
    }

    #[test]
    fn margins_are_as_documented() {
        let margin = |metric: Metric| (metric.default_margin(), metric.unit());
        assert_eq!(margin(Metric::ValLoss), (1.0, Unit::Percent));
        assert_eq!(margin(Metric::PsnrMean), (0.1, Unit::Decibel));
        assert_eq!(margin(Metric::SsimMean), (0.005, Unit::One));
        assert_eq!(margin(Metric::StepsToLoss), (5.0, Unit::Percent));
        assert!(Metric::ConsistencyPsnr.is_higher_better() && !Metric::SpectrumDistance.is_higher_better());
    }

    #[test]
    fn metrics_compare_only_arms_that_are_comparable() {
        let draws = |samples| Drawn { samples, is_random: true };
        let fixed = |samples| Drawn { samples, is_random: false };
        let is_fair = |metric: Metric, a: Drawn, b: Drawn| {
            assert_eq!(metric.objection([a, b]), metric.objection([b, a]));
            metric.deciding_metric().objection([a, b]).is_none()
        };
        assert!(is_fair(Metric::PsnrSample, draws(1), draws(4)) && is_fair(Metric::PsnrSample, fixed(1), fixed(4)));
        assert!(!is_fair(Metric::PsnrSample, draws(4), fixed(1)));
        assert!(is_fair(Metric::PsnrMean, draws(2), draws(4)) && is_fair(Metric::PsnrMean, draws(2), fixed(1)));
        assert!(!is_fair(Metric::PsnrMean, draws(1), fixed(1)));
        assert!(is_fair(Metric::SsimMean, draws(4), draws(4)) && is_fair(Metric::SsimMean, fixed(1), fixed(2)));
        assert!(!is_fair(Metric::SsimMean, draws(2), draws(4)) && !is_fair(Metric::SsimMean, draws(4), fixed(4)));
        assert!(is_fair(Metric::Crps, draws(2), draws(4)) && is_fair(Metric::Crps, draws(2), fixed(2)));
        assert!(!is_fair(Metric::Crps, draws(1), draws(4)) && !is_fair(Metric::Crps, draws(4), fixed(1)));
        assert!(is_fair(Metric::SpectrumDistance, draws(1), fixed(1)));
        assert!(Metric::PsnrMean.objection([draws(2), draws(4)]).is_some(), "its values depend on K");
        assert_eq!([Drawn::new(1, None), Drawn::new(1, Some(PredictionType::Regression))], [draws(1), fixed(1)]);
    }
}
