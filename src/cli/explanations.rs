//! Explains what each stage would do and why, as text and as JSON; for `plan`, `why` and `run --dry-run`.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::format;
use crate::pipeline::{Pipeline, Position, current_path, current_value};
use crate::plan::{Difference, Explanation, Field, History, Plan, Reason, StageState, explain};
use crate::run::Prepared;
use crate::runs::RunView;
use crate::store::{Key, Store};

/// A pipeline with an explanation for every stage.
pub(super) struct Explained<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) prepared: &'a Prepared,
    pub(super) explanations: Vec<Explanation>,
    /// The keys of the pipeline's latest run, by stage name.
    latest: HashMap<String, Key>,
}

/// The maximum number of differences to show per stage; the others are counted.
const MAX_DIFFERENCES: usize = 4;

impl<'a> Explained<'a> {
    pub(super) fn new(pipeline: &'a Pipeline, prepared: &'a Prepared, store: Option<&Store>) -> Self {
        let history = History::new(match prepared.is_done() {
            true => vec![],
            false => store.map(Store::recorded).unwrap_or_default(),
        });
        let Prepared { plan, states, forced, sources, .. } = prepared;
        let mut explanations = explain(plan, states, forced, sources, prepared.backend(), &history);
        // A stage with an invalid record ran before, although the history does not contain it.
        for (explanation, state) in explanations.iter_mut().zip(states) {
            let is_new = matches!(explanation.reason, Reason::New | Reason::Changed { .. });
            if is_new && state.key().is_some_and(|key| store.is_some_and(|store| store.has_invalid_record(key))) {
                explanation.reason = Reason::Lost;
            }
        }
        let latest = store.and_then(|store| RunView::latest(store, &pipeline.name));
        let latest = latest.into_iter().flat_map(|run| run.record.stages);
        let latest = latest.filter_map(|stage| Some((stage.name, stage.key?))).collect();
        Self { pipeline, prepared, explanations, latest }
    }

    /// Returns the key of a stage in the pipeline's latest run.
    pub(super) fn latest_key(&self, stage: &str) -> Option<&Key> {
        self.latest.get(stage)
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.prepared.plan
    }

    pub(super) fn state(&self, stage: usize) -> &StageState {
        &self.prepared.states[stage]
    }

    pub(super) fn is_cached(&self, stage: usize) -> bool {
        matches!(self.state(stage), StageState::Cached { .. })
    }

    fn name(&self, stage: usize) -> &str {
        &self.plan().stages[stage].name
    }

    /// Returns the names of the inputs that a stage waits for.
    fn waits_for(&self, stage: usize) -> Vec<&str> {
        match self.state(stage) {
            StageState::Waiting { on } => on.iter().map(|&on| self.name(on)).collect(),
            _ => vec![],
        }
    }

    /// Returns the direct and indirect dependents of a stage.
    pub(super) fn dependents(&self, stage: usize) -> Vec<&str> {
        let mut reached = vec![false; self.plan().stages.len()];
        reached[stage] = true;
        for (index, planned) in self.plan().stages.iter().enumerate().skip(stage) {
            if reached[index] {
                planned.dependents.iter().for_each(|&dependent| reached[dependent] = true);
            }
        }
        (stage + 1..reached.len()).filter(|&index| reached[index]).map(|index| self.name(index)).collect()
    }

    /// Whether the latest run has this result for the stage, so that running the stage is a rerun.
    fn is_of_latest_run(&self, stage: usize, key: &Key) -> bool {
        self.latest.get(self.name(stage)) == Some(key)
    }

    /// Returns the reason for the state of a stage, as a phrase.
    pub(super) fn reason(&self, stage: usize) -> String {
        let inputs = self.waits_for(stage);
        let dependency = match inputs.is_empty() {
            true => None,
            false => Some(format!("depends on {}", join_names(&inputs))),
        };
        let with_inputs =
            |text: String| dependency.iter().fold(text, |text, dependency| format!("{text}; {dependency}"));
        match &self.explanations[stage].reason {
            Reason::Cached => "cached".to_string(),
            Reason::New => {
                let kind = self.plan().stages[stage].kind.name();
                with_inputs(format!("no {kind} stage has run before"))
            }
            Reason::Lost => "it ran before, but its record or a blob is missing or damaged".to_string(),
            Reason::Forced => with_inputs("forced".to_string()),
            Reason::Waiting => {
                let output = if inputs.len() == 1 { "its output changes" } else { "their outputs change" };
                format!("depends on {}; reruns only if {output}", join_names(&inputs))
            }
            Reason::Changed { key, differences } => {
                let mut shown = self.describe(stage, differences);
                let more = shown.len().saturating_sub(MAX_DIFFERENCES);
                shown.truncate(MAX_DIFFERENCES);
                let mut text = shown.join(", ");
                if more > 0 {
                    text += &format!(" and {more} more");
                }
                if !self.is_of_latest_run(stage, key) {
                    text = format!("compared with the most similar result, {text}");
                }
                with_inputs(text)
            }
        }
    }

