//! The differences of all arms from one control, as a table with a forest plot.

use serde::Serialize;

use super::chart::number;
use crate::comparison::Difference;
use crate::config::metrics::Metric;
use crate::format::signed;

#[derive(Debug, Serialize)]
pub(super) struct Forest {
    control: String,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    /// The heading of the metric, in its first row only.
    metric: &'static str,
    arm: String,
    effect: String,
    interval: String,
    p: String,
    n: usize,
    probability: String,
    is_significant: bool,
    /// The effect and its interval on an axis that all rows of the metric share, as SVG.
    plot: String,
}

impl Forest {
    /// Returns `None` if there are no differences.
    pub(super) fn of(differences: &[Difference]) -> Option<Self> {
        let control = differences.first()?.control.clone();
        let mut by_metric: Vec<&Difference> = differences.iter().collect();
        by_metric.sort_by_key(|difference| difference.metric);
        let rows = by_metric.chunk_by(|a, b| a.metric == b.metric).flat_map(rows).collect();
        Some(Self { control, rows })
    }
}

/// Returns the rows of one metric.
fn rows(differences: &[&Difference]) -> Vec<Row> {
    let ends = |difference: &Difference| difference.interval.unwrap_or([difference.effect; 2]);
    let reach =
        differences.iter().flat_map(|difference| ends(difference)).map(f64::abs).fold(f64::MIN_POSITIVE, f64::max);
    let row = |(index, difference): (usize, &&Difference)| {
        let (unit, decimals) = (difference.unit.suffix(), difference.unit.decimals());
        let heading = |metric: Metric| metric.declaration().heading;
        Row {
            metric: if index == 0 { heading(difference.metric) } else { "" },
            arm: difference.arm.clone(),
            effect: format!("{}{unit}", signed(difference.effect, decimals)),
            interval: difference.interval.map_or(String::new(), |[low, high]| {
                format!("{} to {}", signed(low, decimals), signed(high, decimals))
            }),
            p: if difference.n > 1 { format!("{:.3}", difference.p_holm) } else { String::new() },
            n: difference.n,
            probability: format!("{:.0} %", 100.0 * difference.probability),
            is_significant: difference.is_significant,
            plot: plot(difference.effect, ends(difference), reach),
        }
    };
    differences.iter().enumerate().map(row).collect()
}

const WIDTH: f64 = 180.0;

/// Draws the effect as a dot with its interval; zero is in the middle.
fn plot(effect: f64, [low, high]: [f64; 2], reach: f64) -> String {
    let x = |value: f64| number(WIDTH / 2.0 * (1.0 + value / (1.08 * reach)));
    let (low, high, at) = (x(low), x(high), x(effect));
    format!(
        "<svg class=\"difference\" viewBox=\"0 0 {WIDTH} 16\" role=\"img\" aria-label=\"effect and interval\">\
         <line class=\"zero\" x1=\"90\" x2=\"90\" y1=\"0\" y2=\"16\"/>\
         <line class=\"interval\" x1=\"{low}\" x2=\"{high}\" y1=\"8\" y2=\"8\"/>\
         <circle class=\"effect\" cx=\"{at}\" cy=\"8\" r=\"4\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::metrics::Unit;

    #[test]
    fn rows_of_a_metric_are_adjacent_and_share_an_axis() {
        let one = |arm: &str, metric, effect: f64| Difference {
            arm: arm.into(),
            control: "c".into(),
            metric,
            unit: Unit::Percent,
            effect,
            interval: Some([effect - 1.0, effect + 1.0]),
            p_holm: 0.25,
            is_significant: false,
            n: 6,
            probability: 0.625,
        };
        let all = [
            one("a", Metric::Crps, 1.0),
            one("a", Metric::PsnrMeanLimit, 4.0),
            one("b", Metric::Crps, -3.0),
            one("b", Metric::PsnrMeanLimit, 0.0),
        ];
        let forest = Forest::of(&all).unwrap();
        let rows: Vec<_> = forest.rows.iter().map(|row| (row.metric, row.arm.as_str(), row.effect.as_str())).collect();
        assert_eq!(
            rows,
            [("PSNR, K → ∞", "a", "+4.00 %"), ("", "b", "0.00 %"), ("CRPS", "a", "+1.00 %"), ("", "b", "-3.00 %")]
        );
        // The axis of CRPS reaches from -4 to 4, with a margin.
        assert!(forest.rows[2].plot.contains(&format!("x2=\"{}\"", number(90.0 * (1.0 + 2.0 / 4.32)))));
        assert_eq!((forest.rows[0].probability.as_str(), forest.rows[0].p.as_str()), ("62 %", "0.250"));
        assert!(Forest::of(&[]).is_none());
    }
}
