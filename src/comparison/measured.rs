//! The measurements of an arm for each image, and `metrics.csv`.

use anyhow::Context;
use indexmap::IndexSet;

use super::figures::Figures;
use super::loss::LossRow;
use crate::config::metrics::{Drawn, Metric, Scope};
use crate::config::{DiffusionParams, EvaluationSplit, Label, PredictionType};
use crate::metrics::{Distances, Errors, Forecast, Scores, calibration};
use crate::store::Digest;

/// The reference arm of every comparison: the low-resolution image enlarged bicubically.
pub const BICUBIC: &str = "bicubic";

/// The measurements of one arm with one seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    pub name: String,
    /// Its axis values, if it is an instance of a sweep.
    pub axes: Vec<Label>,
    /// Present if seeds were swept.
    pub seed: Option<String>,
    /// The split of its images.
    pub split: EvaluationSplit,
    /// Whether its model was selected by the results of the training runs that it depends on.
    pub is_selected: bool,
    /// The training runs that it depends on, as numbered in the comparison; empty if it was not trained.
    pub trainings: Vec<usize>,
    /// The digest of its samples. Runs of an arm with equal samples are copies.
    pub samples_digest: Option<Digest>,
    /// The digest of `loss.csv`.
    pub loss_digest: Option<Digest>,
    /// The kind of its validation loss, as numbered in the comparison; `None` if unknown.
    pub loss_kind: Option<usize>,
    /// The number K of samples per image.
    pub samples: usize,
    /// The diffusion parameters of its model; `None` without a model or if unknown.
    pub diffusion: Option<DiffusionParams>,
    /// Of the first sample of each image.
    pub sample: Vec<Scores>,
    /// Of the mean of the K samples.
    pub mean: Vec<Scores>,
    /// Of all K samples of each image.
    pub forecasts: Vec<Forecast>,
    /// Of the first samples as a set.
    pub distances: Distances,
    /// `loss.csv` of its training run; empty if it was not trained.
    pub losses: Vec<LossRow>,
}

impl Measured {
    /// Creates an arm without optional data.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_string(), ..Self::default() }
    }

    pub(super) fn objective(&self) -> Option<PredictionType> {
        self.diffusion.as_ref().map(|diffusion| diffusion.objective)
    }

    /// Whether its K samples are random draws; see [`Drawn`].
    pub fn draws(&self) -> bool {
        self.drawn().is_random
    }

    pub fn drawn(&self) -> Drawn {
        match self.name.as_str() {
            BICUBIC => Drawn::BICUBIC,
            _ => Drawn::new(self.samples, self.objective()),
        }
    }

    /// Returns one value per image whose mean is the PSNR in dB of the mean squared error over all images, estimated for
    /// the mean of infinitely many samples. `None` for a single random draw, or if the estimated error is not positive.
    ///
    /// The PSNR of each image would be biased, because its error is estimated from few samples. The values are therefore
    /// linear in the images' errors e: PSNR(ē) − (10/ln 10)·(e/ē − 1), which has the same variation to first order.
    fn psnr_of_infinite_mean(&self) -> Option<Vec<f64>> {
        if self.draws() && self.samples < 2 {
            return None;
        }
        let of_image = |errors: Errors| match self.draws() {
            true => errors.of_infinite_mean(self.samples),
            false => errors.of_mean,
        };
        let errors: Vec<f64> = self.forecasts.iter().map(|forecast| of_image(forecast.errors)).collect();
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let psnr = 10.0 * (255.0 * 255.0 / mean).log10();
        let decibels = 10.0 / std::f64::consts::LN_10;
        (mean > 0.0).then(|| errors.iter().map(|error| psnr - decibels * (error / mean - 1.0)).collect())
    }

    /// Returns the last validation loss; `None` also if it is not finite, which JSON cannot represent.
    pub(super) fn val_loss(&self) -> Option<f64> {
        self.losses.iter().rev().find_map(|r| r.val_loss).filter(|l| l.is_finite())
    }

    /// Returns the values of a metric: one per test image, or a single one if its scope is larger. `None` if it does
    /// not apply to the arm or compares two arms.
    pub(super) fn values(&self, metric: Metric) -> Option<Vec<f64>> {
        let sample = |value: fn(&Scores) -> Option<f64>| self.sample.iter().map(value).collect();
        let mean = |value: fn(&Scores) -> Option<f64>| self.mean.iter().map(value).collect();
        let single = |value: Option<f64>| value.map(|value| vec![value]);
        match metric {
            Metric::PsnrSample => sample(|s| Some(s.psnr)),
            Metric::PsnrMean => mean(|s| Some(s.psnr)),
            Metric::PsnrMeanLimit => self.psnr_of_infinite_mean(),
            Metric::PsnrYSample => sample(|s| s.psnr_y),
            Metric::PsnrYMean => mean(|s| s.psnr_y),
            Metric::SsimSample => sample(|s| s.ssim),
            Metric::SsimMean => mean(|s| s.ssim),
            Metric::SsimYSample => sample(|s| s.ssim_y),
            Metric::SsimYMean => mean(|s| s.ssim_y),
            Metric::ConsistencyPsnr => sample(|s| Some(s.consistency_psnr)),
            Metric::ConsistencyPsnrMean => mean(|s| Some(s.consistency_psnr)),
            // With a single sample, both are the error of that sample.
            Metric::Crps | Metric::EnergyScore if self.samples < 2 => None,
            Metric::Crps => Some(self.forecasts.iter().map(|f| f.crps).collect()),
            Metric::EnergyScore => self.forecasts.iter().map(|f| f.energy_score).collect(),
            Metric::Calibration => {
                let errors: Vec<Errors> = self.forecasts.iter().map(|f| f.errors).collect();
                single(calibration(&errors, self.samples))
            }
            Metric::SpectrumDistance => single(self.distances.spectrum),
            Metric::SlicedWasserstein => single(self.distances.sliced_wasserstein),
            Metric::ValLoss => single(self.val_loss()),
            Metric::StepsToLoss | Metric::FlopsToLoss => None,
        }
    }

    /// Returns the mean of every metric that applies.
    pub(super) fn figures(&self) -> Figures {
        Figures::from_fn(|metric| {
            let values = self.values(metric).filter(|values| !values.is_empty())?;
            Some(values.iter().sum::<f64>() / values.len() as f64)
        })
    }
}