    /// Returns a sentence such as "attention reruns: model.base_channels 32 → 48 (pipelines/ablation.yaml:21:7); 3
    /// stages depend on it".
    pub(super) fn sentence(&self, stage: usize) -> String {
        let name = self.name(stage);
        let reason = self.reason(stage);
        let mut sentence = match &self.explanations[stage].reason {
            Reason::Cached => format!("{name} is cached"),
            Reason::Waiting => format!("{name} {reason}"),
            Reason::Lost | Reason::Forced => format!("{name} reruns: {reason}"),
            Reason::Changed { key, .. } if self.is_of_latest_run(stage, key) => format!("{name} reruns: {reason}"),
            Reason::New | Reason::Changed { .. } => format!("{name} runs: {reason}"),
        };
        if let StageState::Cached { key, action } = self.state(stage) {
            let age = format::age(&action.cost.finished_at, jiff::Timestamp::now());
            let took = format::duration(action.cost.seconds);
            sentence += &format!(" (key {}…, computed {age} on {} in {took})", &key.as_str()[..12], action.cost.host);
        }
        match self.dependents(stage).len() {
            0 => {}
            1 => sentence += "; 1 stage depends on it",
            n => sentence += &format!("; {n} stages depend on it"),
        }
        sentence
    }

    /// Describes the differences. Those of several blobs of one input are combined.
    fn describe(&self, stage: usize, differences: &[Difference]) -> Vec<String> {
        let mut descriptions: Vec<String> = vec![];
        let mut roles: Vec<&str> = vec![];
        let mut has_arms = false;
        for difference in differences {
            let (before, now) = (format_value(&difference.before), format_value(&difference.now));
            let position = self.position(stage, &difference.field);
            let position = position.map_or(String::new(), |position| format!(" ({position})"));
            descriptions.push(match &difference.field {
                // The parameters of an arm are long, so report only that the arms changed.
                Field::Param(path) if path.starts_with("arms.") && std::mem::replace(&mut has_arms, true) => continue,
                Field::Param(path) if path.starts_with("arms.") => format!("the arms changed{position}"),
                Field::Param(path) => {
                    let path = current_path(self.plan().stages[stage].kind, path);
                    let [before, now] = [&before, &now].map(|value| current_value(&path, value));
                    format!("{path} {before} → {now}{position}")
                }
                Field::Seed => format!("seed {before} → {now}{position}"),
                Field::Backend => format!("device {before} → {now}"),
                Field::CodeVersion => {
                    let kind = self.plan().stages[stage].kind.name();
                    format!("the implementation of `{kind}` changed (version {before} → {now})")
                }
                Field::Source(name) => match name.strip_prefix("files.") {
                    Some(file) => format!("the content of {file} changed{position}"),
                    None => format!("the content of the {name} changed{position}"),
                },
                // The inputs of changed arms differ anyway.
                Field::Input { role, .. } if has_arms && role.starts_with("arms.") => continue,
                Field::Input { role, .. } if roles.contains(&role.as_str()) => continue,
                Field::Input { role, .. } => {
                    roles.push(role);
                    format!("the content of `{role}` changed{position}")
                }
            });
        }
        descriptions
    }

    /// Returns where the field is set; for a parameter with its default value, the position of the enclosing mapping.
    fn position(&self, stage: usize, field: &Field) -> Option<Position> {
        let stage = &self.pipeline.stages[stage];
        match field {
            Field::Param(path) => self.pipeline.nearest_position(stage, path),
            Field::Seed => self.pipeline.position(stage, "seed"),
            Field::Input { role, .. } => self.pipeline.nearest_position(stage, role),
            Field::Source(name) if name.starts_with("files.") => self.pipeline.position(stage, "files"),
            Field::Backend | Field::CodeVersion | Field::Source(_) => None,
        }
    }

    /// Returns the JSON of a stage for `plan --json` and `why --json`.
    pub(super) fn json(&self, stage: usize) -> Value {
        let planned = &self.plan().stages[stage];
        let Explanation { reason, seconds } = &self.explanations[stage];
        let (name, nearest, differences) = match reason {
            Reason::Cached => ("known", None, &[][..]),
            Reason::New => ("new", None, &[][..]),
            Reason::Lost => ("lost", None, &[][..]),
            Reason::Forced => ("forced", None, &[][..]),
            Reason::Waiting => ("waits", None, &[][..]),
            Reason::Changed { key, differences } => ("changed", Some(key), &differences[..]),
        };
        let difference = |d: &Difference| {
            let position = self.position(stage, &d.field).map(|position| position.to_string());
            json!({"field": field_name(&d.field), "before": d.before, "now": d.now, "place": position})
        };
        let state = match self.state(stage) {
            StageState::Cached { .. } => "cached",
            StageState::Ready { .. } => "ready",
            StageState::Waiting { .. } => "waiting",
        };
        json!({
            "name": planned.name, "stage": planned.base, "kind": planned.kind, "state": state, "reason": name,
            "because": self.reason(stage), "key": self.state(stage).key(), "nearest": nearest,
            "differences": differences.iter().map(difference).collect::<Vec<_>>(),
            "waits_for": self.waits_for(stage), "seconds": seconds,
        })
    }
}

/// Returns the name of a field in JSON.
fn field_name(field: &Field) -> String {
    match field {
        Field::Param(path) => path.clone(),
        Field::Seed => "seed".to_string(),
        Field::Backend => "backend".to_string(),
        Field::CodeVersion => "code_version".to_string(),
        Field::Source(name) => format!("sources.{name}"),
        Field::Input { role, blob } => format!("inputs.{role}.{blob}"),
    }
}

/// Returns a value as text.
fn format_value(value: &Option<Value>) -> String {
    match value {
        None => "none".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Joins names; a long list is truncated.
pub(super) fn join_names(names: &[&str]) -> String {
    match names.len() {
        0..=4 => names.join(", "),
        n => format!("{} and {} more", names[..3].join(", "), n - 3),
    }
}
