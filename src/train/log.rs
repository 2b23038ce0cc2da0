//! The log of a training run: losses and layer statistics at regular steps.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::nn::StepReport;

/// One row of `loss.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    /// The number of optimiser steps taken.
    step: u64,
    /// The mean training loss over the steps since the previous row.
    loss: Option<f64>,
    /// The loss on validation images with fixed times and noise, under the moving average of the weights.
    val_loss: f64,
    /// The learning rate of the last step.
    lr: Option<f64>,
    /// The mean global norm of the gradients before clipping, over the same steps as `loss`.
    gradient_norm: Option<f64>,
}

/// One row of `attention.csv`: a layer on validation images, under the moving average of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LayerRow {
    /// The number of optimiser steps taken.
    pub(super) step: u64,
    /// The name prefix of the layer's parameters.
    pub(super) layer: String,
    /// The RMS of the layer's branch divided by the RMS of the skip connection that it is added to.
    pub(super) branch_norm: f64,
    /// The learned factor of the branch in the tutorial's attention.
    pub(super) gamma: Option<f64>,
    /// The mean entropy of a query's attention weights, as a fraction of the maximum: 1 for uniform weights.
    pub(super) entropy: Option<f64>,
}

/// The rows so far, and sums over the steps since the last row. Saving and loading a log preserves every bit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LossLog {
    rows: Vec<Row>,
    layers: Vec<LayerRow>,
    sums: Sums,
}

/// Sums over the steps since the last row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    steps: u64,
    loss: f64,
    gradient_norm: f64,
    /// The learning rate of the last step; not a sum.
    lr: f64,
}

impl LossLog {
    /// Adds one step to the sums.
    pub(super) fn record(&mut self, report: StepReport, lr: f64) {
        self.sums.steps += 1;
        self.sums.loss += report.loss as f64;
        self.sums.gradient_norm += report.gradient_norm as f64;
        self.sums.lr = lr;
    }

    /// Appends the row of the steps since the previous one, after `step` steps in total.
    pub(super) fn push_row(&mut self, step: u64, val_loss: f64) {
        let sums = std::mem::take(&mut self.sums);
        let mean = |sum: f64| (sums.steps > 0).then(|| sum / sums.steps as f64);
        self.rows.push(Row {
            step,
            loss: mean(sums.loss),
            val_loss,
            lr: (sums.steps > 0).then_some(sums.lr),
            gradient_norm: mean(sums.gradient_norm),
        });
    }

    /// Appends the statistics of all probed layers at one step.
    pub(super) fn push_layers(&mut self, rows: Vec<LayerRow>) {
        self.layers.extend(rows);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the validation loss before the first step.
    pub(super) fn first_val_loss(&self) -> Option<f64> {
        self.rows.first().map(|r| r.val_loss)
    }

    /// Returns the last measured validation loss.
    pub fn val_loss(&self) -> Option<f64> {
        self.rows.last().map(|r| r.val_loss)
    }

    /// Returns the rows as CSV: `step,loss,heldout_loss,lr,gradient_norm,flops`. A cell is empty if nothing was
    /// measured. `flops` is the number of floating-point operations so far, given the number per step. The time is
    /// omitted because it differs between runs.
    pub fn to_csv(&self, flops_per_step: u64) -> Result<Vec<u8>> {
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(vec![]);
        writer.write_record(["step", "loss", "heldout_loss", "lr", "gradient_norm", "flops"])?;
        for row in &self.rows {
            writer.serialize((row, row.step * flops_per_step))?;
        }
        Ok(writer.into_inner()?)
    }

    /// Returns the layer statistics as CSV: `step,layer,branch_norm,gamma,entropy`; `None` if no layer is probed.
    pub fn layers_csv(&self) -> Result<Option<Vec<u8>>> {
        if self.layers.is_empty() {
            return Ok(None);
        }
        let mut writer = csv::Writer::from_writer(vec![]);
        for row in &self.layers {
            writer.serialize(row)?;
        }
        Ok(Some(writer.into_inner()?))
    }

    /// Serialises the log for a snapshot. Floats are stored as their bits, because decimals might not round-trip
    /// exactly.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let bits = |v: Option<f64>| v.map(f64::to_bits);
        let rows: Vec<_> = (self.rows.iter())
            .map(|r| (r.step, bits(r.loss), r.val_loss.to_bits(), bits(r.lr), bits(r.gradient_norm)))
            .collect();
        let layers: Vec<_> = (self.layers.iter())
            .map(|l| (l.step, &l.layer, l.branch_norm.to_bits(), bits(l.gamma), bits(l.entropy)))
            .collect();
        let s = self.sums;
        serde_json::json!({
            "rows": rows, "layers": layers, "sums": (s.steps, s.loss.to_bits(), s.gradient_norm.to_bits(), s.lr.to_bits()),
        })
    }

    /// Restores a log from [`to_json`](Self::to_json).
    pub(super) fn from_json(value: serde_json::Value) -> Result<Self> {
        type SavedRow = (u64, Option<u64>, u64, Option<u64>, Option<u64>);
        type SavedLayer = (u64, String, u64, Option<u64>, Option<u64>);
        #[derive(Deserialize)]
        struct Saved {
            rows: Vec<SavedRow>,
            layers: Vec<SavedLayer>,
            sums: (u64, u64, u64, u64),
        }
        let saved: Saved = serde_json::from_value(value).context("the saved training log can't be read")?;
        let float = |v: Option<u64>| v.map(f64::from_bits);
        let rows = saved.rows.into_iter().map(|(step, loss, validation, lr, norm)| Row {
            step,
            loss: float(loss),
            val_loss: f64::from_bits(validation),
            lr: float(lr),
            gradient_norm: float(norm),
        });
        let layers = saved.layers.into_iter().map(|(step, layer, branch_norm, gamma, entropy)| LayerRow {
            step,
            layer,
            branch_norm: f64::from_bits(branch_norm),
            gamma: float(gamma),
            entropy: float(entropy),
        });
        let (steps, loss, gradient_norm, lr) = saved.sums;
        let [loss, gradient_norm, lr] = [loss, gradient_norm, lr].map(f64::from_bits);
        Ok(Self { rows: rows.collect(), layers: layers.collect(), sums: Sums { steps, loss, gradient_norm, lr } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> LossLog {
        let mut log = LossLog::default();
        log.push_row(0, 1.5);
        log.record(StepReport { loss: 1.0, gradient_norm: 3.0 }, 0.1);
        log.record(StepReport { loss: 2.0, gradient_norm: 4.0 }, 0.2);
        log.push_row(2, 0.7);
        let layer = |step, gamma| LayerRow {
            step,
            layer: "attention".to_string(),
            branch_norm: 0.1 + 0.2,
            gamma,
            entropy: Some(1.0 / 3.0),
        };
        log.push_layers(vec![layer(2, Some(0.1)), layer(2, None)]);
        log.record(StepReport { loss: 1.0 / 3.0, gradient_norm: 0.1 }, 0.3);
        log
    }

    #[test]
    fn rows_contain_means_since_the_previous_row() {
        let csv = String::from_utf8(log().to_csv(10).unwrap()).unwrap();
        assert_eq!(csv, "step,loss,heldout_loss,lr,gradient_norm,flops\n0,,1.5,,,0\n2,1.5,0.7,0.2,3.5,20\n");
    }

    #[test]
    fn a_log_round_trips_through_its_saved_form() {
        let text = log().to_json().to_string();
        assert_eq!(LossLog::from_json(serde_json::from_str(&text).unwrap()).unwrap(), log());
    }
}
