//! The results of a run: the table of each comparison, and the paths of its files.

use std::path::Path;

use serde::Deserialize as _;
use serde_json::Value;

use super::claims;
use super::explanations::join_names;
use super::layout::Table;
use super::output::{Look, Paint};
use crate::comparison::selection::{self, Candidate};
use crate::comparison::{BICUBIC, Summary};
use crate::config::metrics::{Metric, Unit};
use crate::config::names::base;
use crate::config::{EvaluationSplit, StageKind, blobs};
use crate::runs::{RunRecord, StageRecord, StageRunState};
use crate::store::{Key, Store};

/// The heading of the row with the distances between real images.
const FLOOR: &str = "real vs. real";

/// Returns the results as text, empty if the run has no comparison. `runs` is the path as the user gave it.
pub(super) fn show(store: &Store, runs: &Path, record: &RunRecord) -> String {
    let mut text = String::new();
    for stage in &record.stages {
        let is_finished = matches!(stage.state, StageRunState::Ran | StageRunState::Cached);
        let (true, Some(key)) = (is_finished, &stage.key) else { continue };
        if stage.kind == StageKind::Select
            && let Some(candidates) = candidates(store, key)
        {
            // All seeds select the same arm.
            let line = format!("\n{} is {}\n", base(&stage.name), selection::describe(&candidates));
            if !text.ends_with(&line) {
                text += &line;
            }
        }
        if stage.kind != StageKind::Compare {
            continue;
        }
        let Ok(Some(action)) = store.action(key) else { continue };
        if let Some(summary) = summary(store, key) {
            text += &format!("\n{}: {}\n{}", stage.name, title(&summary), table(&summary));
            if let Ok(summary) = Summary::deserialize(&summary) {
                let is_exploratory = claims::exploratory(&summary.claims, record, &action);
                let is_exploratory = is_exploratory.iter().any(Option::is_some);
                let lines = [summary.describe_deviations(), best(&summary, is_exploratory), summary.describe_limit()];
                for line in lines.into_iter().flatten() {
                    text += &format!("{line}\n");
                }
                if let Some(first) = summary.differences.first() {
                    text += &format!("the report shows the differences from {} for each metric\n", first.control);
                }
            }
            for note in summary["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                text += &format!("note: {note}\n");
            }
            text += &claims::show(&summary, store, record, &stage.name, &action);
        }
        let folder = runs.join(&record.pipeline).join("latest").join(&stage.name);
        let shown = [blobs::COMPARISON, blobs::LOSS_CURVES, blobs::METRICS, blobs::SUMMARY];
        for blob in shown.iter().filter(|blob| action.outputs.contains_key(**blob)) {
            text += &format!("{}\n", folder.join(blob).display());
        }
    }
    text
}

/// Returns the candidates of a selection, or None if they are missing or unreadable.
fn candidates(store: &Store, select: &Key) -> Option<Vec<Candidate>> {
    let action = store.action(select).ok()??;
    selection::read_csv(&store.read(action.outputs.get(blobs::SELECTION)?).ok()?).ok()
}

/// Returns the answers to the claims of a run, each with its `stage` and the reason why it is exploratory, if it is.
pub(super) fn claims_to_json(store: &Store, record: &RunRecord) -> Vec<Value> {
    let of_stage = |stage: &StageRecord| -> Option<Vec<Value>> {
        let key = stage.key.as_ref().filter(|_| stage.kind == StageKind::Compare)?;
        let mut answers = claims::to_json(&summary(store, key)?, record, &store.action(key).ok()??);
        answers.iter_mut().for_each(|answer| answer["stage"] = stage.name.as_str().into());
        Some(answers)
    };
    record.stages.iter().filter_map(of_stage).flatten().collect()
}

