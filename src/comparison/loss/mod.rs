//! Reads `loss.csv` and draws `loss.png`: the arms' losses by step.
//!
//! Losses of different objectives, targets or noise schedules measure different errors and are not comparable. Each
//! kind has its own plot: [`panels`] groups the curves, `plot` draws them. [`lead`] compares the curves of an arm with
//! those of its control.

mod lead;
mod plot;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::axis::significant;
use crate::config::{DiffusionParams, LossKind};

pub use lead::{Lead, ScaledCurve, lead};
pub use plot::loss_curves;

/// A row of `loss.csv`, measured after a step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LossRow {
    pub step: u64,
    /// The mean training loss over the steps since the previous row.
    pub loss: Option<f64>,
    #[serde(rename = "heldout_loss")]
    pub val_loss: Option<f64>,
    /// The number of floating-point operations of training so far.
    #[serde(default)]
    pub flops: Option<f64>,
}

/// The losses of one training run.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub name: String,
    pub rows: Vec<LossRow>,
    /// The diffusion parameters, which define what the losses measure; `None` if unknown.
    pub diffusion: Option<DiffusionParams>,
}

/// Reads `loss.csv`; ignores other columns.
pub fn read_loss(csv: &[u8]) -> anyhow::Result<Vec<LossRow>> {
    let rows: Result<_, _> = csv::Reader::from_reader(csv).into_deserialize().collect();
    rows.context("reading loss.csv")
}

/// Training runs with comparable losses.
pub struct Panel {
    pub title: String,
    /// Their indices among all curves.
    pub curves: Vec<usize>,
}

/// The parameters that are always in a panel's title.
const TITLE: [&str; 2] = ["objective", "target"];

