//! The results of a run: the table of each comparison, and the paths of its files.

use std::path::Path;

use serde::Deserialize as _;
use serde_json::Value;

use super::claims;
use super::layout::Table;
use super::output::{Look, Paint};
use crate::comparison::Summary;
use crate::config::metrics::Metric;
use crate::config::{StageKind, blobs};
use crate::runs::{RunRecord, StageRunState};
use crate::store::{Key, Store};

/// The row with the distances between real images.
const FLOOR: &str = "real vs. real";

/// Returns the results as text, empty if the run has no comparison. `runs` is the path as the user gave it.
pub(super) fn show(store: &Store, runs: &Path, record: &RunRecord) -> String {
    let mut text = String::new();
    for stage in &record.stages {
        let known = matches!(stage.state, StageRunState::Ran | StageRunState::Cached);
        let (StageKind::Compare, true, Some(key)) = (stage.kind, known, &stage.key) else { continue };
        let Ok(Some(action)) = store.action(key) else { continue };
        if let Some(summary) = summary(store, key) {
            text += &format!("\n{}: {}\n{}", stage.name, title(&summary), table(&summary));
            if let Some(legend) = Summary::deserialize(&summary).ok().and_then(|summary| summary.deviations_in_words())
            {
                text += &format!("{legend}\n");
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

/// Returns the summary of a comparison, or None if it is missing or unreadable.
pub(super) fn summary(store: &Store, compare: &Key) -> Option<Value> {
    let action = store.action(compare).ok()??;
    let bytes = store.read(action.outputs.get(blobs::SUMMARY)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Returns the arm with the highest PSNR of the sample mean, and this PSNR. Excludes bicubic interpolation.
pub(super) fn best_arm(summary: &Value) -> Option<(&str, f64)> {
    let arms = summary["arms"].as_object()?.iter().filter(|(name, _)| *name != "bicubic");
    let figure = |arm: &Value| arm["psnr_mean"].as_f64().or(arm["psnr_sample"].as_f64());
    let figures = arms.filter_map(|(name, arm)| Some((name.as_str(), figure(arm)?)));
    figures.max_by(|a, b| a.1.total_cmp(&b.1))
}

fn title(summary: &Value) -> String {
    let images = summary["images"].as_u64().map(|n| super::format::count(n as usize, "test image"));
    let samples = summary["samples"].as_u64().map(|n| format!("mean of {n}"));
    images.into_iter().chain(samples).collect::<Vec<_>>().join(", ")
}

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
        assert_eq!(title(&summary), "256 test images, mean of 4");
        let table = table(&summary);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "arm                    PSNR  PSNR of mean  spectrum");
        assert!(lines[1..].contains(&"baseline       19.06 ± 0.12         20.93"), "{table}");
        assert!(lines[1..].contains(&"bicubic               21.17"), "{table}");
        assert_eq!(lines[3], "real vs. real                                  0.50");
        assert_eq!(best_arm(&summary), Some(("baseline", 20.93)));
    }
}