/// Returns the summary of a comparison, or None if it is missing or unreadable.
pub(super) fn summary(store: &Store, compare: &Key) -> Option<Value> {
    let action = store.action(compare).ok()??;
    let bytes = store.read(action.outputs.get(blobs::SUMMARY)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Returns the arm with the best PSNR of the mean of infinitely many samples, and that PSNR, if all others are
/// significantly worse; otherwise the range of the PSNR of the sample mean.
pub(super) fn headline(summary: &Value) -> Option<String> {
    let unit = Unit::Decibel.suffix();
    let figure = |arm: &Value| arm["psnr_mean"].as_f64().or(arm["psnr_sample"].as_f64());
    let limit = Metric::PsnrMeanLimit.field();
    if let Some([best]) = summary["best"][limit].as_array().map(Vec::as_slice)
        && let Some(best) = best.as_str()
    {
        return Some(format!("best: {best}, {:.2}{unit}", summary["arms"][best][limit].as_f64()?));
    }
    let arms = summary["arms"].as_object()?.iter().filter(|(name, _)| *name != BICUBIC);
    let figures: Vec<f64> = arms.filter_map(|(_, arm)| figure(arm)).collect();
    let (low, high) = (figures.iter().copied().reduce(f64::min)?, figures.iter().copied().reduce(f64::max)?);
    let [low, high] = [low, high].map(|value| format!("{value:.2}"));
    Some(if low == high { format!("PSNR {low}{unit}") } else { format!("PSNR {low} to {high}{unit}") })
}

/// Lists the arms that are not distinguishable from the best, for each metric. `None` if there is only one arm.
fn best(summary: &Summary, is_exploratory: bool) -> Option<String> {
    if summary.best.is_empty() {
        let can_differ = summary.arms.len() > 2;
        return can_differ
            .then(|| "no arm is significantly worse than the best by any metric that compares all arms".to_string());
    }
    let of_metric = |(metric, arms): (&Metric, &Vec<String>)| {
        format!(
            "{}: {}",
            metric.declaration().heading,
            join_names(&arms.iter().map(String::as_str).collect::<Vec<_>>())
        )
    };
    let all: Vec<String> = summary.best.iter().map(of_metric).collect();
    let exploratory = if is_exploratory { ", exploratory" } else { "" };
    Some(format!(
        "best, or not significantly worse than the best (level 5 % per metric{exploratory}): {}",
        all.join("; ")
    ))
}

/// Returns the title of a comparison: the numbers of images and samples.
fn title(summary: &Value) -> String {
    let split = summary["split"].as_str().unwrap_or(EvaluationSplit::Test.name());
    let images = summary["images"].as_u64().map(|n| super::format::count(n as usize, &format!("{split} image")));
    let samples = summary["samples"].as_u64().map(|n| super::format::count(n as usize, "sample") + " per image");
    images.into_iter().chain(samples).collect::<Vec<_>>().join(", ")
}

/// Returns the table of a comparison, with one row per arm.
fn table(summary: &Value) -> String {
    let shown = Metric::ALL.iter().map(|metric| (metric.field(), metric.declaration())).filter(|(_, d)| d.in_tables);
    let columns = std::iter::once(("K", "samples", 0)).chain(shown.map(|(field, d)| (d.heading, field, d.decimals)));
    let columns: Vec<(&str, &str, usize)> = columns.collect();
    let headings: Vec<&str> = ["arm", "n"].into_iter().chain(columns.iter().map(|(heading, ..)| *heading)).collect();
    let mut table = Table::new(&headings);
    let arms = summary["arms"].as_object().into_iter().flatten().map(|(name, arm)| (name.as_str(), arm));
    let floor = summary["floors"].as_object().map(|_| (FLOOR, &summary["floors"]));
    for (name, arm) in arms.chain(floor) {
        let figures = columns.iter().map(|&(_, field, decimals)| {
            let figure = |field: &str| arm[field].as_f64().map(|value| format!("{value:.decimals$}"));
            // With several seeds, the mean and standard deviation over seeds.
            let text = match (figure(field), figure(&format!("{field}_sd"))) {
                (Some(mean), Some(sd)) => Some(format!("{mean} ± {sd}")),
                (mean, _) => mean,
            };
            (Look::Plain, text.unwrap_or_default())
        });
        let seeds = arm["seeds"].as_object().map(|seeds| seeds.len().to_string()).unwrap_or_default();
        table.row([name.to_string(), seeds].map(|text| (Look::Plain, text)).into_iter().chain(figures).collect());
    }
    table.render(Paint::stdout())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_summaries_have_no_empty_columns() {
        let summary = serde_json::json!({"schema": 1, "images": 256, "samples": 4, "arms": {
            "bicubic": {"psnr_sample": 21.17},
            "baseline": {"psnr_sample": 19.061, "psnr_sample_sd": 0.123, "psnr_mean": 20.93}},
            "floors": {"spectrum_distance": 0.5}});
        assert_eq!(title(&summary), "256 test images, 4 samples per image");
        let table = table(&summary);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "arm                    PSNR  PSNR of mean  spectrum");
        assert!(lines[1..].contains(&"baseline       19.06 ± 0.12         20.93"), "{table}");
        assert!(lines[1..].contains(&"bicubic               21.17"), "{table}");
        assert_eq!(lines[3], "real vs. real                                  0.50");
        assert_eq!(headline(&summary).unwrap(), "PSNR 20.93 dB");
    }

    #[test]
    fn an_arm_is_the_best_only_if_it_is_significantly_better() {
        let mut summary = serde_json::json!({"arms": {"bicubic": {"psnr_mean": 25.0}, "a": {"psnr_mean": 20.0},
            "b": {"psnr_mean": 21.5, "psnr_mean_limit": 22.0}}});
        assert_eq!(headline(&summary).unwrap(), "PSNR 20.00 to 21.50 dB");
        summary["best"] = serde_json::json!({"psnr_mean_limit": ["a", "b"]});
        assert_eq!(headline(&summary).unwrap(), "PSNR 20.00 to 21.50 dB");
        summary["best"] = serde_json::json!({"psnr_mean_limit": ["b"]});
        assert_eq!(headline(&summary).unwrap(), "best: b, 22.00 dB");
        assert_eq!(headline(&serde_json::json!({"arms": {}})), None);
    }
}
