//! The figures of a comparison: per image in `metrics.csv`, their means in `summary.json`.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::metrics::Scores;

/// The version of `summary.json`.
pub const SCHEMA: u32 = 1;

/// The arm that every other is beside: the low-resolution image enlarged bicubically.
pub const BICUBIC: &str = "bicubic";

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub schema: u32,
    /// Test images that were measured.
    pub images: usize,
    /// Samples K an image, the most of any arm.
    pub samples: usize,
    pub arms: BTreeMap<String, ArmSummary>,
}

/// One arm's means over the images. `sample` is the first sample of each image, `mean` the mean of its K, rounded to
/// 8 bits; of an arm with one sample they are the same. PSNR is in dB, and at most
/// [`finite_psnr`](crate::metrics::finite_psnr). A value that does not apply is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// Samples K an image.
    pub samples: usize,
    pub psnr_sample: f64,
    pub psnr_mean: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr_y_sample: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr_y_mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim_sample: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim_mean: Option<f64>,
    /// Of the first sample, degraded, against the low-resolution image.
    pub consistency_psnr: f64,
    pub consistency_psnr_mean: f64,
    /// The last that training measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heldout_loss: Option<f64>,
}

/// What was measured of one arm, image by image.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub name: String,
    /// Samples K an image.
    pub samples: usize,
    /// Of the first sample of each image.
    pub sample: Vec<Scores>,
    /// Of the mean of the K samples.
    pub mean: Vec<Scores>,
    pub heldout_loss: Option<f64>,
}

impl Summary {
    /// Means over the images of each arm, summed in their order; all arms have as many.
    pub fn of(arms: &[Measured]) -> Self {
        Self {
            schema: SCHEMA,
            images: arms.first().map_or(0, |a| a.sample.len()),
            samples: arms.iter().map(|a| a.samples).max().unwrap_or(1),
            arms: arms.iter().map(|a| (a.name.clone(), a.summary())).collect(),
        }
    }

    /// Bicubic first, then the others by name: the order of tables and pictures.
    pub fn in_order(&self) -> impl Iterator<Item = (&str, &ArmSummary)> {
        let bicubic = self.arms.get_key_value(BICUBIC);
        let others = self.arms.iter().filter(|(name, _)| *name != BICUBIC);
        bicubic.into_iter().chain(others).map(|(name, arm)| (name.as_str(), arm))
    }

    /// The file's bytes.
    pub fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self).context("writing the summary as JSON")?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads [`to_json`](Self::to_json)'s bytes; fails on another schema's.
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

impl Measured {
    fn summary(&self) -> ArmSummary {
        let of = |scores: &[Scores], value: fn(&Scores) -> Option<f64>| {
            let sum: Option<f64> = scores.iter().map(value).sum();
            sum.filter(|_| !scores.is_empty()).map(|sum| sum / scores.len() as f64)
        };
        let psnr = |scores| of(scores, |s| Some(s.psnr)).unwrap_or_default();
        let consistency = |scores| of(scores, |s| Some(s.consistency_psnr)).unwrap_or_default();
        ArmSummary {
            samples: self.samples,
            psnr_sample: psnr(&self.sample),
            psnr_mean: psnr(&self.mean),
            psnr_y_sample: of(&self.sample, |s| s.psnr_y),
            psnr_y_mean: of(&self.mean, |s| s.psnr_y),
            ssim_sample: of(&self.sample, |s| s.ssim),
            ssim_mean: of(&self.mean, |s| s.ssim),
            consistency_psnr: consistency(&self.sample),
            consistency_psnr_mean: consistency(&self.mean),
            // JSON has no number for a loss that went to infinity.
            heldout_loss: self.heldout_loss.filter(|l| l.is_finite()),
        }
    }
}

