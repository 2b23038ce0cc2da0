//! Performance profiles: the share of test images for which an arm reaches a value (Agarwal et al. 2021).

use std::collections::BTreeMap;

use super::chart::{Axis, Chart, Line, Pen};
use super::curves::Panel;
use super::table::ByImage;
use crate::comparison::{ArmSummary, BICUBIC, Summary};
use crate::config::metrics::{Drawn, Metric, Scope};

/// The metrics with a profile, if they compare all arms fairly.
const METRICS: [Metric; 4] = [Metric::Crps, Metric::PsnrMean, Metric::ConsistencyPsnr, Metric::PsnrSample];

/// The number of intervals between the points of a curve.
const PLACES: usize = 120;

/// The maximum number of arms.
const MOST_ARMS: usize = 12;

/// Draws one chart per metric. `None` if no metric has values for every image of two arms.
pub(super) fn profiles(summary: &Summary, images: &ByImage) -> Option<Panel> {
    // The position of an arm determines its colour; bicubic enlargement has its own.
    let others = summary.arms.keys().filter(|name| *name != BICUBIC).enumerate();
    let mut arms: Vec<(Pen, &str)> = others.map(|(place, name)| (Pen::Arm(place), name.as_str())).collect();
    let more = arms.len().saturating_sub(MOST_ARMS);
    arms.truncate(MOST_ARMS);
    arms.insert(0, (Pen::Bicubic, BICUBIC));
    let of_metric = |metric: Metric| {
        let values: Vec<(Pen, &str, &Vec<f64>)> = arms
            .iter()
            .filter_map(|(pen, name)| Some((*pen, *name, images.get(*name)?.get(metric.field())?)))
            .filter(|(.., values)| !values.is_empty())
            .collect();
        let shown: BTreeMap<&str, &ArmSummary> =
            values.iter().filter_map(|(_, name, _)| Some((*name, summary.arms.get(*name)?))).collect();
        (values.len() > 1 && is_fair(metric, &shown)).then(|| chart(metric, &values)).flatten()
    };
    let charts: Vec<(&'static str, String)> = METRICS
        .into_iter()
        .filter(|metric| metric.scope() == Scope::Image)
        .filter_map(|metric| Some((metric.declaration().heading, of_metric(metric)?)))
        .collect();
    let legend = arms.iter().map(|(pen, name)| (pen.class(), name.to_string())).collect();
    (!charts.is_empty()).then(|| Panel::of(charts, legend, more))
}

/// Whether the metric compares all these arms fairly.
fn is_fair(metric: Metric, arms: &BTreeMap<&str, &ArmSummary>) -> bool {
    let drawn: Vec<Drawn> = arms.iter().map(|(name, arm)| arm.drawn(name)).collect();
    drawn.windows(2).all(|pair| metric.objection([pair[0], pair[1]]).is_none())
}

fn chart(metric: Metric, arms: &[(Pen, &str, &Vec<f64>)]) -> Option<String> {
    let all = || arms.iter().flat_map(|(.., values)| values.iter().copied());
    let (low, high) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
    let places: Vec<f64> = (0..=PLACES).map(|i| low + (high - low) * i as f64 / PLACES as f64).collect();
    let line = |(pen, name, values): &(Pen, &str, &Vec<f64>)| {
        let reaches = |value: f64, place: f64| if metric.is_higher_better() { value >= place } else { value <= place };
        let share = |place: f64| {
            let count = values.iter().filter(|value| reaches(**value, place)).count();
            100.0 * count as f64 / values.len() as f64
        };
        let points = places.iter().map(|place| (*place, share(*place))).collect();
        Line { name: name.to_string(), pen: *pen, points, ..Line::default() }
    };
    let x = Axis { title: metric.declaration().heading, is_logarithmic: false };
    let y = Axis { title: "% of images that are at least as good", is_logarithmic: false };
    Chart { x, y, lines: arms.iter().map(line).collect(), mark: None }.html()
}

#[cfg(test)]
mod tests {
    use super::super::table::by_image;
    use super::*;
    use crate::comparison::metrics_csv;
    use crate::comparison::testing::{floors, measured};
    use crate::config::PredictionType;

    #[test]
    fn profiles_have_only_metrics_that_are_fair_to_all_arms() {
        let arms = measured();
        let images = by_image(&metrics_csv(&arms).unwrap()).unwrap();
        let titles = |summary: &Summary| profiles(summary, &images).map(|panel| panel.titles());
        // Bicubic enlargement draws no samples and has no CRPS.
        let summary = Summary::of(&arms, floors());
        assert_eq!(titles(&summary).unwrap(), ["CRPS", "LR-PSNR"]);
        let mut other = summary.clone();
        other.arms.get_mut("baseline").unwrap().samples = 1;
        assert_eq!(titles(&other).unwrap(), ["LR-PSNR"]);
        // All arms are deterministic.
        let mut fixed = summary.clone();
        for arm in fixed.arms.values_mut() {
            (arm.samples, arm.objective) = (1, Some(PredictionType::Regression));
        }
        assert!(titles(&fixed).unwrap().contains(&"PSNR"));
        // The objective of a command is unknown, so its outputs may be random.
        fixed.arms.get_mut("baseline").unwrap().objective = None;
        assert!(!titles(&fixed).unwrap().contains(&"PSNR"));
    }
}
