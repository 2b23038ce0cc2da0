//! The command `srpipe diff`, which compares the parameters and metrics of two runs.

use crate::format;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::EXIT_DONE;
use super::args::DiffArgs;
use super::layout::Table;
use super::lookup::{find_run, open_store};
use super::output::{Look, Paint, print, print_json};
use super::results;
use super::run_values::RunValues;
use crate::comparison::BICUBIC;
use crate::config::metrics::Metric;
use crate::config::{LossKind, StageKind};
use crate::plan::Preimage;
use crate::store::{Key, Store};

pub(super) fn diff(args: &DiffArgs, runs: &Path) -> Result<u8> {
    let store = open_store(runs)?;
    let read = |what: &str| RunValues::read(&find_run(&store, what)?);
    let (a, b) = (read(&args.before)?, read(&args.after)?);
    let spreads = [&a, &b].map(|run| spreads(&store, run));
    let losses = [&a, &b].map(|run| losses(&store, run));
    if args.json {
        let [a_params, b_params] = [&a, &b].map(|run| run.with_older_names(&run.params));
        let [a_metrics, b_metrics] = [&a, &b].map(|run| run.with_older_names(&run.metrics));
        let (params, metrics) = (changed(&a_params, &b_params), changed(&a_metrics, &b_metrics));
        let params: BTreeMap<_, _> = params.iter().map(|(path, a, b)| (path, json!([a, b]))).collect();
        let metrics: BTreeMap<_, _> = metrics.iter().map(|(path, a, b)| (path, json!([a, b]))).collect();
        let ids = [&a, &b].map(|run| &run.view.record.id);
        let seeds: BTreeMap<&str, [Option<&Spread>; 2]> =
            metrics.keys().filter_map(|path| Some((**path, spreads_of(path, &spreads)?))).collect();
        print_json(&json!({"schema": 1, "runs": ids, "params": params, "metrics": metrics, "seeds": seeds}));
        return Ok(EXIT_DONE);
    }
    print(&show(&a, &b, &changed(&a.params, &b.params), &changed(&a.metrics, &b.metrics), &spreads, &losses));
    Ok(EXIT_DONE)
}

/// How the value of a metric varies between the seeds of its arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Spread {
    /// The number of seeds.
    n: usize,
    /// The standard deviation over the seeds; `None` with one.
    sd: Option<f64>,
}

/// Returns the spreads of the metrics of a run's comparisons, by path.
fn spreads(store: &Store, run: &RunValues) -> BTreeMap<String, Spread> {
    let mut spreads = BTreeMap::new();
    for stage in run.view.record.stages.iter().filter(|stage| stage.kind == StageKind::Compare) {
        let Some(summary) = stage.key.as_ref().and_then(|key| results::summary(store, key)) else { continue };
        for (arm, summary) in summary["arms"].as_object().into_iter().flatten() {
            // Bicubic interpolation has no seeds.
            let n = summary["seeds"].as_object().map_or(1, |seeds| seeds.len());
            for name in stage.metrics.keys().filter_map(|name| name.strip_suffix(&format!(".{arm}"))) {
                let sd = summary[format!("{name}_sd")].as_f64();
                if arm != BICUBIC {
                    spreads.insert(format!("{}.{name}.{arm}", stage.name), Spread { n, sd });
                }
            }
        }
    }
    spreads
}

/// Returns the kinds of the losses of a run's training runs, by the paths of their metrics.
fn losses(store: &Store, run: &RunValues) -> BTreeMap<String, LossKind> {
    let mut losses = BTreeMap::new();
    for stage in run.view.record.stages.iter().filter(|stage| stage.kind == StageKind::Train) {
        let kind = |key: &Key| {
            let Preimage { params, inputs, .. } = Preimage::of(&store.action(key).ok()??)?;
            let diffusion = serde_json::from_value(params["diffusion"].clone()).ok()?;
            // The older name of `validation`, which is still its name in keys.
            let images = params["heldout"]["images"].as_u64()? as usize;
            Some(LossKind::new(&diffusion, images, format!("{:?}", inputs.get("data"))))
        };
        let Some(kind) = stage.key.as_ref().and_then(kind) else { continue };
        for metric in [Metric::ValLoss.id(), "loss"] {
            losses.insert(format!("{}.{metric}", stage.name), kind.clone());
        }
    }
    losses
}

/// Returns the parameter that makes the losses of both runs incomparable, if there is one.
fn incomparable(path: &str, [a, b]: &[BTreeMap<String, LossKind>; 2]) -> Option<String> {
    a.get(path)?.difference(b.get(path)?)
}

/// Returns the spreads of a metric in both runs; `None` if neither has one.
fn spreads_of<'a>(path: &str, spreads: &'a [BTreeMap<String, Spread>; 2]) -> Option<[Option<&'a Spread>; 2]> {
    let of_runs = [spreads[0].get(path), spreads[1].get(path)];
    of_runs.iter().any(Option::is_some).then_some(of_runs)
}

