//! `summary.json`: the metrics of a comparison, averaged over the test images.

use std::collections::BTreeMap;

use anyhow::Context;
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};

use super::claims::ClaimAnswer;
use super::differences::Difference;
use super::figures::Figures;
use super::independence;
use super::measured::{BICUBIC, Measured};
use crate::config::metrics::{Drawn, Metric};
use crate::config::{EvaluationSplit, PredictionType};

/// The schema version of `summary.json`.
const SCHEMA: u32 = 1;

/// The contents of `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub schema: u32,
    /// The number of measured images.
    pub images: usize,
    /// The split of the images.
    #[serde(default, skip_serializing_if = "EvaluationSplit::is_test")]
    pub split: EvaluationSplit,
    /// The number K of samples per image, if it is the same for all arms that draw samples; each arm also has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    pub arms: BTreeMap<String, ArmSummary>,
    /// The distances between two halves of the real images.
    #[serde(default, skip_serializing_if = "Figures::is_empty")]
    pub floors: Figures,
    /// Caveats for readers of the metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// For each metric by which an arm is significantly worse than the best: the best arm and those that are not
    /// significantly worse.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub best: BTreeMap<Metric, Vec<String>>,
    /// The differences of every arm from one control, by arm and then by metric.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// The answers to the claims of the file, in name order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimAnswer>,
}

/// The metrics of one arm; with several seeds their means, the metrics of each seed, and the standard deviations over
/// the seeds (n - 1), as in `psnr_mean_sd`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// The number K of samples per image; 1 for a deterministic arm.
    pub samples: usize,
    /// The objective of its model: `regression` is deterministic, all others draw samples. Absent for enlargements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<PredictionType>,
    #[serde(flatten)]
    pub figures: Figures,
    /// Absent with fewer than two seeds.
    #[serde(flatten, with = "super::figures::deviations")]
    pub sd: Option<Figures>,
    /// Its axis values, if it is an instance of a sweep.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    axes: BTreeMap<String, String>,
    /// Present if seeds were swept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seeds: BTreeMap<String, Figures>,
    /// The number of independent training runs among the seeds; absent with fewer than two seeds. If it is 1, the
    /// standard deviations cover only sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainings: Option<usize>,
}

impl Summary {
    /// Computes the means over the images of each arm, summed in image order. All arms must have the same images, and
    /// the seeds of an arm must be adjacent. Does not compare arms: claims, differences and best arms are empty.
    pub fn of(arms: &[Measured], floors: Figures) -> Self {
        let drawn = drawn(arms);
        Self {
            schema: SCHEMA,
            images: arms.first().map_or(0, |a| a.sample.len()),
            split: arms.first().map_or(EvaluationSplit::Test, |a| a.split),
            samples: match drawn.len() {
                0 | 1 => Some(drawn.keys().next().copied().unwrap_or(1)),
                _ => None,
            },
            arms: arms.chunk_by(|a, b| a.name == b.name).map(|a| (a[0].name.clone(), ArmSummary::of(a))).collect(),
            floors,
            notes: note_on_samples(&drawn).into_iter().chain(note_on_selection(arms)).collect(),
            best: BTreeMap::new(),
            differences: vec![],
            claims: vec![],
        }
    }

    /// Explains "±" in tables: what the standard deviations are over. `None` if no arm has several seeds.
    pub fn describe_deviations(&self) -> Option<String> {
        let mut arms: IndexMap<String, Vec<&str>> = IndexMap::new();
        for (name, arm) in &self.arms {
            let Some(variation) = arm.describe_variation() else { continue };
            arms.entry(variation).or_default().push(name);
        }
        let of_arms =
            |(variation, names): (&String, &Vec<&str>)| format!("{variation} ({})", listed(names.iter().copied()));
        let over = match arms.len() {
            0 => return None,
            1 => arms.keys().next()?.clone(),
            _ => arms.iter().map(of_arms).collect::<Vec<_>>().join(", "),
        };
        Some(format!("± is the standard deviation over {over}"))
    }

