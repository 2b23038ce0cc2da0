//! The table of a comparison's metrics, with uncertainties.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::comparison::{BICUBIC, Summary};
use crate::config::metrics::{Better, Metric, Samples, Scale, Unit};

#[derive(Debug, Serialize)]
pub(super) struct Table {
    heads: Vec<Head>,
    rows: Vec<Row>,
    /// The meaning of "±".
    legend: String,
    /// The meaning of bold values.
    best: String,
    /// The distances between two halves of the real images.
    floor: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Head {
    text: String,
    about: &'static str,
    arrow: &'static str,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    seeds: usize,
    cells: Vec<Cell>,
}

#[derive(Debug, Default, Serialize)]
struct Cell {
    value: String,
    /// The standard deviation, or half the width of the confidence interval.
    spread: String,
    /// Whether the arm is the best by this metric or not significantly worse, and another arm is.
    is_best: bool,
}

impl Table {
    /// Creates the table. If `images` is empty, values of single seeds have no interval. `is_exploratory`: whether any
    /// claim of the comparison is.
    pub(super) fn of(summary: &Summary, images: &ByImage, is_exploratory: bool) -> Self {
        let mut arms: Vec<(&str, Value, usize)> = summary
            .arms
            .iter()
            .map(|(name, arm)| (name.as_str(), serde_json::to_value(arm).unwrap_or_default(), arm.seeds.len()))
            .collect();
        arms.sort_by_key(|(name, ..)| *name != BICUBIC);
        let several = arms.iter().any(|(_, _, seeds)| *seeds > 1);
        let draws = summary.arms.values().any(|arm| arm.samples > 1);
        let applies = |metric: &Metric| {
            let declaration = metric.declaration();
            // For a deterministic arm, the mean of the samples is the sample.
            let is_redundant = !draws && declaration.samples == Samples::Same;
            declaration.in_tables && !is_redundant && arms.iter().any(|(_, arm, _)| arm[metric.field()].is_f64())
        };
        let shown: Vec<Metric> = Metric::ALL.iter().copied().filter(applies).collect();
        let cell = |name: &str, arm: &Value, metric: Metric| {
            let Some(value) = arm[metric.field()].as_f64() else {
                return Cell { value: "–".into(), ..Cell::default() };
            };
            let decimals = metric.declaration().decimals;
            let sd = arm[format!("{}_sd", metric.field())].as_f64();
            // If any arm has several seeds, "±" is a standard deviation over seeds, which an arm with one seed lacks.
            let half = if several { sd } else { images.get(name).and_then(|arm| half_width(arm.get(metric.field())?)) };
            Cell {
                value: format!("{value:.decimals$}"),
                spread: half.map(|half| format!("± {half:.decimals$}")).unwrap_or_default(),
                is_best: summary.best.get(&metric).is_some_and(|best| best.iter().any(|arm| arm == name)),
            }
        };
        let row = |(name, arm, seeds): &(&str, Value, usize)| Row {
            name: name.to_string(),
            seeds: *seeds,
            cells: shown.iter().map(|metric| cell(name, arm, *metric)).collect(),
        };
        let floors = serde_json::to_value(&summary.floors).unwrap_or_default();
        let floor = |metric: &Metric| {
            floors[metric.field()].as_f64().map(|v| format!("{v:.0$}", metric.declaration().decimals))
        };
        let floor: Vec<Option<String>> = shown.iter().map(floor).collect();
        let legend = summary.describe_deviations().unwrap_or_else(|| {
            "± is half the width of the 95 % confidence interval of the mean over the images; it does not cover \
             variation between seeds"
                .to_string()
        });
        Self {
            heads: shown
                .iter()
                .map(|metric| Head {
                    text: match metric.declaration().scale {
                        Scale::Decibel => format!("{},{}", metric.declaration().heading, Unit::Decibel.suffix()),
                        _ => metric.declaration().heading.to_string(),
                    },
                    about: metric.declaration().description,
                    arrow: match metric.declaration().better {
                        _ if metric.is_of_training() => "",
                        Better::Higher => "↑",
                        Better::Lower => "↓",
                        Better::One => "→1",
                    },
                })
                .collect(),
            rows: arms.iter().map(row).collect(),
            legend,
            best: describe_best(summary, is_exploratory),
            floor: floor
                .iter()
                .any(Option::is_some)
                .then(|| floor.into_iter().map(Option::unwrap_or_default).collect()),
        }
    }
}

/// Explains bold values.
fn describe_best(summary: &Summary, is_exploratory: bool) -> String {
    let limit = summary.describe_limit().map_or(String::new(), |limit| format!(" {limit}."));
    if summary.best.is_empty() {
        return format!(
            "No value is bold: no arm is significantly worse than the best by any metric that compares all arms.{limit}"
        );
    }
    let exploratory = match is_exploratory {
        true => {
            " Bold values are exploratory, like claims of this comparison: an earlier one showed some of the same data."
        }
        false => "",
    };
    format!(
        "Bold: the best arm and those that are not significantly worse (level 5 % per column, corrected for all pairs \
         of arms). A column without bold values shows no significant difference from the best arm, or cannot compare \
         all arms.{limit}{exploratory}"
    )
}

/// The values for each image and seed, by arm and then by metric.
pub(super) type ByImage = HashMap<String, BTreeMap<String, Vec<f64>>>;

/// Reads `metrics.csv`.
pub(super) fn by_image(metrics: &[u8]) -> anyhow::Result<ByImage> {
    let mut found = ByImage::new();
    let mut reader = csv::Reader::from_reader(metrics);
    let heads = reader.headers().context("reading metrics.csv")?.clone();
    let arm = heads.iter().position(|head| head == "arm").context("metrics.csv has no column `arm`")?;
    for record in reader.records() {
        let record = record.context("reading metrics.csv")?;
        let of_arm = found.entry(record[arm].to_string()).or_default();
        for metric in Metric::ALL {
            let Some(column) = heads.iter().position(|head| head == metric.field()) else { continue };
            if let Ok(value) = record[column].parse() {
                of_arm.entry(metric.field().to_string()).or_default().push(value);
            }
        }
    }
    Ok(found)
}

/// Returns half the width of Student's 95 % confidence interval of the mean; None for fewer than two values, or if a
/// value is not finite.
fn half_width(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let student = StudentsT::new(0.0, 1.0, n - 1.0).ok().filter(|_| n > 1.0)?;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Some(student.inverse_cdf(0.975) * (variance / n).sqrt()).filter(|half| half.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::metrics_csv;
    use crate::comparison::testing::{floors, measured, with_seeds};

    fn cells(table: &Table, arm: &str) -> Vec<String> {
        let row = table.rows.iter().find(|row| row.name == arm).unwrap();
        row.cells.iter().map(|c| format!("{} {}{}", c.value, c.spread, if c.is_best { "*" } else { "" })).collect()
    }

    #[test]
    fn metrics_of_one_seed_have_a_confidence_interval_over_images() {
        let arms = measured();
        let table = Table::of(&Summary::of(&arms, floors()), &by_image(&metrics_csv(&arms).unwrap()).unwrap(), false);
        assert!(table.legend.contains("mean over the images"));
        // The values 18 and 19 have mean 18.5 and standard error 0.5; the 97.5 % quantile of Student's t with one
        // degree of freedom is 12.706.
        assert_eq!(cells(&table, "attention, 2")[..2], ["18.50 ± 6.35", "21.50 ± 6.35"]);
        assert_eq!(cells(&table, "bicubic")[0], "21.25 ± 15.88");
        assert!(table.heads.iter().all(|head| !head.text.contains("SSIM")), "no arm has an SSIM");
        assert!(table.floor.unwrap().contains(&"0.25".to_string()));
    }

    #[test]
    fn only_the_best_arms_are_bold() {
        let arms = measured();
        let best = BTreeMap::from([(Metric::PsnrMeanLimit, vec!["attention, 2".to_string()])]);
        let summary = Summary { best, ..Summary::of(&arms, floors()) };
        let table = Table::of(&summary, &ByImage::new(), false);
        // The bold value is the one that decides, for infinitely many samples.
        assert_eq!(cells(&table, "attention, 2")[..3], ["18.50 ", "21.50 ", "42.11 *"]);
        assert_eq!(cells(&table, "bicubic")[..3], ["21.25 ", "21.25 ", "41.14 "]);
        assert!(table.best.contains("“PSNR, K → ∞” replaces") && !table.best.contains("exploratory"));
        assert!(Table::of(&summary, &ByImage::new(), true).best.contains("exploratory"));
        let table = Table::of(&Summary::of(&arms, floors()), &ByImage::new(), false);
        assert!(table.rows.iter().flat_map(|row| &row.cells).all(|cell| !cell.is_best));
    }

    #[test]
    fn metrics_of_several_seeds_have_a_standard_deviation() {
        let arms = with_seeds();
        let table = Table::of(&Summary::of(&arms, floors()), &by_image(&metrics_csv(&arms).unwrap()).unwrap(), false);
        assert_eq!(table.legend, "± is the standard deviation over 2 sampling seeds of one training run");
        assert_eq!(cells(&table, "baseline[base_channels=16]")[0], "19.00 ± 1.41");
        assert_eq!(cells(&table, "bicubic")[0], "21.25 ");
        // No arm has a validation loss for both seeds.
        assert_eq!(cells(&table, "baseline[base_channels=16]").last().unwrap(), "– ");
    }
}