/// Warns that the differences may be due to chance. `None` if no metric has seeds.
fn caveat(paths: &[&str], spreads: &[BTreeMap<String, Spread>; 2]) -> Option<String> {
    let found: Vec<[Option<&Spread>; 2]> = paths.iter().filter_map(|path| spreads_of(path, spreads)).collect();
    let both: Vec<[usize; 2]> = found.iter().filter_map(|[a, b]| Some([a.as_ref()?.n, b.as_ref()?.n])).collect();
    if let Some([a, b]) = both.iter().find(|[a, b]| a != b) {
        return Some(format!(
            "the runs have different numbers of seeds ({a} and {b}), so part of each difference may come from the seeds"
        ));
    }
    let n = both.iter().map(|[n, _]| *n).min()?;
    Some(match n {
        1 => "one seed: another seed may reverse these differences; use claims with several seeds to test them"
            .to_string(),
        n => format!(
            "± is the standard deviation over {n} seeds; use claims to test whether a difference is more than chance"
        ),
    })
}

/// Names with the values of two runs, which differ.
type Changes<'a, T> = Vec<(&'a str, Option<&'a T>, Option<&'a T>)>;

/// Returns the entries that differ between two maps.
fn changed<'a, T: PartialEq>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> Changes<'a, T> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let both = names.into_iter().map(|name| (name.as_str(), a.get(name), b.get(name)));
    both.filter(|(_, a, b)| a != b).collect()
}

/// Returns a table of the differences.
fn show(
    a: &RunValues,
    b: &RunValues,
    params: &Changes<String>,
    metrics: &Changes<f64>,
    spreads: &[BTreeMap<String, Spread>; 2],
    losses: &[BTreeMap<String, LossKind>; 2],
) -> String {
    let (a_id, b_id) = (&a.view.record.id, &b.view.record.id);
    if params.is_empty() && metrics.is_empty() {
        return format!("{a_id} and {b_id} have the same parameters and metrics\n");
    }
    let mut text = format!("{a_id} → {b_id}\n");
    let mut table = Table::new(&["changed", "before", "after", "by"]);
    let plain = |text: String| (Look::Plain, text);
    let mut last_shown: Option<String> = None;
    for (path, before, after) in params {
        // A stage that exists in only one run takes one line.
        let stage = path.split('.').take(2).collect::<Vec<_>>().join(".");
        let is_whole = path.starts_with("stages.") && {
            let has = |run: &RunValues| run.params.contains_key(&format!("{stage}.kind"));
            has(a) != has(b)
        };
        if is_whole && last_shown.as_ref() == Some(&stage) {
            continue;
        }
        let shown = |value: &Option<&String>| match (value, is_whole) {
            (None, _) => "-".to_string(),
            (Some(_), true) => "a stage".to_string(),
            (Some(value), false) => value.to_string(),
        };
        let name = if is_whole { stage.clone() } else { path.to_string() };
        table.row(vec![plain(name), plain(shown(before)), plain(shown(after)), plain(String::new())]);
        last_shown = is_whole.then_some(stage);
    }
    for (path, before, after) in metrics {
        let shown = |value: &Option<&f64>, spreads: &BTreeMap<String, Spread>| {
            let value = value.map_or("-".to_string(), |value| format::number(*value));
            match spreads.get(*path) {
                Some(Spread { n, sd: Some(sd) }) => format!("{value} ± {} (n {n})", format::number(*sd)),
                Some(Spread { n, sd: None }) => format!("{value} (n {n})"),
                None => value,
            }
        };
        let by = match (before, after, incomparable(path, losses)) {
            (Some(_), Some(_), Some(parameter)) => format!("not comparable: other `{parameter}`"),
            (Some(before), Some(after), None) => format!("{:+.4}", **after - **before),
            _ => String::new(),
        };
        table.row(vec![
            plain(path.to_string()),
            plain(shown(before, &spreads[0])),
            plain(shown(after, &spreads[1])),
            plain(by),
        ]);
    }
    text += &table.render(Paint::stdout());
    let paths: Vec<&str> = metrics.iter().map(|(path, ..)| *path).collect();
    text += &caveat(&paths, spreads).map_or(String::new(), |caveat| format!("{caveat}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_few_or_unequal_seeds_have_a_caveat() {
        let spreads = |n| BTreeMap::from([("compare.psnr_mean.a".to_string(), Spread { n, sd: None })]);
        let of = |a, b| caveat(&["stage.seconds", "compare.psnr_mean.a"], &[spreads(a), spreads(b)]);
        assert!(of(1, 1).unwrap().starts_with("one seed"));
        assert!(of(3, 8).unwrap().contains("different numbers of seeds (3 and 8)"));
        assert!(of(8, 8).unwrap().contains("over 8 seeds"));
        assert_eq!(caveat(&["stage.seconds"], &[spreads(1), spreads(1)]), None);
    }
}
