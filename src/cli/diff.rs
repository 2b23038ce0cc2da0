//! The command `srpipe diff`, which compares the parameters and metrics of two runs.

use crate::format;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::EXIT_DONE;
use super::args::DiffArgs;
use super::layout::Table;
use super::lookup::{find_run, open_store};
use super::output::{Look, Paint, print, print_json};
use super::run_values::RunValues;

pub(super) fn diff(args: &DiffArgs, runs: &Path) -> Result<u8> {
    let store = open_store(runs)?;
    let read = |what: &str| RunValues::read(&find_run(&store, what)?);
    let (a, b) = (read(&args.before)?, read(&args.after)?);
    if args.json {
        let [a_params, b_params] = [&a, &b].map(|run| run.with_older_names(&run.params));
        let [a_metrics, b_metrics] = [&a, &b].map(|run| run.with_older_names(&run.metrics));
        let (params, metrics) = (changed(&a_params, &b_params), changed(&a_metrics, &b_metrics));
        let params: BTreeMap<_, _> = params.iter().map(|(path, a, b)| (path, json!([a, b]))).collect();
        let metrics: BTreeMap<_, _> = metrics.iter().map(|(path, a, b)| (path, json!([a, b]))).collect();
        let runs = [&a, &b].map(|run| &run.view.record.id);
        print_json(&json!({"schema": 1, "runs": runs, "params": params, "metrics": metrics}));
        return Ok(EXIT_DONE);
    }
    print(&show(&a, &b, &changed(&a.params, &b.params), &changed(&a.metrics, &b.metrics)));
    Ok(EXIT_DONE)
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
fn show(a: &RunValues, b: &RunValues, params: &Changes<String>, metrics: &Changes<f64>) -> String {
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
        let shown = |value: &Option<&f64>| value.map_or("-".to_string(), |value| format::number(*value));
        let by = match (before, after) {
            (Some(before), Some(after)) => format!("{:+.4}", **after - **before),
            _ => String::new(),
        };
        table.row(vec![plain(path.to_string()), plain(shown(before)), plain(shown(after)), plain(by)]);
    }
    text += &table.render(Paint::stdout());
    text
}
