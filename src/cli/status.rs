//! `srpipe status`: reads what others wrote, waits for nothing.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::args::StatusArgs;
use super::explanations::few;
use super::groups::{Group, groups};
use super::output::{Look, Paint, Table, print};
use super::store::find_run;
use super::{EXIT_DONE, load, results, words};
use crate::pipeline::StageKind;
use crate::plan::StageState;
use crate::run::watch::{RunView, ViewState, last_progress};
use crate::run::{InputError, Prepared};
use crate::stages::StageEvent;
use crate::store::{Action, Key, RunRecord, StageRecord, StageRunState, Store};

pub fn status(args: &StatusArgs, runs: &Path) -> Result<u8> {
    let store = Store::open_existing(runs);
    match &args.what {
        None => all(store.as_ref(), runs, args.json),
        Some(what) if looks_like_file(what) => {
            let mut pipeline = load(Path::new(what), &args.flags)?;
            let prepared = Prepared::new(&pipeline, store.as_ref())?;
            let view = store.as_ref().and_then(|store| RunView::latest(store, &pipeline.name));
            let stages = stages_of_file(&prepared, store.as_ref(), view.as_ref());
            show(std::mem::take(&mut pipeline.name), view.as_ref(), &stages, args);
        }
        Some(what) => {
            let view = store.as_ref().and_then(|store| RunView::of(&find_run(store, what).ok()?));
            let (Some(store), Some(view)) = (&store, view) else {
                return Err(InputError(format!(
                    "{what} is no pipeline file, and {} has neither a run nor a pipeline of that name",
                    runs.display()
                ))
                .into());
            };
            let stages: Vec<StageView> =
                view.record.stages.iter().map(|stage| stage_of_run(store, &view, stage)).collect();
            show(view.record.pipeline.clone(), Some(&view), &stages, args);
        }
    }
    Ok(EXIT_DONE)
}

fn looks_like_file(what: &str) -> bool {
    what.ends_with(".yaml") || what.ends_with(".yml") || what.contains('/') || Path::new(what).is_file()
}

/// A stage as `status` shows it, in words and in JSON.
#[derive(Debug, Serialize)]
pub struct StageView {
    name: String,
    kind: StageKind,
    pub state: State,
    /// The stages that it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<String>,
    key: Option<Key>,
    finished_at: Option<String>,
    seconds: Option<f64>,
    metrics: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<StageEvent>,
    error: Option<String>,
    #[serde(skip)]
    highlight: String,
}

/// The less there is to worry about, the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Cached,
    Ran,
    Waiting,
    WouldRun,
    Skipped,
    Running,
    Interrupted,
    Died,
    Failed,
}

impl State {
    /// Without what is to be said of a single stage.
    pub fn words(self) -> (Look, &'static str) {
        match self {
            Self::Cached => (Look::Good, "cached"),
            Self::Ran => (Look::Good, "ran"),
            Self::WouldRun => (Look::Attention, "would run"),
            Self::Waiting => (Look::Plain, "waiting"),
            Self::Running => (Look::Attention, "running"),
            Self::Failed => (Look::Bad, "failed"),
            Self::Skipped => (Look::Attention, "skipped"),
            Self::Interrupted => (Look::Attention, "interrupted"),
            Self::Died => (Look::Bad, "died"),
        }
    }
}

/// What the file asks for now, with what the latest run says of the very same keys.
pub fn stages_of_file(prepared: &Prepared, store: Option<&Store>, latest: Option<&RunView>) -> Vec<StageView> {
    let names = |on: &[usize]| on.iter().map(|&i| prepared.plan.stages[i].name.clone()).collect();
    let stages = prepared.plan.stages.iter().zip(&prepared.states).map(|(stage, state)| {
        let mut view = StageView {
            name: stage.name.clone(),
            kind: stage.kind,
            state: State::WouldRun,
            waits_for: vec![],
            key: None,
            finished_at: None,
            seconds: None,
            metrics: BTreeMap::new(),
            progress: None,
            error: None,
            highlight: String::new(),
        };
        match state {
            StageState::Cached { key, action } => {
                view.key = Some(key.clone());
                view.state = State::Cached;
                view.take(action, store);
            }
            StageState::Waiting { on } => {
                view.state = State::Waiting;
                view.waits_for = names(on);
            }
            StageState::Ready { key, .. } => {
                view.key = Some(key.clone());
                let same = |record: &&StageRecord| record.key.as_ref() == Some(key);
                let record = latest.and_then(|run| Some((run, run.record.stages.iter().find(same)?)));
                if let Some((run, record)) = record {
                    view.state = match state_of_run(run, record) {
                        State::Running => State::Running,
                        State::Failed => State::Failed,
                        State::Interrupted => State::Interrupted,
                        State::Died => State::Died,
                        _ => State::WouldRun,
                    };
                    view.error = record.error.clone();
                    view.seconds = record.seconds;
                }
                view.progress = store.and_then(|store| last_progress(store, key));
            }
        }
        view
    });
    stages.collect()
}

