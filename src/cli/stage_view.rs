//! The state of a stage, from the pipeline file, the store and the latest run.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::explanations::join_names;
use super::output::Look;
use super::results;
use crate::config::StageKind;
use crate::config::metrics::shown_name;
use crate::format;
use crate::plan::StageState;
use crate::run::Prepared;
use crate::run::watch::last_progress;
use crate::runs::{JobRecord, StageRecord, StageRunState};
use crate::runs::{RunView, ViewState};
use crate::stages::StageEvent;
use crate::store::{Action, Key, Store};

/// A stage as `status` shows it, as text and JSON.
#[derive(Debug, Serialize)]
pub(super) struct StageView {
    pub(super) name: String,
    pub(super) kind: StageKind,
    pub(super) state: State,
    /// The names of the unfinished stages that it depends on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<String>,
    key: Option<Key>,
    pub(super) finished_at: Option<String>,
    pub(super) seconds: Option<f64>,
    metrics: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<StageEvent>,
    error: Option<String>,
    /// Its job on a cluster, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<JobRecord>,
    /// The most important result, as text.
    #[serde(skip)]
    pub(super) highlight: String,
}

/// The state of a stage, ordered by how much attention it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
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

/// The advice for a stage or run whose process has ended before it was done.
pub(super) const CONTINUE: &str = "run again to continue";

impl State {
    /// Returns the style and name of the state, without details of a stage.
    pub(super) fn style_and_name(self) -> (Look, &'static str) {
        let recorded = |look, state: StageRunState| (look, state.name());
        match self {
            Self::Cached => recorded(Look::Good, StageRunState::Cached),
            Self::Ran => recorded(Look::Good, StageRunState::Ran),
            Self::WouldRun => (Look::Attention, "would run"),
            Self::Waiting => (Look::Plain, "waiting"),
            Self::Running => recorded(Look::Attention, StageRunState::Running),
            Self::Failed => recorded(Look::Bad, StageRunState::Failed),
            Self::Skipped => recorded(Look::Attention, StageRunState::Skipped),
            Self::Interrupted => recorded(Look::Attention, StageRunState::Interrupted),
            Self::Died => (Look::Bad, ViewState::Died.label()),
        }
    }
}

/// Returns the stages of the current file, with the latest run's records of the same keys.
pub(super) fn stages_of_file(prepared: &Prepared, store: Option<&Store>, latest: Option<&RunView>) -> Vec<StageView> {
    let names = |on: &[usize]| on.iter().map(|&i| prepared.plan.stages[i].name.clone()).collect();
    let recorded = latest.iter().flat_map(|run| run.record.stages.iter().map(move |stage| (*run, stage)));
    let recorded: HashMap<&Key, (&RunView, &StageRecord)> =
        recorded.filter_map(|(run, stage)| Some((stage.key.as_ref()?, (run, stage)))).collect();
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
            job: None,
            highlight: String::new(),
        };
        match state {
            StageState::Cached { key, action } => {
                view.key = Some(key.clone());
                view.state = State::Cached;
                view.set_result(action, store);
            }
            StageState::Waiting { on } => {
                view.state = State::Waiting;
                view.waits_for = names(on);
            }
            StageState::Ready { key, .. } => {
                view.key = Some(key.clone());
                if let Some((run, record)) = recorded.get(key).copied() {
                    view.state = match state_in_run(run, record) {
                        state @ (State::Running | State::Waiting) => state,
                        State::Failed => State::Failed,
                        State::Interrupted => State::Interrupted,
                        State::Died => State::Died,
                        _ => State::WouldRun,
                    };
                    view.error = record.error.clone();
                    view.job = record.job.clone();
                    view.seconds = record.seconds;
                }
                view.progress = store.and_then(|store| last_progress(store, key));
            }
        }
        view
    });
    stages.collect()
}