/// `metrics.csv`: a row for each image and arm, the columns named as in `summary.json`; cells that do not apply are
/// empty.
pub fn metrics_csv(arms: &[Measured]) -> anyhow::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Row<'a> {
        image: usize,
        arm: &'a str,
        psnr_sample: f64,
        psnr_mean: f64,
        psnr_y_sample: Option<f64>,
        psnr_y_mean: Option<f64>,
        ssim_sample: Option<f64>,
        ssim_mean: Option<f64>,
        consistency_psnr: f64,
        consistency_psnr_mean: f64,
    }
    let mut csv = csv::Writer::from_writer(vec![]);
    for image in 0..arms.iter().map(|a| a.sample.len()).max().unwrap_or(0) {
        for arm in arms {
            let (sample, mean) = (&arm.sample[image], &arm.mean[image]);
            csv.serialize(Row {
                image,
                arm: &arm.name,
                psnr_sample: sample.psnr,
                psnr_mean: mean.psnr,
                psnr_y_sample: sample.psnr_y,
                psnr_y_mean: mean.psnr_y,
                ssim_sample: sample.ssim,
                ssim_mean: mean.ssim,
                consistency_psnr: sample.consistency_psnr,
                consistency_psnr_mean: mean.consistency_psnr,
            })
            .context("writing the metrics as CSV")?;
        }
    }
    csv.into_inner().context("writing the metrics as CSV")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn scores(psnr: f64) -> Scores {
        Scores { psnr, psnr_y: Some(psnr + 1.0), ssim: None, consistency_psnr: 2.0 * psnr }
    }

    pub fn measured() -> Vec<Measured> {
        let arm = |name: &str, samples, sample: [f64; 2], mean: [f64; 2], heldout_loss| Measured {
            name: name.into(),
            samples,
            sample: sample.map(scores).into(),
            mean: mean.map(scores).into(),
            heldout_loss,
        };
        vec![
            arm("bicubic", 1, [20.0, 22.5], [20.0, 22.5], None),
            arm("attention, 2", 4, [18.0, 19.0], [21.0, 22.0], Some(0.125)),
            arm("baseline", 4, [18.0, 18.5], [20.0, 22.0], Some(f64::INFINITY)),
        ]
    }

    #[test]
    fn the_summary_is_pinned() {
        let json = Summary::of(&measured()).to_json().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let expected = serde_json::json!({
            "schema": 1, "images": 2, "samples": 4,
            "arms": {
                "attention, 2": {
                    "samples": 4, "psnr_sample": 18.5, "psnr_mean": 21.5, "psnr_y_sample": 19.5, "psnr_y_mean": 22.5,
                    "consistency_psnr": 37.0, "consistency_psnr_mean": 43.0, "heldout_loss": 0.125
                },
                "baseline": {
                    "samples": 4, "psnr_sample": 18.25, "psnr_mean": 21.0, "psnr_y_sample": 19.25, "psnr_y_mean": 22.0,
                    "consistency_psnr": 36.5, "consistency_psnr_mean": 42.0
                },
                "bicubic": {
                    "samples": 1, "psnr_sample": 21.25, "psnr_mean": 21.25, "psnr_y_sample": 22.25,
                    "psnr_y_mean": 22.25, "consistency_psnr": 42.5, "consistency_psnr_mean": 42.5
                }
            }
        });
        assert_eq!(value, expected);
        assert_eq!(Summary::from_json(&json).unwrap(), Summary::of(&measured()));
        let newer = String::from_utf8(json).unwrap().replace("\"schema\": 1", "\"schema\": 2");
        assert!(Summary::from_json(newer.as_bytes()).unwrap_err().to_string().contains("schema 2"));
    }

    #[test]
    fn the_csv_is_pinned() {
        let csv = String::from_utf8(metrics_csv(&measured()).unwrap()).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "image,arm,psnr_sample,psnr_mean,psnr_y_sample,psnr_y_mean,ssim_sample,ssim_mean,consistency_psnr,\
             consistency_psnr_mean"
        );
        assert_eq!(lines[2], "0,\"attention, 2\",18.0,21.0,19.0,22.0,,,36.0,42.0");
        assert_eq!(lines[4], "1,bicubic,22.5,22.5,23.5,23.5,,,45.0,45.0");
        assert_eq!(lines.len(), 7);
    }
}