    /// Explains the column that replaces the PSNR of the mean in claims and rankings. `None` without that column.
    pub fn describe_limit(&self) -> Option<String> {
        let heading = Metric::PsnrMeanLimit.declaration().heading;
        self.arms.values().any(|arm| arm.figures.get(Metric::PsnrMeanLimit).is_some()).then(|| {
            let of_mean = Metric::PsnrMean.declaration().heading;
            format!(
                "“{heading}” replaces “{of_mean}” in claims and rankings, because it does not depend on K. It is the \
                 PSNR of the mean squared error over all images, so it is lower than the mean of their PSNRs"
            )
        })
    }

    /// Serialises the summary.
    ///
    /// # Errors
    /// Fails if a value is not finite, because JSON would contain `null` instead.
    pub fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        for (name, arm) in &self.arms {
            let figures = serde_json::to_value(arm).context("writing the summary as JSON")?;
            let figures = figures.as_object().into_iter().flatten();
            let wrong = figures.filter(|(_, value)| value.is_null()).map(|(figure, _)| figure.as_str()).next();
            anyhow::ensure!(wrong.is_none(), "{} of arm {name} is not a finite number", wrong.unwrap_or_default());
        }
        let mut json = serde_json::to_vec_pretty(self).context("writing the summary as JSON")?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads the output of [`to_json`](Self::to_json); fails for another schema version.
    pub fn from_json(bytes: &[u8]) -> anyhow::Result<Self> {
        let summary: Self = serde_json::from_slice(bytes).context("reading the summary of a comparison")?;
        anyhow::ensure!(
            summary.schema == SCHEMA,
            "the summary has schema {}; this srpipe reads {SCHEMA}",
            summary.schema
        );
        Ok(summary)
    }
}

/// Groups the arms that draw samples by their number of samples per image.
fn drawn(arms: &[Measured]) -> BTreeMap<usize, IndexSet<&str>> {
    let mut drawn: BTreeMap<usize, IndexSet<&str>> = BTreeMap::new();
    for arm in arms.iter().filter(|arm| arm.draws()) {
        drawn.entry(arm.samples).or_default().insert(&arm.name);
    }
    drawn
}

/// The maximum number of arm names to list.
const NAMED: usize = 3;

/// Lists the first names, and how many more there are.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.take(NAMED).collect::<Vec<_>>().join(", "))
}

/// Returns a note if arms have different K.
fn note_on_samples(drawn: &BTreeMap<usize, IndexSet<&str>>) -> Option<String> {
    let group = |(samples, names): (&usize, &IndexSet<&str>)| format!("{samples} ({})", listed(names.iter().copied()));
    let groups: Vec<String> = drawn.iter().map(group).collect();
    (groups.len() > 1).then(|| {
        format!(
            "the arms have different numbers K of samples: {}. The mean of more samples has a smaller error, so metrics \
             of the mean in tables are not comparable between arms with different K; claims on `psnr_mean` compare the \
             means of infinitely many samples",
            groups.join(", ")
        )
    })
}