/// Returns the distances between two halves of the real images, as a reference for those of the arms.
pub fn floors(distances: Distances) -> Figures {
    let floors = Measured { distances, ..Measured::default() };
    Figures::from_fn(|metric| match metric.scope() {
        Scope::Distribution => floors.values(metric)?.first().copied(),
        _ => None,
    })
}

/// Writes `metrics.csv`: one row per image, arm and seed; one column per axis of the sweep; metrics are named as in
/// `summary.json`. Rows with the same `training` depend on the same training run; several training runs are
/// separated by spaces. Cells that do not apply are empty.
pub fn metrics_csv(arms: &[Measured]) -> anyhow::Result<Vec<u8>> {
    let metrics: Vec<Metric> = Metric::ALL.iter().copied().filter(|metric| metric.scope() == Scope::Image).collect();
    let axes: IndexSet<&str> = arms.iter().flat_map(|arm| arm.axes.iter().map(|label| label.axis.as_str())).collect();
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(vec![]);
    let head = ["image", "split", "arm", "seed", "training"]
        .into_iter()
        .chain(axes.iter().copied())
        .chain(metrics.iter().map(|metric| metric.field()));
    csv.write_record(head).context("writing the metrics as CSV")?;
    // All test images have the same size, so a metric applies to all of them or to none.
    let columns: Vec<Vec<Option<Vec<f64>>>> =
        arms.iter().map(|arm| metrics.iter().map(|&metric| arm.values(metric)).collect()).collect();
    for image in 0..arms.iter().map(|a| a.sample.len()).max().unwrap_or(0) {
        for (arm, columns) in arms.iter().zip(&columns) {
            let value = |axis: &&str| arm.axes.iter().find(|label| label.axis == *axis).map(|label| &label.value);
            let values: Vec<Option<&String>> = axes.iter().map(value).collect();
            let figures: Vec<Option<f64>> = columns.iter().map(|values| Some(values.as_ref()?[image])).collect();
            let trainings = arm.trainings.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
            csv.serialize((image, arm.split, &arm.name, &arm.seed, trainings, values, figures))
                .context("writing the metrics as CSV")?;
        }
    }
    csv.into_inner().context("writing the metrics as CSV")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::testing::{OF_BICUBIC, OF_SAMPLES, measured, with_seeds};

    #[test]
    fn the_csv_is_pinned() {
        let csv = String::from_utf8(metrics_csv(&measured()).unwrap()).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "image,split,arm,seed,training,psnr_sample,psnr_mean,psnr_mean_limit,psnr_y_sample,psnr_y_mean,ssim_sample,\
             ssim_mean,ssim_y_sample,ssim_y_mean,consistency_psnr,consistency_psnr_mean,crps,energy_score"
        );
        assert_eq!(lines[2], format!("0,test,\"attention, 2\",,,18.0,21.0,{OF_SAMPLES},19.0,22.0,,,,,36.0,42.0,5.25,"));
        assert_eq!(lines[4], format!("1,test,bicubic,,,22.5,22.5,{OF_BICUBIC},23.5,23.5,,,,,45.0,45.0,,"));
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn the_csv_has_columns_for_seeds_and_axes() {
        let csv = String::from_utf8(metrics_csv(&with_seeds()).unwrap()).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines[0].starts_with("image,split,arm,seed,training,base_channels,psnr_sample,"), "{csv}");
        assert_eq!(lines[1], format!("0,test,bicubic,,,,20.0,20.0,{OF_BICUBIC},21.0,21.0,,,,,40.0,40.0,,"));
        let of_seed =
            format!("0,test,baseline[base_channels=16],1,0,16,20.0,20.0,{OF_SAMPLES},21.0,21.0,,,,,40.0,40.0,5.0,");
        assert_eq!(lines[4], of_seed);
        assert_eq!(lines.len(), 9);
    }
}
