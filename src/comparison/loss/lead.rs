//! The lead of an arm over its control at each point of training.

use super::LossRow;
use crate::stats::{ALPHA, Estimate};

/// The lead of an arm at one point of training, in percent of the control's validation loss. Positive if the arm's loss is
/// lower.
#[derive(Debug, Clone, PartialEq)]
pub struct Lead {
    /// The position in training: steps, or their cost in the unit of the comparison.
    pub at: f64,
    pub percent: f64,
    /// The 95 % confidence interval over seeds at this point alone; `None` with fewer than two seeds.
    pub pointwise: Option<[f64; 2]>,
    /// The simultaneous interval: with a probability of at least 95 %, the intervals at all points contain the true leads
    /// (Bonferroni).
    pub simultaneous: Option<[f64; 2]>,
}

/// A training run and the cost of each of its steps, in the unit of the comparison.
#[derive(Debug, Clone, Copy)]
pub struct ScaledCurve<'a> {
    pub rows: &'a [LossRow],
    pub step: f64,
}

/// Computes the lead from pairs of training runs of an arm and its control. Interpolates losses linearly between
/// measurements.
///
/// The points are those of all runs of the arm, within the range that all training runs have in common.
pub fn lead(pairs: &[[ScaledCurve; 2]]) -> Vec<Lead> {
    let curves: Vec<[Vec<(f64, f64)>; 2]> = pairs.iter().map(|pair| pair.map(points)).collect();
    let ends =
        |end: fn(&Vec<(f64, f64)>) -> Option<f64>| curves.iter().flatten().map(end).collect::<Option<Vec<f64>>>();
    let (Some(starts), Some(stops)) = (ends(|c| Some(c.first()?.0)), ends(|c| Some(c.last()?.0))) else {
        return vec![];
    };
    let (Some(start), Some(stop)) = (starts.into_iter().reduce(f64::max), stops.into_iter().reduce(f64::min)) else {
        return vec![];
    };
    let measured = curves.iter().flat_map(|[arm, _]| arm).map(|point| point.0);
    let mut positions: Vec<f64> = measured.filter(|position| (start..=stop).contains(position)).collect();
    positions.sort_by(f64::total_cmp);
    positions.dedup();
    let at = |&position: &f64| {
        let losses: Vec<[f64; 2]> =
            curves.iter().map(|[a, c]| [value_at(a, position), value_at(c, position)]).collect();
        let of_control = losses.iter().map(|[_, control]| control).sum::<f64>() / losses.len() as f64;
        let rows: Vec<Vec<f64>> = losses.iter().map(|[arm, c]| vec![100.0 * (c - arm) / of_control]).collect();
        let estimate = Estimate::of(&rows);
        Lead {
            at: position,
            percent: rows.iter().flatten().sum::<f64>() / rows.len() as f64,
            pointwise: estimate.map(|estimate| estimate.interval(ALPHA)),
            simultaneous: estimate.map(|estimate| estimate.interval(ALPHA / positions.len() as f64)),
        }
    };
    positions.iter().map(at).collect()
}

/// Returns the finite validation losses with their positions, in ascending order.
fn points(training: ScaledCurve) -> Vec<(f64, f64)> {
    let of_row = |row: &LossRow| Some((training.step * row.step as f64, row.val_loss.filter(|loss| loss.is_finite())?));
    training.rows.iter().filter_map(of_row).collect()
}

/// Interpolates within the range of the points.
fn value_at(points: &[(f64, f64)], position: f64) -> f64 {
    let after = points.partition_point(|point| point.0 < position);
    let (to_position, to) = points[after];
    let Some((from_position, from)) = after.checked_sub(1).map(|before| points[before]) else { return to };
    from + (to - from) * (position - from_position) / (to_position - from_position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::loss::tests::row;

    fn training(losses: [f64; 3]) -> Vec<LossRow> {
        losses.into_iter().enumerate().map(|(i, loss)| row(10 * (i as u64 + 1), None, Some(loss))).collect()
    }

    #[test]
    fn the_lead_is_in_percent_of_the_control() {
        let (arm, control) = (training([0.9, 0.5, 0.2]), training([1.0, 0.5, 0.25]));
        let scaled = |rows| ScaledCurve { rows, step: 1.0 };
        let found = lead(&[[scaled(&arm), scaled(&control)]]);
        let percents: Vec<(f64, f64)> = found.iter().map(|l| (l.at, (l.percent * 1e6).round() / 1e6)).collect();
        assert_eq!(percents, [(10.0, 10.0), (20.0, 0.0), (30.0, 20.0)]);
        assert!(found.iter().all(|lead| lead.pointwise.is_none() && lead.simultaneous.is_none()));
    }

    #[test]
    fn losses_are_compared_at_the_same_cost() {
        let (arm, control) = (training([0.9, 0.5, 0.2]), training([1.0, 0.5, 0.25]));
        let found = lead(&[[ScaledCurve { rows: &arm, step: 1.5 }, ScaledCurve { rows: &control, step: 1.0 }]]);
        // The control has 0.75 at 15, half-way between 1 and 0.5, and 0.25 at 30.
        let percents: Vec<(f64, f64)> = found.iter().map(|l| (l.at, (l.percent * 1e6).round() / 1e6)).collect();
        assert_eq!(percents, [(15.0, -20.0), (30.0, -100.0)]);
    }

    #[test]
    fn the_points_of_all_seeds_count() {
        let (first, control) = (training([0.9, 0.5, 0.2]), training([1.0, 0.5, 0.25]));
        let mut second = first.clone();
        second[1].step = 25;
        let scaled = |rows| ScaledCurve { rows, step: 1.0 };
        let found = lead(&[[scaled(&first), scaled(&control)], [scaled(&second), scaled(&control)]]);
        assert_eq!(found.iter().map(|lead| lead.at).collect::<Vec<_>>(), [10.0, 20.0, 25.0, 30.0]);
    }

    /// `scipy.stats.t.ppf([.975, 1 - .05 / 6], 2)` standard errors.
    #[test]
    fn bands_match_students_t() {
        let control = training([1.0, 1.0, 1.0]);
        let arms = [[0.9, 0.9, 0.9], [0.8, 0.8, 0.8], [0.7, 0.7, 0.7]].map(training);
        let pairs: Vec<[ScaledCurve; 2]> = arms
            .iter()
            .map(|arm| [ScaledCurve { rows: arm, step: 1.0 }, ScaledCurve { rows: &control, step: 1.0 }])
            .collect();
        let found = &lead(&pairs)[1];
        let error = 10.0 / 3.0_f64.sqrt();
        let [low, high] = found.pointwise.unwrap();
        assert!((low - (20.0 - 4.302_652_729_749_462 * error)).abs() < 1e-6 && (high + low - 40.0).abs() < 1e-9);
        let [low, _] = found.simultaneous.unwrap();
        assert!((low - (20.0 - 7.648_803_937_915_553 * error)).abs() < 1e-6, "{low}");
        assert!(lead(&[]).is_empty());
    }
}