fn state_of_run(run: &RunView, stage: &StageRecord) -> State {
    match stage.state {
        StageRunState::Pending if run.state == ViewState::Running => State::Waiting,
        StageRunState::Pending => State::Skipped,
        StageRunState::Running if run.state == ViewState::Running => State::Running,
        StageRunState::Running => State::Died,
        StageRunState::Ran => State::Ran,
        StageRunState::Cached => State::Cached,
        StageRunState::Failed => State::Failed,
        StageRunState::Skipped => State::Skipped,
        StageRunState::Interrupted => State::Interrupted,
    }
}

fn stage_of_run(store: &Store, run: &RunView, stage: &StageRecord) -> StageView {
    let mut view = StageView {
        name: stage.name.clone(),
        kind: stage.kind,
        state: state_of_run(run, stage),
        waits_for: vec![],
        key: stage.key.clone(),
        finished_at: None,
        seconds: stage.seconds,
        metrics: stage.metrics.clone(),
        progress: None,
        error: stage.error.clone(),
        highlight: String::new(),
    };
    let Some(key) = &stage.key else { return view };
    match view.state {
        State::Ran | State::Cached => {
            if let Ok(Some(action)) = store.action(key) {
                view.take(&action, Some(store));
            }
        }
        State::Running | State::Interrupted | State::Died => view.progress = last_progress(store, key),
        _ => {}
    }
    view
}

impl StageView {
    /// What is known of a stage that is done.
    fn take(&mut self, action: &Action, store: Option<&Store>) {
        self.finished_at = Some(action.cost.finished_at.clone());
        self.seconds = Some(action.cost.seconds);
        self.metrics = action.metrics.clone();
        let summary = match (self.kind, store, &self.key) {
            (StageKind::Compare, Some(store), Some(key)) => results::summary(store, key),
            _ => None,
        };
        self.highlight = match summary.as_ref().and_then(results::best_arm) {
            Some((arm, psnr)) => format!("best: {arm}, {psnr:.2} dB"),
            None => highlight(self.kind, &action.metrics),
        };
    }

    fn words(&self) -> (Look, String) {
        let (look, plain) = self.state.words();
        let text = match self.state {
            State::Cached | State::Ran | State::Skipped => plain.to_string(),
            State::WouldRun | State::Running => self.with_progress(plain),
            State::Waiting if self.waits_for.is_empty() => plain.to_string(),
            State::Waiting => {
                let names: Vec<&str> = self.waits_for.iter().map(String::as_str).collect();
                format!("waits for {}", few(&names))
            }
            State::Failed => {
                format!("failed: {}", words::shortened(first_line(self.error.as_deref().unwrap_or("?")), 60))
            }
            State::Interrupted | State::Died => self.with_progress(&format!("{plain}; run again to continue")),
        };
        (look, text)
    }

    fn with_progress(&self, text: &str) -> String {
        match &self.progress {
            Some(StageEvent::Progress { done, total, unit, values }) => {
                let loss = values.get("loss").map_or(String::new(), |loss| format!(", loss {}", words::figure(*loss)));
                format!("{text} ({}{loss})", words::progress(*done, *total, unit))
            }
            _ => text.to_string(),
        }
    }
}

/// The figure of a kind that people look for first.
fn highlight(kind: StageKind, metrics: &BTreeMap<String, f64>) -> String {
    let wanted: &[&str] = match kind {
        StageKind::Train => &["heldout_loss", "loss"],
        StageKind::Compare => &["psnr_mean", "psnr_sample"],
        StageKind::Sample => &["images_per_s"],
        StageKind::Fetch | StageKind::Degrade => &["train", "images"],
        StageKind::Command => &[],
    };
    let found = wanted.iter().find_map(|name| Some((*name, metrics.get(*name)?)));
    // A command's are the user's own.
    let first = || metrics.iter().next().map(|(name, value)| (name.as_str(), value));
    let found = found.or_else(|| if kind == StageKind::Command { first() } else { None });
    found.map_or(String::new(), |(name, value)| format!("{} {}", name.replace('_', " "), words::figure(*value)))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

pub fn kind_name(kind: StageKind) -> String {
    format!("{kind:?}").to_lowercase()
}

pub fn run_words(state: ViewState) -> (Look, &'static str) {
    match state {
        ViewState::Running => (Look::Attention, "running"),
        ViewState::Ok => (Look::Good, "ok"),
        ViewState::Failed => (Look::Bad, "failed"),
        ViewState::Interrupted => (Look::Attention, "interrupted; run again to continue"),
        ViewState::Died => (Look::Bad, "died; run again to continue"),
    }
}

pub fn run_state_name(state: ViewState) -> &'static str {
    match state {
        ViewState::Running => "running",
        ViewState::Ok => "ok",
        ViewState::Failed => "failed",
        ViewState::Interrupted => "interrupted",
        ViewState::Died => "died",
    }
}

