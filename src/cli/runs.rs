//! The command `srpipe runs`: a table of runs with the parameters and metrics that differ.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;

use super::args::RunsArgs;
use super::layout::Table;
use super::lookup::warn_about_deleted_results;
use super::output::{Look, Paint, note, print, print_json};
use super::run_values::RunValues;
use super::status::describe_run_state;
use super::{EXIT_DONE, cluster};
use crate::config::InputError;
use crate::format;
use crate::runs::RunDir;
use crate::store::Store;

const NO_SUCH_VALUE: &str = "no run has a parameter or metric of that name; `srpipe runs --all` lists all names, \
    and pipeline, state, age and took are valid too";

pub(super) fn runs(args: &RunsArgs, runs: &Path) -> Result<u8> {
    let store = Store::open_records(runs);
    let pipelines = match (&args.pipeline, &store) {
        (Some(name), _) => vec![name.clone()],
        (None, Some(store)) => store.pipelines(),
        (None, None) => vec![],
    };
    let dirs = pipelines.iter().flat_map(|name| store.as_ref().map_or(vec![], |store| store.runs(name)));
    let reconcile = |run: &RunDir| store.iter().for_each(|store| cluster::reconcile_run(store, run));
    let mut rows: Vec<RunValues> = dirs.inspect(reconcile).filter_map(|run| RunValues::read(&run).ok()).collect();
    if rows.is_empty() && args.pipeline.is_some() {
        let text = format!("{} has no runs of pipeline {}", runs.display(), pipelines[0]);
        return Err(InputError(text).into());
    }
    let is_known = |name: &str| rows.is_empty() || rows.iter().any(|row| value(row, name).is_some());
    // The value may belong to a pipeline that has not run yet.
    if let Some(name) = args.sort.as_ref().filter(|name| !is_known(name)) {
        note(&format!("warning: --sort {name}: {NO_SUCH_VALUE}"));
    }
    let filters: Vec<Filter> = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>()?;
    if let Some(filter) = filters.iter().find(|filter| !is_known(&filter.name)) {
        return Err(InputError(format!("--filter {}: {NO_SUCH_VALUE}", filter.name)).into());
    }
    let has_runs = !rows.is_empty();
    for filter in &filters {
        rows.retain(|row| filter.matches(row));
    }
    // The default order is newest first.
    rows.sort_by(|a, b| b.view.record.id.cmp(&a.view.record.id));
    if let Some(key) = &args.sort {
        rows.sort_by(|a, b| compare(value(a, key).as_deref(), value(b, key).as_deref()));
    }
    if args.reverse {
        rows.reverse();
    }
    if args.json {
        let rows: Vec<_> = rows.iter().map(json).collect();
        print_json(&json!({"schema": 1, "runs": rows}));
    } else if rows.is_empty() {
        let none = if has_runs { "no run matches --filter; `srpipe runs` lists all runs" } else { "no runs" };
        print(&format!("{none}\n"));
    } else {
        print(&table(&rows, args.all).render(Paint::stdout()));
        warn_about_deleted_results(store.as_ref());
    }
    Ok(EXIT_DONE)
}

fn json(run: &RunValues) -> serde_json::Value {
    let record = &run.view.record;
    json!({
        "id": record.id, "pipeline": record.pipeline, "state": run.view.state.name(),
        "started_at": record.started_at, "seconds": record.seconds, "params": run.with_older_names(&run.params),
        "metrics": run.with_older_names(&run.metrics),
    })
}

fn table(rows: &[RunValues], all: bool) -> Table {
    // Parameters and metrics are compared only between runs of the same pipeline.
    let one_pipeline = rows.iter().all(|row| row.view.record.pipeline == rows[0].view.record.pipeline);
    let columns = if one_pipeline || all { columns(rows, all) } else { vec![] };
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let short = short_names(&names);
    let fixed = ["run", "pipeline", "state", "age", "took"];
    let headings: Vec<&str> = fixed.into_iter().chain(short.iter().map(String::as_str)).collect();
    let mut table = Table::new(&headings);
    let now = Timestamp::now();
    for row in rows {
        let record = &row.view.record;
        let (look, state) = describe_run_state(row.view.state);
        let plain = |text: String| (Look::Plain, text);
        let mut cells = vec![
            plain(record.id.clone()),
            plain(if one_pipeline { String::new() } else { record.pipeline.clone() }),
            (look, state),
            plain(format::age(&record.started_at, now)),
            plain(record.seconds.map_or(String::new(), format::duration)),
        ];
        let cell = |column: &String| match row.params.get(column) {
            Some(text) => text.clone(),
            None => row.metrics.get(column).map_or(String::new(), |value| format::number(*value)),
        };
        cells.extend(columns.iter().map(cell).map(plain));
        table.row(cells);
    }
    table
}

