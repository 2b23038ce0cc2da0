//! The command `srpipe diff`, which compares the parameters and metrics of two runs.

use crate::format;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use indexmap::IndexSet;
use serde::{Deserialize as _, Serialize};
use serde_json::json;

use super::EXIT_DONE;
use super::args::DiffArgs;
use super::layout::Table;
use super::lookup::{find_run, open_store};
use super::output::{Look, Paint, print, print_json};
use super::results;
use super::run_values::RunValues;
use crate::comparison::{BICUBIC, Summary};
use crate::config::metrics::{Metric, Samples};
use crate::config::{EvaluationSplit, LossKind, StageKind};
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

/// How much the value of a metric varies, and over what.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Spread {
    /// `None` for metrics that this version does not have.
    #[serde(skip)]
    metric: Option<Metric>,
    /// The number of seeds.
    n: usize,
    /// The standard deviation over the seeds; `None` with one.
    sd: Option<f64>,
    /// What the standard deviation is over, such as `6 training runs`; `None` with one seed.
    over: Option<String>,
    /// The number K of samples per image.
    samples: usize,
    /// The split of the images.
    split: EvaluationSplit,
}

impl Spread {
    fn over(&self) -> &str {
        self.over.as_deref().unwrap_or("1 seed")
    }
}

/// Returns the spreads of the metrics of a run's comparisons, by path.
fn spreads(store: &Store, run: &RunValues) -> BTreeMap<String, Spread> {
    let mut spreads = BTreeMap::new();
    for stage in run.view.record.stages.iter().filter(|stage| stage.kind == StageKind::Compare) {
        let Some(summary) = stage.key.as_ref().and_then(|key| results::summary(store, key)) else { continue };
        let Ok(summary) = Summary::deserialize(&summary) else { continue };
        let split = summary.split;
        // Bicubic interpolation has no seeds.
        for (arm, summary) in summary.arms.iter().filter(|(arm, _)| *arm != BICUBIC) {
            for name in stage.metrics.keys().filter_map(|name| name.strip_suffix(&format!(".{arm}"))) {
                let metric = name.parse().ok();
                let sd = metric.and_then(|metric| summary.sd.as_ref()?.get(metric));
                let spread = Spread {
                    metric,
                    n: summary.seeds.len().max(1),
                    sd,
                    over: summary.describe_variation(),
                    samples: summary.samples,
                    split,
                };
                spreads.insert(format!("{}.{name}.{arm}", stage.name), spread);
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

/// Returns K of both runs if they differ in it and the metric depends on it.
fn different_samples(path: &str, spreads: &[BTreeMap<String, Spread>; 2]) -> Option<[usize; 2]> {
    let [Some(before), Some(after)] = spreads_of(path, spreads)? else { return None };
    let metric = before.metric?;
    let is_of_mean = matches!(metric.declaration().samples, Samples::Same);
    let depends = is_of_mean || metric == Metric::Calibration;
    (depends && before.samples != after.samples).then_some([before.samples, after.samples])
}

/// Lists the reasons why the changed parameters may not be the cause of a difference.
fn caveats(paths: &[&str], spreads: &[BTreeMap<String, Spread>; 2]) -> Vec<String> {
    let found = paths.iter().filter_map(|path| spreads_of(path, spreads));
    let both: Vec<[&Spread; 2]> = found.filter_map(|[before, after]| Some([before?, after?])).collect();
    let mut caveats = vec![];
    if let Some([before, after]) = both.iter().find(|[before, after]| before.over() != after.over()) {
        caveats.push(format!(
            "the runs have different repetitions ({} before, {} after), so part of each difference may be due to seeds",
            before.over(),
            after.over()
        ));
    } else if both.iter().any(|[before, _]| before.n == 1) {
        caveats.push(
            "one seed: another seed may reverse these differences; use claims with several seeds to test them"
                .to_string(),
        );
    } else if !both.is_empty() {
        let over: IndexSet<&str> = both.iter().map(|[before, _]| before.over()).collect();
        caveats.push(format!(
            "± is the standard deviation over {}; use claims to test whether a difference is more than chance",
            over.into_iter().collect::<Vec<_>>().join(" or ")
        ));
    }
    if let Some([before, after]) = both.iter().find(|[before, after]| before.split != after.split) {
        caveats.push(format!(
            "the runs compare different images ({} before, {} after), so their figures are not comparable",
            before.split, after.split
        ));
    }
    let samples: IndexSet<[usize; 2]> = paths.iter().filter_map(|path| different_samples(path, spreads)).collect();
    for [before, after] in samples {
        caveats.push(format!(
            "the runs draw different numbers of samples per image (K = {before} before, {after} after): PSNR and SSIM \
             of the mean increase with K, and calibration is less certain with fewer samples"
        ));
    }
    caveats
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
        let samples = different_samples(path, spreads);
        let shown = |value: &Option<&f64>, spreads: &BTreeMap<String, Spread>| {
            let value = value.map_or("-".to_string(), |value| format::number(*value));
            let Some(spread) = spreads.get(*path) else { return value };
            let sd = spread.sd.map_or(String::new(), |sd| format!(" ± {}", format::number(sd)));
            let samples = samples.map_or(String::new(), |_| format!(", K = {}", spread.samples));
            format!("{value}{sd} ({}{samples})", spread.over())
        };
        let by = match (before, after, incomparable(path, losses)) {
            (Some(_), Some(_), Some(parameter)) => format!("not comparable: `{parameter}` differs"),
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
    for caveat in caveats(&paths, spreads) {
        text += &format!("{caveat}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the spread of one metric. The number K of samples is `samples`.
    fn spread(metric: &str, n: usize, over: &str, samples: usize) -> BTreeMap<String, Spread> {
        let over = (n > 1).then(|| over.to_string());
        BTreeMap::from([(
            format!("compare.{metric}.a"),
            Spread { metric: metric.parse().ok(), n, sd: None, over, samples, split: EvaluationSplit::Test },
        )])
    }

    #[test]
    fn differences_of_few_or_unequal_seeds_have_a_caveat() {
        let spread = |n: usize, over: &str| spread("psnr_mean", n, over, 4);
        let of = |a, b| caveats(&["stage.seconds", "compare.psnr_mean.a"], &[a, b]).join("\n");
        assert!(of(spread(1, ""), spread(1, "")).starts_with("one seed"));
        let unequal = of(spread(3, "3 training runs"), spread(8, "8 training runs"));
        assert!(unequal.contains("(3 training runs before, 8 training runs after)"), "{unequal}");
        let unequal = of(spread(6, "6 training runs"), spread(6, "6 sampling seeds of one training run"));
        assert!(unequal.contains("(6 training runs before, 6 sampling seeds of one training run after)"), "{unequal}");
        let equal = of(spread(8, "8 training runs"), spread(8, "8 training runs"));
        assert!(equal.contains("over 8 training runs") && equal.lines().count() == 1, "{equal}");
        assert!(caveats(&["stage.seconds"], &[spread(1, ""), spread(1, "")]).is_empty());
    }

    #[test]
    fn different_numbers_of_samples_have_a_caveat() {
        let of = |metric: &str, before: usize, after: usize| {
            let spread = |samples: usize| spread(metric, 1, "", samples);
            caveats(&[&format!("compare.{metric}.a")], &[spread(before), spread(after)]).join("\n")
        };
        for metric in ["psnr_mean", "ssim_mean", "calibration"] {
            assert!(of(metric, 4, 2).contains("samples per image (K = 4 before, 2 after)"), "{metric}");
        }
        let test = spread("crps", 1, "", 4);
        let mut validation = test.clone();
        validation.values_mut().for_each(|spread| spread.split = EvaluationSplit::Validation);
        let found = caveats(&["compare.crps.a"], &[validation, test]).join("\n");
        assert!(found.contains("(validation before, test after)"), "{found}");
        assert!(!of("psnr_mean", 4, 4).contains("K =") && !of("psnr_sample", 4, 2).contains("K ="));
    }
}
