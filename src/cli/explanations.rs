//! What a stage would do and why, in words and as JSON; for `plan`, `why` and `run --dry-run`.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::format;
use crate::pipeline::{Pipeline, Position};
use crate::plan::{Difference, Explanation, Field, History, Plan, Reason, StageState, explain};
use crate::run::Prepared;
use crate::runs::RunView;
use crate::store::{Key, Store};

/// A pipeline with the reason of every stage.
pub struct Explained<'a> {
    pub pipeline: &'a Pipeline,
    pub prepared: &'a Prepared,
    pub explanations: Vec<Explanation>,
    /// The keys of the pipeline's latest run, by stage.
    latest: HashMap<String, Key>,
}

/// Differences of one stage that are told; the others are counted.
const MOST: usize = 4;

impl<'a> Explained<'a> {
    pub fn new(pipeline: &'a Pipeline, prepared: &'a Prepared, store: Option<&Store>) -> Self {
        let history = History::new(match prepared.is_done() {
            true => vec![],
            false => store.map(Store::recorded).unwrap_or_default(),
        });
        let Prepared { plan, states, forced, sources, .. } = prepared;
        let mut explanations = explain(plan, states, forced, sources, prepared.backend(), &history);
        // What cannot be read is no history, but it was made.
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

    pub fn plan(&self) -> &Plan {
        &self.prepared.plan
    }

    pub fn state(&self, stage: usize) -> &StageState {
        &self.prepared.states[stage]
    }

    pub fn is_cached(&self, stage: usize) -> bool {
        matches!(self.state(stage), StageState::Cached { .. })
    }

    fn name(&self, stage: usize) -> &str {
        &self.plan().stages[stage].name
    }

    pub fn waits_for(&self, stage: usize) -> Vec<&str> {
        match self.state(stage) {
            StageState::Waiting { on } => on.iter().map(|&on| self.name(on)).collect(),
            _ => vec![],
        }
    }

    /// All that reads of a stage, or of one that does.
    pub fn follow(&self, stage: usize) -> Vec<&str> {
        let mut reached = vec![false; self.plan().stages.len()];
        reached[stage] = true;
        for (index, planned) in self.plan().stages.iter().enumerate().skip(stage) {
            if reached[index] {
                planned.dependents.iter().for_each(|&dependent| reached[dependent] = true);
            }
        }
        (stage + 1..reached.len()).filter(|&index| reached[index]).map(|index| self.name(index)).collect()
    }

    /// Whether the latest run has this result for this stage, so that running it now is running it again.
    fn is_of_latest_run(&self, stage: usize, key: &Key) -> bool {
        self.latest.get(self.name(stage)) == Some(key)
    }

    /// The reason after the colon of a sentence.
    pub fn because(&self, stage: usize) -> String {
        let waits_for = few(&self.waits_for(stage));
        match &self.explanations[stage].reason {
            Reason::Cached => "its result is known".to_string(),
            Reason::New if waits_for.is_empty() => {
                format!("no {} stage was computed before", self.plan().stages[stage].kind.name())
            }
            Reason::New => format!("it waits for {waits_for}"),
            Reason::Lost => "it was computed before, but its record or a blob of it is missing or damaged".to_string(),
            Reason::Forced if waits_for.is_empty() => "it is forced".to_string(),
            Reason::Forced => format!("it is forced; it waits for {waits_for}"),
            Reason::Waiting => format!("it waits for {waits_for}; should that come out as before, it stays"),
            Reason::Changed { key, differences } => {
                let mut told = self.told(stage, differences);
                let more = told.len().saturating_sub(MOST);
                told.truncate(MOST);
                let mut text = told.join(", ");
                if more > 0 {
                    text += &format!(" and {more} more");
                }
                if !self.is_of_latest_run(stage, key) {
                    text = format!("nearest to what is known, it has {text}");
                }
                if !waits_for.is_empty() {
                    text += &format!("; it waits for {waits_for}");
                }
                text
            }
        }
    }

    /// "attention reruns: model.base_channels 32 → 48 (pipelines/ablation.yaml:21:7); 3 stages follow".
    pub fn sentence(&self, stage: usize) -> String {
        let name = self.name(stage);
        let because = self.because(stage);
        let mut sentence = match &self.explanations[stage].reason {
            Reason::Cached => format!("{name} is cached: {because}"),
            Reason::Waiting => format!("{name} waits for {}", because.trim_start_matches("it waits for ")),
            Reason::Lost | Reason::Forced => format!("{name} reruns: {because}"),
            Reason::Changed { key, .. } if self.is_of_latest_run(stage, key) => format!("{name} reruns: {because}"),
            Reason::New | Reason::Changed { .. } => format!("{name} runs: {because}"),
        };
        if let StageState::Cached { key, action } = self.state(stage) {
            let age = format::age(&action.cost.finished_at, jiff::Timestamp::now());
            let took = format::duration(action.cost.seconds);
            sentence += &format!(" (key {}…, computed {age} on {} in {took})", &key.as_str()[..12], action.cost.host);
        }
        match self.follow(stage).len() {
            0 => {}
            1 => sentence += "; 1 stage follows",
            n => sentence += &format!("; {n} stages follow"),
        }
        sentence
    }

    /// Differences in words; those of the blobs of one input are one.
    fn told(&self, stage: usize, differences: &[Difference]) -> Vec<String> {
        let mut told: Vec<String> = vec![];
        let mut roles: Vec<&str> = vec![];
        let mut arms = false;
        for difference in differences {
            let (before, now) = (value(&difference.before), value(&difference.now));
            let place = self.place(stage, &difference.field).map_or(String::new(), |place| format!(" ({place})"));
            told.push(match &difference.field {
                // What an arm consists of is long; that it is another is enough.
                Field::Param(path) if path.starts_with("arms.") && std::mem::replace(&mut arms, true) => continue,
                Field::Param(path) if path.starts_with("arms.") => format!("other arms{place}"),
                Field::Param(path) => format!("{path} {before} → {now}{place}"),
                Field::Seed => format!("seed {before} → {now}{place}"),
                Field::Backend => format!("device {before} → {now}"),
                Field::CodeVersion => {
                    let kind = self.plan().stages[stage].kind.name();
                    format!("srpipe computes {kind} stages otherwise (version {before} → {now})")
                }
                Field::Source(name) => match name.strip_prefix("files.") {
                    Some(file) => format!("other content of {file}{place}"),
                    None => format!("other content of the {name}{place}"),
                },
                // Nor is there more to say of what those arms hold.
                Field::Input { role, .. } if arms && role.starts_with("arms.") => continue,
                Field::Input { role, .. } if roles.contains(&role.as_str()) => continue,
                Field::Input { role, .. } => {
                    roles.push(role);
                    format!("other content of `{role}`{place}")
                }
            });
        }
        told
    }

    /// Where the field is given; of a parameter that is left to its default, what encloses it.
    fn place(&self, stage: usize, field: &Field) -> Option<Position> {
        let stage = &self.pipeline.stages[stage];
        match field {
            Field::Param(path) => self.pipeline.nearest_position(stage, path),
            Field::Seed => self.pipeline.position(stage, "seed"),
            Field::Input { role, .. } => self.pipeline.nearest_position(stage, role),
            Field::Source(name) if name.starts_with("files.") => self.pipeline.position(stage, "files"),
            Field::Backend | Field::CodeVersion | Field::Source(_) => None,
        }
    }

    /// A stage as `plan --json` and `why --json` have it.
    pub fn json(&self, stage: usize) -> Value {
        let planned = &self.plan().stages[stage];
        let Explanation { reason, seconds } = &self.explanations[stage];
        let (word, nearest, differences) = match reason {
            Reason::Cached => ("known", None, &[][..]),
            Reason::New => ("new", None, &[][..]),
            Reason::Lost => ("lost", None, &[][..]),
            Reason::Forced => ("forced", None, &[][..]),
            Reason::Waiting => ("waits", None, &[][..]),
            Reason::Changed { key, differences } => ("changed", Some(key), &differences[..]),
        };
        let difference = |d: &Difference| {
            let place = self.place(stage, &d.field).map(|place| place.to_string());
            json!({"field": field_name(&d.field), "before": d.before, "now": d.now, "place": place})
        };
        let state = match self.state(stage) {
            StageState::Cached { .. } => "cached",
            StageState::Ready { .. } => "ready",
            StageState::Waiting { .. } => "waiting",
        };
        json!({
            "name": planned.name, "stage": planned.base, "kind": planned.kind, "state": state, "reason": word,
            "because": self.because(stage), "key": self.state(stage).key(), "nearest": nearest,
            "differences": differences.iter().map(difference).collect::<Vec<_>>(),
            "waits_for": self.waits_for(stage), "seconds": seconds,
        })
    }
}

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

fn value(value: &Option<Value>) -> String {
    match value {
        None => "none".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The names, of many the first.
pub fn few(names: &[&str]) -> String {
    match names.len() {
        0..=4 => names.join(", "),
        n => format!("{} and {} more", names[..3].join(", "), n - 3),
    }
}