/// Returns the parameters and metrics that differ between rows, or all of them.
fn columns(rows: &[RunValues], all: bool) -> Vec<String> {
    fn differing<T: PartialEq>(maps: Vec<&BTreeMap<String, T>>, all: bool) -> Vec<String> {
        let names: BTreeSet<&String> = maps.iter().flat_map(|map| map.keys()).collect();
        // The speed of a stage always differs.
        let differs = |name: &&String| {
            all || !name.ends_with("_per_s") && maps.iter().any(|map| map.get(*name) != maps[0].get(*name))
        };
        names.into_iter().filter(differs).cloned().collect()
    }
    let params = differing(rows.iter().map(|row| &row.params).collect(), all);
    let metrics = differing(rows.iter().map(|row| &row.metrics).collect(), all);
    params.into_iter().chain(metrics).collect()
}

/// Shortens each name to its shortest unique suffix.
fn short_names(names: &[&str]) -> Vec<String> {
    let suffixes = |name: &str| -> Vec<String> {
        let dots = name.rmatch_indices('.').map(|(dot, _)| name[dot + 1..].to_string());
        // A suffix must not start within the brackets of an instance, and must not consist of an arm's name alone.
        let is_whole = |suffix: &String| {
            suffix.matches('[').count() == suffix.matches(']').count()
                && (name.starts_with("stages.") || suffix.contains('.'))
        };
        dots.filter(is_whole).chain([name.to_string()]).collect()
    };
    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    for suffix in names.iter().flat_map(|name| suffixes(name)) {
        *endings.entry(suffix).or_default() += 1;
    }
    let short = |name: &&str| suffixes(name).into_iter().find(|suffix| endings[suffix] == 1);
    names.iter().map(|name| short(name).unwrap_or_else(|| name.to_string())).collect()
}

/// Returns the value of a field, parameter or metric of a run. Parameters and metrics may be named by a unique suffix.
fn value(run: &RunValues, name: &str) -> Option<String> {
    let record = &run.view.record;
    match name {
        "run" | "id" => return Some(record.id.clone()),
        "pipeline" => return Some(record.pipeline.clone()),
        "state" => return Some(run.view.state.name().to_string()),
        "age" | "started_at" => return Some(record.started_at.clone()),
        "took" | "seconds" => return record.seconds.map(|seconds| seconds.to_string()),
        _ => {}
    }
    let param = run.params.iter().find(|(path, _)| run.is_named(path, name)).map(|(_, text)| text.clone());
    let metric = || run.metrics.iter().find(|(path, _)| run.is_named(path, name));
    param.or_else(|| metric().map(|(_, value)| value.to_string()))
}

/// Compares values, numbers by their value. Missing values are last.
fn compare(a: Option<&str>, b: Option<&str>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.total_cmp(&b),
            _ => a.cmp(b),
        },
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Greater,
        (_, None) => Ordering::Less,
    }
}

/// A comparison such as `name=value`.
#[derive(Debug)]
struct Filter {
    name: String,
    operator: &'static str,
    value: String,
}

impl Filter {
    fn parse(text: &str) -> Result<Self, InputError> {
        // Operators of two characters first, because `<` is a prefix of `<=`.
        const OPERATORS: [&str; 6] = ["!=", "<=", ">=", "=", "<", ">"];
        let at = text.find(['!', '<', '>', '=']);
        let operator = at.and_then(|at| OPERATORS.into_iter().find(|operator| text[at..].starts_with(operator)));
        let (Some(at), Some(operator)) = (at.filter(|at| *at > 0), operator) else {
            return Err(InputError(format!(
                "--filter {text}: must be a name, one of = != < <= > >=, and a value, such as state=ok or base_channels>=32"
            )));
        };
        let value = text[at + operator.len()..].to_string();
        Ok(Self { name: text[..at].to_string(), operator, value })
    }

    /// Whether the run's value matches. A missing value matches only `!=`.
    fn matches(&self, run: &RunValues) -> bool {
        let found = value(run, &self.name);
        let order = found.as_deref().map(|found| compare(Some(found), Some(&self.value)));
        match self.operator {
            "=" => order == Some(Ordering::Equal),
            "!=" => order != Some(Ordering::Equal),
            "<" => order == Some(Ordering::Less),
            "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            ">" => order == Some(Ordering::Greater),
            _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_parsed() {
        let read = |text: &str| Filter::parse(text).map(|f| (f.name, f.operator, f.value)).ok();
        assert_eq!(read("a.b=c=d"), Some(("a.b".into(), "=", "c=d".into())));
        assert_eq!(read("x>=3"), Some(("x".into(), ">=", "3".into())));
        assert_eq!(read("x!=ok"), Some(("x".into(), "!=", "ok".into())));
        assert_eq!((read("x"), read("=3"), read("x!3")), (None, None, None));
    }

    #[test]
    fn numbers_sort_numerically_and_missing_values_last() {
        let mut values = vec![None, Some("10"), Some("9"), Some("1e-3")];
        values.sort_by(|a, b| compare(*a, *b));
        assert_eq!(values, [Some("1e-3"), Some("9"), Some("10"), None]);
    }

    #[test]
    fn columns_have_short_names() {
        assert_eq!(short_names(&["stages.a.lr", "stages.a.steps", "b.steps"]), ["lr", "steps", "b.steps"]);
        assert_eq!(short_names(&["a[x=0.5].loss", "c.psnr.a"]), ["a[x=0.5].loss", "psnr.a"]);
    }
}