/// Every stage of a file or of a run.
fn show(pipeline: String, run: Option<&RunView>, stages: &[StageView], args: &StatusArgs) {
    if args.json {
        let value = serde_json::json!({
            "schema": 1,
            "pipeline": pipeline,
            "run": run.map(|run| run_json(&run.record, run.state)),
            "stages": stages,
        });
        return print(&format!("{value:#}\n"));
    }
    let paint = Paint::stdout();
    let now = Timestamp::now();
    let mut text = match run {
        Some(run) => {
            let (look, state) = run_words(run.state);
            let age = words::age(run.record.finished_at.as_ref().unwrap_or(&run.record.started_at), now);
            format!("{pipeline}: latest run {}: {}, {age}\n", run.record.id, paint.paint(look, state))
        }
        None => format!("{pipeline}: no run yet\n"),
    };
    let mut table = Table::new(&["stage", "kind", "state", "age", "took", "figure"]);
    let plain = |text: String| (Look::Plain, text);
    for Group { name, members } in groups(stages.iter().map(|stage| stage.name.as_str()), args.all) {
        let stage = &stages[members.start];
        if members.len() > 1 {
            let (state, seconds) = together(&stages[members]);
            let none = || plain(String::new());
            table.row(vec![plain(name), plain(kind_name(stage.kind)), state, none(), plain(seconds), none()]);
            continue;
        }
        table.row(vec![
            plain(name),
            plain(kind_name(stage.kind)),
            stage.words(),
            plain(stage.finished_at.as_ref().map_or(String::new(), |then| words::age(then, now))),
            plain(stage.seconds.map_or(String::new(), words::duration)),
            plain(stage.highlight.clone()),
        ]);
    }
    text += &table.render(paint);
    print(&text);
}

/// Many instances: how many are in each state, and what those took that are done.
fn together(stages: &[StageView]) -> ((Look, String), String) {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    stages.iter().for_each(|stage| *counts.entry(stage.state).or_default() += 1);
    let worst = counts.keys().next_back().map_or(Look::Plain, |state| state.words().0);
    let counts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {}", state.words().1)).collect();
    let seconds: Option<f64> = stages.iter().filter_map(|stage| stage.seconds).reduce(|a, b| a + b);
    ((worst, counts.join(", ")), seconds.map_or(String::new(), words::duration))
}

fn run_json(record: &RunRecord, state: ViewState) -> serde_json::Value {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for stage in &record.stages {
        let name = serde_json::to_value(stage.state).ok().and_then(|name| Some(name.as_str()?.to_string()));
        *counts.entry(name.unwrap_or_default()).or_default() += 1;
    }
    serde_json::json!({
        "id": record.id, "state": run_state_name(state), "file": record.file, "started_at": record.started_at,
        "finished_at": record.finished_at, "seconds": record.seconds, "counts": counts,
    })
}

/// Every pipeline's latest run.
fn all(store: Option<&Store>, runs: &Path, as_json: bool) {
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
        return print(&format!(
            "{:#}\n",
            serde_json::json!({ "schema": 1, "pipelines": pipelines, "store": store.map(Store::contents) })
        ));
    }
    if views.is_empty() {
        return print(&format!("no runs in {} yet: srpipe run <file> makes one\n", runs.display()));
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["pipeline", "run", "state", "stages", "age", "took"]);
    for RunView { record, state } in &views {
        let (look, state) = run_words(*state);
        let plain = |text: String| (Look::Plain, text);
        table.row(vec![
            plain(record.pipeline.clone()),
            plain(record.id.clone()),
            (look, state.into()),
            plain(counts(record)),
            plain(words::age(&record.started_at, now)),
            plain(record.seconds.map_or(String::new(), words::duration)),
        ]);
    }
    let text = table.render(Paint::stdout());
    print(&format!("{text}\n{}\n", store.map_or(String::new(), |store| super::store::contents(&store.contents()))));
}

fn counts(record: &RunRecord) -> String {
    use StageRunState::*;
    let words = [
        (Ran, "ran"),
        (Cached, "cached"),
        (Running, "running"),
        (Failed, "failed"),
        (Skipped, "skipped"),
        (Interrupted, "interrupted"),
        (Pending, "to do"),
    ];
    let count = |state| record.stages.iter().filter(|stage| stage.state == state).count();
    let counts = words.iter().map(|&(state, word)| (count(state), word)).filter(|(n, _)| *n > 0);
    counts.map(|(n, word)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
}