/// Returns the state of a stage according to a run's record.
fn state_in_run(run: &RunView, stage: &StageRecord) -> State {
    let is_active = matches!(run.state, ViewState::Running | ViewState::Unwatched);
    match stage.state {
        StageRunState::Pending if is_active => State::Waiting,
        StageRunState::Pending => State::Skipped,
        // A job in the queue of the cluster is not running yet.
        StageRunState::Running if is_active && stage.job.as_ref().is_some_and(|job| job.queued.is_some()) => {
            State::Waiting
        }
        // On a cluster, a stage without a job is about to be submitted.
        StageRunState::Running if is_active && run.record.executor.outlives_run() && stage.job.is_none() => {
            State::Waiting
        }
        StageRunState::Running if is_active => State::Running,
        StageRunState::Running => State::Died,
        StageRunState::Ran => State::Ran,
        StageRunState::Cached => State::Cached,
        StageRunState::Failed => State::Failed,
        StageRunState::Skipped => State::Skipped,
        StageRunState::Interrupted => State::Interrupted,
    }
}

/// Returns a stage of a run, with its result or progress from the store.
pub(super) fn stage_of_run(store: &Store, run: &RunView, stage: &StageRecord) -> StageView {
    let mut view = StageView {
        name: stage.name.clone(),
        kind: stage.kind,
        state: state_in_run(run, stage),
        waits_for: vec![],
        key: stage.key.clone(),
        finished_at: None,
        seconds: stage.seconds,
        metrics: stage.metrics.clone(),
        progress: None,
        error: stage.error.clone(),
        job: stage.job.clone(),
        highlight: String::new(),
    };
    let Some(key) = &stage.key else { return view };
    match view.state {
        State::Ran | State::Cached => {
            if let Ok(Some(action)) = store.action(key) {
                view.set_result(&action, Some(store));
            }
        }
        State::Running | State::Interrupted | State::Died => view.progress = last_progress(store, key),
        _ => {}
    }
    view
}

impl StageView {
    /// Copies the times and metrics of a finished stage from its record.
    fn set_result(&mut self, action: &Action, store: Option<&Store>) {
        self.finished_at = Some(action.cost.finished_at.clone());
        self.seconds = Some(action.cost.seconds);
        self.metrics = action.metrics.clone();
        let summary = match (self.kind, store, &self.key) {
            (StageKind::Compare, Some(store), Some(key)) => results::summary(store, key),
            _ => None,
        };
        let headline = summary.as_ref().and_then(results::headline);
        self.highlight = headline.unwrap_or_else(|| highlight(self.kind, &action.metrics));
    }

    /// Returns the style and description of the state, with details.
    pub(super) fn style_and_text(&self) -> (Look, String) {
        let (look, name) = self.state.style_and_name();
        let text = match self.state {
            State::Cached | State::Ran | State::Skipped => name.to_string(),
            State::WouldRun => self.with_progress(name),
            State::Running => self.with_progress(&match &self.job {
                Some(job) => format!("{name}: {job}"),
                None => name.to_string(),
            }),
            State::Waiting if self.waits_for.is_empty() => match &self.job {
                Some(job) => format!("{name}: {job}"),
                None => name.to_string(),
            },
            State::Waiting => {
                let names: Vec<&str> = self.waits_for.iter().map(String::as_str).collect();
                format!("{name} for {}", join_names(&names))
            }
            State::Failed => {
                format!("{name}: {}", format::shortened(first_line(self.error.as_deref().unwrap_or("?")), 60))
            }
            State::Interrupted | State::Died => self.with_progress(&format!("{name}; {CONTINUE}")),
        };
        (look, text)
    }

    /// Appends the saved progress, if there is one.
    fn with_progress(&self, text: &str) -> String {
        match &self.progress {
            Some(StageEvent::Progress { done, total, unit, values }) => {
                let loss = values.get("loss").map_or(String::new(), |loss| format!(", loss {}", format::number(*loss)));
                format!("{text} ({}{loss})", format::progress(*done, *total, unit))
            }
            _ => text.to_string(),
        }
    }
}

/// Describes the most important metric of a stage.
fn highlight(kind: StageKind, metrics: &BTreeMap<String, f64>) -> String {
    let found = kind.headlines().iter().find_map(|name| Some((*name, metrics.get(*name)?)));
    // The metrics of a command are defined by the user.
    let first = || metrics.iter().next().map(|(name, value)| (name.as_str(), value));
    let found = found.or_else(|| if kind.is_user_defined() { first() } else { None });
    found.map_or(String::new(), |(name, value)| {
        format!("{} {}", shown_name(name).replace('_', " "), format::number(*value))
    })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}