/// Groups the curves into one panel per kind of loss, in order of first occurrence. Titles contain the objective, the
/// target, and other parameters in which the panels differ.
pub fn panels(curves: &[Curve]) -> Vec<Panel> {
    let mut kinds: Vec<(Map<String, Value>, Vec<usize>)> = vec![];
    for (i, curve) in curves.iter().enumerate() {
        let measured = curve.diffusion.as_ref().map(LossKind::parameters).unwrap_or_default();
        match kinds.iter_mut().find(|(known, _)| *known == measured) {
            Some((_, members)) => members.push(i),
            None => kinds.push((measured, vec![i])),
        }
    }
    let is_shown = |field: &str| {
        let mut values = kinds.iter().filter_map(|(kind, _)| kind.get(field));
        let first = values.next();
        TITLE.contains(&field) || values.any(|value| Some(value) != first)
    };
    let title = |kind: &Map<String, Value>| {
        let (named, others): (Vec<_>, Vec<_>) =
            kind.iter().filter(|(field, _)| is_shown(field)).partition(|(field, _)| TITLE.contains(&field.as_str()));
        let shown = named.into_iter().chain(others).map(|(field, value)| match (value.as_str(), value.as_f64()) {
            (Some(text), _) => format!("{field} {text}"),
            (None, Some(number)) => format!("{field} {}", significant(number, 4)),
            (None, None) => format!("{field} {value}"),
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        if shown.is_empty() { "of an unknown objective".to_string() } else { shown }
    };
    let titles: Vec<String> = kinds.iter().map(|(kind, _)| title(kind)).collect();
    titles.into_iter().zip(kinds).map(|(title, (_, curves))| Panel { title, curves }).collect()
}

/// The maximum number of curves in a panel that shows training losses; with more curves, only those without a validation
/// loss show one.
pub const CROWD: usize = 6;

/// The points of a curve that can be drawn: (step, loss).
pub struct Lines {
    pub training: Vec<(f64, f64)>,
    pub validation: Vec<(f64, f64)>,
}

impl Lines {
    pub fn of(curve: &Curve, crowded: bool) -> Self {
        let points = |value: fn(&LossRow) -> Option<f64>| -> Vec<(f64, f64)> {
            let all = curve.rows.iter().filter_map(|r| value(r).map(|v| (r.step as f64, v)));
            all.filter(|(_, v)| v.is_finite() && *v > 0.0).collect()
        };
        let validation = points(|r| r.val_loss);
        let training = if crowded && !validation.is_empty() { vec![] } else { smooth(&points(|r| r.loss)) };
        Self { training, validation }
    }
}

/// Returns the moving average over a twentieth of the points; more than a thousand points are subsampled.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    let stride = points.len() / 1000 + 1;
    let mean = |i: usize| {
        // A symmetric window, so that the ends are not biased towards the middle.
        let reach = reach.min(i).min(points.len() - 1 - i);
        let window = &points[i - reach..=i + reach];
        (points[i].0, window.iter().map(|p| p.1).sum::<f64>() / window.len() as f64)
    };
    let mut kept: Vec<usize> = (0..points.len()).step_by(stride).collect();
    if let Some(last) = points.len().checked_sub(1).filter(|last| kept.last() != Some(last)) {
        kept.push(last);
    }
    kept.into_iter().map(mean).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub fn row(step: u64, loss: Option<f64>, val_loss: Option<f64>) -> LossRow {
        LossRow { step, loss, val_loss, flops: None }
    }

    pub fn curve(name: &str, rows: Vec<LossRow>) -> Curve {
        Curve { name: name.into(), rows, diffusion: Some(DiffusionParams::default()) }
    }

    #[test]
    fn empty_cells_and_other_columns_are_allowed() {
        let csv = b"step,loss,heldout_loss,lr,gradient_norm\n10,0.5,,1e-3,2\n20,NaN,0.25,1e-3,\n";
        let rows = read_loss(csv).unwrap();
        assert_eq!(rows[0], row(10, Some(0.5), None));
        assert!(rows[1].loss.unwrap().is_nan() && rows[1].val_loss == Some(0.25));
        assert_eq!(read_loss(b"step,loss,heldout_loss,lr,gradient_norm\n").unwrap(), []);
        assert!(read_loss(b"step,loss,heldout_loss\nten,1,\n").is_err());
        assert!(read_loss(b"when,loss\n1,1\n").is_err());
    }

    #[test]
    fn smoothing_preserves_straight_lines_and_reduces_noise() {
        let line: Vec<(f64, f64)> = (0..400).map(|i| (i as f64, 3.0 + 2.0 * i as f64)).collect();
        assert!(smooth(&line).iter().all(|(x, y)| (y - 3.0 - 2.0 * x).abs() < 1e-9));
        let noise: Vec<(f64, f64)> = (0..400).map(|i| (i as f64, 5.0 + f64::from(i % 2))).collect();
        let smoothed = smooth(&noise);
        assert!(smoothed[11..389].iter().all(|(_, y)| (y - 5.5).abs() < 0.05));
        let many: Vec<(f64, f64)> = (0..12_345).map(|i| (i as f64, 1.0)).collect();
        let kept = smooth(&many);
        assert!(kept.len() <= 1001 && kept.last() == many.last());
        assert_eq!(smooth(&[]), []);
    }

    #[test]
    fn many_curves_are_drawn_without_training_losses() {
        let measured = curve("a", vec![row(1, Some(1.0), Some(2.0))]);
        let unmeasured = curve("b", vec![row(1, Some(1.0), None)]);
        assert_eq!(Lines::of(&measured, false).training, [(1.0, 1.0)]);
        assert_eq!(
            (Lines::of(&measured, true).training, Lines::of(&measured, true).validation),
            (vec![], vec![(1.0, 2.0)])
        );
        assert_eq!(Lines::of(&unmeasured, true).training, [(1.0, 1.0)]);
    }

    #[test]
    fn comparable_losses_share_a_panel() {
        let learned =
            |json: Value| Curve { diffusion: Some(serde_json::from_value(json).unwrap()), ..curve("", vec![]) };
        let titles = |curves: &[Value]| -> Vec<(String, Vec<usize>)> {
            let curves: Vec<Curve> = curves.iter().cloned().map(learned).collect();
            panels(&curves).into_iter().map(|panel| (panel.title, panel.curves)).collect()
        };
        let same =
            titles(&[json!({}), json!({"loss_weighting": "min_snr"}), json!({"min_snr_gamma": 1.0, "beta_end": 0.5})]);
        assert_eq!(same, [("objective v, target residual".to_string(), vec![0, 1, 2])]);
        let kinds = titles(&[
            json!({"objective": "regression", "schedule": "linear"}),
            json!({"objective": "v"}),
            json!({"objective": "regression", "timesteps": 7}),
            json!({"objective": "eps"}),
        ]);
        let kind = |title: &str, curves: &[usize]| (title.to_string(), curves.to_vec());
        assert_eq!(
            kinds,
            [
                kind("objective regression, target residual", &[0, 2]),
                kind("objective v, target residual", &[1]),
                kind("objective eps, target residual", &[3])
            ]
        );
        let unknown = [Curve { diffusion: None, ..curve("", vec![]) }, learned(json!({}))];
        let shown: Vec<String> = panels(&unknown).into_iter().map(|panel| panel.title).collect();
        assert_eq!(shown, ["of an unknown objective", "objective v, target residual"]);
        let noise = titles(&[
            json!({"target": "image", "residual_scale": 3.0}),
            json!({"target": "image"}),
            json!({"residual_scale": 4.123456, "schedule": "linear"}),
            json!({"residual_scale": 2.0, "schedule": "linear"}),
        ]);
        assert_eq!(
            noise,
            [
                kind("objective v, target image, schedule cosine", &[0, 1]),
                kind("objective v, target residual, residual_scale 4.123, schedule linear", &[2]),
                kind("objective v, target residual, residual_scale 2, schedule linear", &[3])
            ]
        );
    }
}
