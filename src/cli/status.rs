//! The command `srpipe status`. On a terminal, it follows an active run until the run ends. It writes only the records
//! of runs whose jobs are unwatched.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;

use super::args::StatusArgs;
use super::groups::{Group, groups};
use super::layout::Table;
use super::lookup::{find_run, warn_about_deleted_results};
use super::output::{Look, Paint, can_draw, print, print_json};
use super::stage_view::{CONTINUE, StageView, State, stage_of_run, stages_of_file};
use super::{EXIT_DONE, cluster, load, progress, results};
use crate::config::InputError;
use crate::format;
use crate::run::prepare;
use crate::runs::{RunDir, RunRecord};
use crate::runs::{RunView, ViewState};
use crate::store::Store;

pub(super) fn status(args: &StatusArgs, runs: &Path) -> Result<u8> {
    let store = Store::open_records(runs);
    match &args.what {
        None => {
            store.iter().for_each(cluster::reconcile_latest);
            show_all(store.as_ref(), runs, args.json);
            let store = store.as_ref();
            let latest =
                store.into_iter().flat_map(|store| store.pipelines().into_iter().zip(std::iter::repeat(store)));
            let ended =
                latest.filter_map(|(pipeline, store)| follow(store, &store.latest_run(&pipeline)?, args)).next();
            show_results(store, runs, ended.as_ref());
            warn_about_deleted_results(store);
        }
        Some(what) if looks_like_file(what) => {
            let mut pipeline = load(Path::new(what), &args.flags)?;
            cluster::executor(None, &mut pipeline)?;
            let run = store.as_ref().and_then(|store| store.latest_run(&pipeline.name));
            store.iter().zip(&run).for_each(|(store, run)| cluster::reconcile_run(store, run));
            let prepared = prepare(&pipeline, store.as_ref())?;
            let ended = store.as_ref().zip(run.as_ref()).and_then(|(store, run)| follow(store, run, args));
            let prepared = if ended.is_some() { prepare(&pipeline, store.as_ref())? } else { prepared };
            let view = run.as_ref().and_then(RunView::of);
            let stages = stages_of_file(&prepared, store.as_ref(), view.as_ref());
            show(std::mem::take(&mut pipeline.name), store.as_ref(), view.as_ref(), &stages, args);
            show_results(store.as_ref(), runs, ended.as_ref());
            warn_about_deleted_results(store.as_ref());
        }
        Some(what) => {
            let run = store.as_ref().and_then(|store| find_run(store, what).ok());
            if let Some(run) = &run {
                // Otherwise the error would be reported twice.
                run.record()?;
            }
            store.iter().zip(&run).for_each(|(store, run)| cluster::reconcile_run(store, run));
            let ended = store.as_ref().zip(run.as_ref()).and_then(|(store, run)| follow(store, run, args));
            let view = run.as_ref().map(RunView::read).transpose()?;
            let (Some(store), Some(view)) = (&store, view) else {
                return Err(InputError(format!(
                    "{what} is not a pipeline file, and {} has no run or pipeline of that name; `srpipe runs` lists them",
                    runs.display()
                ))
                .into());
            };
            let stages: Vec<StageView> =
                view.record.stages.iter().map(|stage| stage_of_run(store, &view, stage)).collect();
            show(view.record.pipeline.clone(), Some(store), Some(&view), &stages, args);
            show_results(Some(store), runs, ended.as_ref());
            warn_about_deleted_results(Some(store));
        }
    }
    Ok(EXIT_DONE)
}

/// Shows an active run on a terminal until it ends. Returns None if there is nothing to follow.
fn follow(store: &Store, run: &RunDir, args: &StatusArgs) -> Option<RunView> {
    let is_wanted = !args.json && !args.once && can_draw() && std::io::stdout().is_terminal();
    if !is_wanted || RunView::of(run)?.state != ViewState::Running {
        return None;
    }
    progress::watch(store, run, &mut progress::Bars::new())
}

/// Prints the results of a run that was followed to its end.
fn show_results(store: Option<&Store>, runs: &Path, ended: Option<&RunView>) {
    if let (Some(store), Some(view)) = (store, ended) {
        print(&results::show(store, runs, &view.record));
    }
}

/// Whether an argument names a pipeline file, and not a run or pipeline.
pub(super) fn looks_like_file(what: &str) -> bool {
    let path = Path::new(what);
    what.ends_with(".yaml") || what.ends_with(".yml") || what.contains('/') && !path.is_dir() || path.is_file()
}

/// Returns the style and description of a run's state, with advice.
pub(super) fn describe_run_state(state: ViewState) -> (Look, String) {
    let label = state.label();
    match state {
        ViewState::Running => (Look::Attention, label.to_string()),
        ViewState::Unwatched => (Look::Attention, format!("{label}, unwatched; run again to watch it")),
        ViewState::Ok => (Look::Good, label.to_string()),
        ViewState::Failed => (Look::Bad, label.to_string()),
        ViewState::Interrupted => (Look::Attention, format!("{label}; {CONTINUE}")),
        ViewState::Died => (Look::Bad, format!("{label}; {CONTINUE}")),
    }
}