/// Returns a note if models were selected by the results of the training runs that are compared.
fn note_on_selection(arms: &[Measured]) -> Option<String> {
    let selected: IndexSet<&str> = arms.iter().filter(|arm| arm.is_selected).map(|arm| arm.name.as_str()).collect();
    (!selected.is_empty()).then(|| {
        format!(
            "the model of {} was selected by the validation results of these training runs. Its results are valid for \
             these networks, but other seeds may give worse ones, and differences from other arms favour it",
            listed(selected.iter().copied())
        )
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Returns the sample standard deviation (n - 1).
fn sd(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

impl ArmSummary {
    /// Describes what its standard deviations are over, such as `6 training runs`; `None` with one seed.
    pub fn describe_variation(&self) -> Option<String> {
        let runs = self.seeds.len();
        // Whether a command that draws samples has trained a network is unknown.
        let is_of_command = self.objective.is_none() && self.trainings == Some(runs);
        (runs > 1).then(|| match is_of_command {
            true => format!("{runs} runs of a command"),
            false => independence::variation(runs, self.trainings),
        })
    }

    /// Returns the samples of the arm with this name.
    pub fn drawn(&self, name: &str) -> Drawn {
        match name {
            BICUBIC => Drawn::BICUBIC,
            _ => Drawn::new(self.samples, self.objective),
        }
    }

    /// Summarises one arm's seeds, of which there is at least one.
    fn of(seeds: &[Measured]) -> Self {
        let figures: Vec<Figures> = seeds.iter().map(Measured::figures).collect();
        let named = seeds.iter().zip(&figures).filter_map(|(m, figures)| Some((m.seed.clone()?, figures.clone())));
        Self {
            samples: seeds[0].samples,
            objective: seeds[0].objective(),
            figures: Figures::over(&figures, mean),
            sd: (figures.len() > 1).then(|| Figures::over(&figures, sd)),
            axes: seeds[0].axes.iter().map(|label| (label.axis.clone(), label.value.clone())).collect(),
            seeds: named.collect(),
            trainings: (figures.len() > 1).then(|| trainings(seeds)),
        }
    }
}

/// Returns the number of independent training runs; 0 if nothing was trained.
fn trainings(seeds: &[Measured]) -> usize {
    let trained = seeds.iter().filter(|of_seed| !of_seed.trainings.is_empty()).collect();
    independence::group(trained, |of_seed| of_seed.trainings.clone()).len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::testing::{OF_BICUBIC, OF_SAMPLES, floors, measured, with_seeds};

    #[test]
    fn a_non_finite_figure_is_an_error() {
        let mut measured = measured();
        measured[1].sample[0].psnr = f64::NAN;
        let error = Summary::of(&measured, floors()).to_json().unwrap_err().to_string();
        assert_eq!(error, "psnr_sample of arm attention, 2 is not a finite number");
    }

    #[test]
    fn the_summary_is_pinned() {
        let json = Summary::of(&measured(), floors()).to_json().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let expected = serde_json::json!({
            "schema": 1, "images": 2, "samples": 4,
            "arms": {
                "attention, 2": {
                    "samples": 4, "objective": "v", "psnr_sample": 18.5, "psnr_mean": 21.5,
                    "psnr_mean_limit": OF_SAMPLES,
                    "psnr_y_sample": 19.5, "psnr_y_mean": 22.5,
                    "consistency_psnr": 37.0, "consistency_psnr_mean": 43.0, "crps": 5.375, "calibration": 1.0,
                    "spectrum_distance": 1.5, "heldout_loss": 0.125
                },
                "baseline": {
                    "samples": 4, "objective": "v", "psnr_sample": 18.25, "psnr_mean": 21.0,
                    "psnr_mean_limit": OF_SAMPLES,
                    "psnr_y_sample": 19.25, "psnr_y_mean": 22.0,
                    "consistency_psnr": 36.5, "consistency_psnr_mean": 42.0, "crps": 5.25, "calibration": 1.0,
                    "spectrum_distance": 1.5
                },
                "bicubic": {
                    "samples": 1, "psnr_sample": 21.25, "psnr_mean": 21.25, "psnr_mean_limit": OF_BICUBIC,
                    "psnr_y_sample": 22.25,
                    "psnr_y_mean": 22.25, "consistency_psnr": 42.5, "consistency_psnr_mean": 42.5,
                    "spectrum_distance": 1.5
                }
            },
            "floors": {"spectrum_distance": 0.25}
        });
        assert_eq!(value, expected);
        assert_eq!(Summary::from_json(&json).unwrap(), Summary::of(&measured(), floors()));
        let newer = String::from_utf8(json).unwrap().replace("\"schema\": 1", "\"schema\": 2");
        assert!(Summary::from_json(newer.as_bytes()).unwrap_err().to_string().contains("schema 2"));
    }

    #[test]
    fn arms_of_different_k_have_no_common_k_and_a_note() {
        let mut arms = measured();
        assert_eq!((Summary::of(&arms, floors()).samples, Summary::of(&arms, floors()).notes), (Some(4), vec![]));
        // A deterministic arm has no samples.
        arms[2].samples = 1;
        arms[2].diffusion.as_mut().unwrap().objective = PredictionType::Regression;
        assert_eq!((Summary::of(&arms, floors()).samples, Summary::of(&arms, floors()).notes), (Some(4), vec![]));
        arms[2].diffusion.as_mut().unwrap().objective = PredictionType::Eps;
        let summary = Summary::of(&arms, floors());
        assert_eq!((summary.samples, summary.arms["baseline"].samples), (None, 1));
        assert!(summary.notes[0].contains("numbers K of samples: 1 (baseline), 4 (attention, 2). "), "{summary:?}");
        let value: serde_json::Value = serde_json::from_slice(&summary.to_json().unwrap()).unwrap();
        assert!(value.get("samples").is_none() && value["notes"].is_array(), "{value}");
        assert_eq!(Summary::from_json(&summary.to_json().unwrap()).unwrap(), summary);
        let many: Vec<Measured> = (0..5)
            .map(|i| Measured { name: format!("arm {i}"), samples: if i > 0 { 2 } else { 8 }, ..arms[1].clone() })
            .collect();
        let note = Summary::of(&many, floors()).notes.remove(0);
        assert!(note.contains(": 2 (arm 1, arm 2, arm 3 and 1 more), 8 (arm 0). "), "{note}");
        assert_eq!(Summary::of(&measured()[..1], floors()).samples, Some(1));
    }

    #[test]
    fn an_arm_with_seeds_has_means_deviations_and_the_metrics_of_each_seed() {
        let summary = Summary::of(&with_seeds(), floors());
        assert_eq!(summary.arms.len(), 3);
        let json = summary.to_json().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let sd = 2f64.sqrt();
        let expected = serde_json::json!({
            "samples": 4, "objective": "v", "axes": {"base_channels": "16"},
            "psnr_sample": 19.0, "psnr_mean": 19.0, "psnr_mean_limit": OF_SAMPLES,
            "psnr_y_sample": 20.0, "psnr_y_mean": 20.0,
            "consistency_psnr": 38.0, "consistency_psnr_mean": 38.0, "crps": 4.75, "calibration": 1.0,
            "psnr_sample_sd": sd, "psnr_mean_sd": sd, "psnr_mean_limit_sd": 0.0,
            "psnr_y_sample_sd": sd, "psnr_y_mean_sd": sd,
            "consistency_psnr_sd": 2.0 * sd, "consistency_psnr_mean_sd": 2.0 * sd, "crps_sd": sd / 4.0,
            "calibration_sd": 0.0, "trainings": 1,
            "seeds": {
                "0": {
                    "psnr_sample": 18.0, "psnr_mean": 18.0, "psnr_mean_limit": OF_SAMPLES,
                    "psnr_y_sample": 19.0, "psnr_y_mean": 19.0,
                    "consistency_psnr": 36.0, "consistency_psnr_mean": 36.0, "crps": 4.5, "calibration": 1.0,
                    "heldout_loss": 0.5
                },
                "1": {
                    "psnr_sample": 20.0, "psnr_mean": 20.0, "psnr_mean_limit": OF_SAMPLES,
                    "psnr_y_sample": 21.0, "psnr_y_mean": 21.0,
                    "consistency_psnr": 40.0, "consistency_psnr_mean": 40.0, "crps": 5.0, "calibration": 1.0
                }
            }
        });
        assert_eq!(value["arms"]["baseline[base_channels=16]"], expected);
        assert_eq!(Summary::from_json(&json).unwrap(), summary);
    }
}