/// Prints every stage of a file or run.
fn show(pipeline: String, store: Option<&Store>, run: Option<&RunView>, stages: &[StageView], args: &StatusArgs) {
    if args.json {
        let claims = store.zip(run).map(|(store, run)| results::claims_to_json(store, &run.record));
        let value = serde_json::json!({
            "schema": 1,
            "pipeline": pipeline,
            "run": run.map(|run| run_json(&run.record, run.state)),
            "stages": stages,
            "claims": claims.unwrap_or_default(),
        });
        return print_json(&value);
    }
    let paint = Paint::stdout();
    let now = Timestamp::now();
    let mut text = match run {
        Some(run) => {
            let (look, state) = describe_run_state(run.state);
            let age = format::age(run.record.finished_at.as_ref().unwrap_or(&run.record.started_at), now);
            format!("{pipeline}: latest run {}: {}, {age}\n", run.record.id, paint.paint(look, &state))
        }
        None => format!("{pipeline}: no run yet\n"),
    };
    let mut table = Table::new(&["stage", "kind", "state", "age", "took", "figure"]);
    let plain = |text: String| (Look::Plain, text);
    for Group { name, members } in groups(stages.iter().map(|stage| stage.name.as_str()), args.all) {
        let stage = &stages[members.start];
        if members.len() > 1 {
            let (state, seconds) = summarize(&stages[members]);
            let none = || plain(String::new());
            table.row(vec![plain(name), plain(stage.kind.name().to_string()), state, none(), plain(seconds), none()]);
            continue;
        }
        table.row(vec![
            plain(name),
            plain(stage.kind.name().to_string()),
            stage.style_and_text(),
            plain(stage.finished_at.as_ref().map_or(String::new(), |then| format::age(then, now))),
            plain(stage.seconds.map_or(String::new(), format::duration)),
            plain(stage.highlight.clone()),
        ]);
    }
    text += &table.render(paint);
    print(&text);
}

/// Returns the number of instances in each state, and the total time of those that finished.
fn summarize(stages: &[StageView]) -> ((Look, String), String) {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    stages.iter().for_each(|stage| *counts.entry(stage.state).or_default() += 1);
    let worst = counts.keys().next_back().map_or(Look::Plain, |state| state.style_and_name().0);
    let counts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {}", state.style_and_name().1)).collect();
    let seconds: Option<f64> = stages.iter().filter_map(|stage| stage.seconds).reduce(|a, b| a + b);
    ((worst, counts.join(", ")), seconds.map_or(String::new(), format::duration))
}

/// Returns the JSON of a run, without its stages.
fn run_json(record: &RunRecord, state: ViewState) -> serde_json::Value {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    record.stages.iter().for_each(|stage| *counts.entry(stage.state.name()).or_default() += 1);
    serde_json::json!({
        "id": record.id, "state": state.name(), "file": record.file, "started_at": record.started_at,
        "finished_at": record.finished_at, "seconds": record.seconds, "counts": counts,
    })
}

/// Prints the latest run of every pipeline.
fn show_all(store: Option<&Store>, runs: &Path, as_json: bool) {
    let views = store.into_iter().flat_map(|store| {
        store.pipelines().into_iter().filter_map(|pipeline| RunView::latest(store, &pipeline)).collect::<Vec<_>>()
    });
    let views: Vec<RunView> = views.collect();
    if as_json {
        let pipelines: Vec<serde_json::Value> = views
            .iter()
            .map(
                |view| serde_json::json!({"pipeline": view.record.pipeline, "run": run_json(&view.record, view.state)}),
            )
            .collect();
        return print_json(
            &serde_json::json!({ "schema": 1, "pipelines": pipelines, "store": store.map(Store::contents) }),
        );
    }
    if views.is_empty() {
        return print(&format!("there are no runs in {} yet; `srpipe run FILE` starts one\n", runs.display()));
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["pipeline", "run", "state", "stages", "age", "took"]);
    for RunView { record, state } in &views {
        let (look, state) = describe_run_state(*state);
        let plain = |text: String| (Look::Plain, text);
        table.row(vec![
            plain(record.pipeline.clone()),
            plain(record.id.clone()),
            (look, state),
            plain(record.state_counts()),
            plain(format::age(&record.started_at, now)),
            plain(record.seconds.map_or(String::new(), format::duration)),
        ]);
    }
    let text = table.render(Paint::stdout());
    print(&format!("{text}\n{}\n", store.map_or(String::new(), |store| super::store::contents(&store.contents()))));
}
