//! Collects the data of a run's report from its folder and the store. Skips anything that cannot be read, so that
//! reports of failed runs and of runs by other versions show what is available.

mod arms;
mod attention;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use jiff::Timestamp;

use self::arms::RunData;
use crate::comparison::{Summary, looks};
use crate::config::names::base;
use crate::config::{Arm, ArmRun, CompareParams, EvaluationSplit};
use crate::config::{StageParams, blobs, redact};
use crate::format;
use crate::format::command_line;
use crate::pipeline::{self, Flags, Pipeline};
use crate::plan::Preimage;
use crate::report::html::{Badge, Comparison, Failure, Node, Report, Stage, Tone, Training};
use crate::runs::{RunDir, RunRecord, RunView, StageRecord, StageRunState, ViewState};
use crate::store::files::read_tail;
use crate::store::{Action, Digest, Store};
use crate::train::fix_steps;

/// The maximum number of stages to list.
const MOST_STAGES: usize = 500;

/// The number of test images if no comparison defines it.
const ROWS: usize = 8;

/// The maximum number of log lines of a failed stage.
const LOG_LINES: usize = 20;
/// The number of bytes at the end of a log to search for these lines.
const LOG_BYTES: u64 = 64 << 10;

/// Collects the data of an existing run.
pub fn collect(store: &Store, run: &RunDir) -> Result<Report> {
    let record = run.record()?;
    for stage in &record.stages {
        if let Some(problem) = stage.key.as_ref().and_then(|key| store.problem(key)) {
            store.warn(format!("the result of {} is damaged: {problem}", stage.name));
        }
    }
    let state = RunView::of(run).map_or(ViewState::Died, |view| view.state);
    let yaml = run.resolved().unwrap_or_default();
    let pipeline = pipeline::parse("pipeline.yaml", &yaml, &Flags::default()).ok().map(|mut pipeline| {
        fix_steps(&mut pipeline);
        pipeline
    });
    let mut report = Report {
        pipeline: record.pipeline.clone(),
        state: run_state(state),
        facts: facts(&record),
        failures: record.stages.iter().filter_map(|stage| failure(store, stage)).collect(),
        stages: record.stages.iter().take(MOST_STAGES).map(stage).collect(),
        more_stages: record.stages.len().saturating_sub(MOST_STAGES),
        nodes: nodes(&record, pipeline.as_ref()),
        provenance: provenance(store, &record, pipeline.as_ref()),
        command: broken(&command_line(&record.command)),
        yaml: String::from_utf8_lossy(&yaml).into_owned(),
        ..Report::default()
    };
    let Some(pipeline) = &pipeline else { return Ok(report) };
    report.description = pipeline.description.clone();
    let data = RunData { store, record: &record, pipeline };
    for stage in &pipeline.stages {
        let StageParams::Compare(params) = &stage.params else { continue };
        if !record.stages.iter().any(|record| record.name == stage.name) {
            continue;
        }
        let action = data.action(&stage.name);
        let read = |blob: &str| store.read(action.as_ref()?.outputs.get(blob)?).ok();
        let summary = read(blobs::SUMMARY).and_then(|bytes| Summary::from_json(&bytes).ok());
        let inputs = action.as_ref().and_then(Preimage::of).map(|preimage| preimage.inputs).unwrap_or_default();
        let claims = summary.as_ref().map(|summary| summary.claims.as_slice()).unwrap_or_default();
        report.comparisons.push(Comparison {
            name: stage.name.clone(),
            is_of_samples: false,
            selected: data.selected(params),
            split: split(&params.arms),
            exploratory: looks::exploratory(claims, &inputs, &record.earlier_looks),
            summary,
            metrics: read(blobs::METRICS),
            arms: params.arms.iter().map(|(name, arm)| data.arm(name, arm)).collect(),
            pictures: data.pictures(params),
            attention: attention::of_arms(&data, params),
            paired: data.paired(params),
        });
        let shown: BTreeSet<String> = report.trainings.iter().map(|t| t.curve.name.clone()).collect();
        report.trainings.extend(data.trainings(params).into_iter().filter(|t| !shown.contains(&t.curve.name)));
    }
    if report.comparisons.is_empty() {
        report.trainings = alone(&data);
        report.comparisons.extend(samples(&data));
    }
    Ok(report)
}

/// Returns the split that the arms of a comparison sample.
fn split(arms: &BTreeMap<String, Arm>) -> EvaluationSplit {
    arms.values().flat_map(|arm| &arm.runs).map(|run| run.split).next().unwrap_or_default()
}

/// Returns all samples of a pipeline without a comparison, side by side if they are of the same images.
fn samples(data: &RunData) -> Vec<Comparison> {
    let mut groups: BTreeMap<Vec<Digest>, (String, BTreeMap<String, Arm>)> = BTreeMap::new();
    for stage in &data.pipeline.stages {
        let StageParams::Sample(params) = &stage.params else { continue };
        let Some(outputs) = data.action(&stage.name).map(|action| action.outputs) else { continue };
        let images = params.split.blobs().iter().filter_map(|blob| outputs.get(*blob).cloned()).collect();
        let runs = vec![ArmRun { split: params.split, ..ArmRun::new(None, &stage.name) }];
        let arm = Arm { of: stage.name.clone(), axes: vec![], runs };
        let (_, arms) = groups.entry(images).or_insert_with(|| (params.data.clone(), BTreeMap::new()));
        arms.insert(stage.name.clone(), arm);
    }
    let comparison = |(name, arms): (String, BTreeMap<String, Arm>)| {
        let params = CompareParams {
            arms,
            claims: BTreeMap::new(),
            family: None,
            seeds: None,
            control: None,
            claims_in_family: 0,
            has_other_families: false,
            rows: ROWS,
        };
        Comparison {
            name,
            is_of_samples: true,
            split: split(&params.arms),
            arms: params.arms.iter().map(|(name, arm)| data.arm(name, arm)).collect(),
            pictures: data.pictures(&params),
            attention: attention::of_arms(data, &params),
            ..Comparison::default()
        }
    };
    groups.into_values().map(comparison).collect()
}

/// Returns the training runs of a pipeline without a comparison, each with its own curve.
fn alone(data: &RunData) -> Vec<Training> {
    let stages = data.pipeline.stages.iter().filter(|stage| matches!(stage.params, StageParams::Train(_)));
    stages.enumerate().filter_map(|(i, stage)| data.training_of(&stage.name, i, &[&stage.name])).collect()
}

fn run_state(state: ViewState) -> Badge {
    let (tone, word) = match state {
        ViewState::Ok => (Tone::Good, "done"),
        ViewState::Running | ViewState::Unwatched | ViewState::Interrupted => (Tone::Attention, state.label()),
        ViewState::Failed | ViewState::Died => (Tone::Bad, state.label()),
    };
    Badge { word: word.to_string(), tone }
}

fn stage_state(state: StageRunState) -> Badge {
    let tone = match state {
        StageRunState::Pending | StageRunState::Skipped => Tone::Plain,
        StageRunState::Ran | StageRunState::Cached => Tone::Good,
        StageRunState::Running | StageRunState::Interrupted => Tone::Attention,
        StageRunState::Failed => Tone::Bad,
    };
    Badge { word: state.name().to_string(), tone }
}

fn facts(record: &RunRecord) -> Vec<String> {
    let stages = format::count(record.stages.len(), "stage");
    let mut facts = vec![format!("run {}", record.id), moment(&record.started_at)];
    facts.extend(record.seconds.map(|seconds| format!("took {}", format::duration(seconds))));
    facts.push(format!("{stages}: {}", record.state_counts()));
    facts
}

/// Puts each flag on its own line.
fn broken(command: &str) -> String {
    command.replace(" --", " \\\n    --")
}

/// Formats a time to the minute, in UTC because readers may be in other time zones.
fn moment(time: &str) -> String {
    time.parse::<Timestamp>().map_or(time.to_string(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

fn failure(store: &Store, stage: &StageRecord) -> Option<Failure> {
    let is_bad = stage.state == StageRunState::Failed;
    let error = stage.error.clone().filter(|_| is_bad)?;
    let log = stage.key.as_ref().and_then(|key| read_tail(&store.log_path(key), LOG_BYTES)).unwrap_or_default();
    let log = format::last_lines(&redact(&log), LOG_LINES).join("\n");
    Some(Failure { stage: stage.name.clone(), error, log })
}

fn stage(stage: &StageRecord) -> Stage {
    Stage {
        name: stage.name.clone(),
        kind: stage.kind.name(),
        state: stage_state(stage.state),
        time: stage.seconds.map(format::duration).unwrap_or_default(),
        key: stage.key.as_ref().map(|key| key.to_string()).unwrap_or_default(),
    }
}

/// Returns the graph of the stages in file order, with the instances of a stage combined.
fn nodes(record: &RunRecord, pipeline: Option<&Pipeline>) -> Vec<Node> {
    let mut nodes: Vec<Node> = vec![];
    let mut members: Vec<Vec<&StageRecord>> = vec![];
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for stage in &record.stages {
        let name = base(&stage.name);
        let at = *index.entry(name).or_insert_with(|| {
            nodes.push(Node { name: name.to_string(), kind: stage.kind.name(), ..Node::default() });
            members.push(vec![]);
            nodes.len() - 1
        });
        members[at].push(stage);
        let inputs = pipeline.and_then(|p| p.stage(&stage.name)).map(|stage| stage.params.inputs()).unwrap_or_default();
        let reads = inputs.iter().filter_map(|input| index.get(base(&input.stage)).copied()).filter(|&read| read < at);
        let reads: Vec<usize> = reads.collect();
        nodes[at].reads.extend(reads);
        nodes[at].reads.sort_unstable();
        nodes[at].reads.dedup();
    }
    for (node, members) in nodes.iter_mut().zip(members) {
        node.count = members.len();
        let worst = members.iter().map(|stage| stage.state).max_by_key(|state| concern(*state));
        node.state = worst.map(stage_state).unwrap_or_default();
        let seconds: f64 = members.iter().filter_map(|stage| stage.seconds).sum();
        node.time = if seconds > 0.0 { format::duration(seconds) } else { String::new() };
    }
    nodes
}

/// Returns the rank of a state: several instances together have the state with the highest rank.
fn concern(state: StageRunState) -> u8 {
    match state {
        StageRunState::Cached => 0,
        StageRunState::Ran => 1,
        StageRunState::Pending => 2,
        StageRunState::Skipped => 3,
        StageRunState::Running => 4,
        StageRunState::Interrupted => 5,
        StageRunState::Failed => 6,
    }
}

fn provenance(store: &Store, record: &RunRecord, pipeline: Option<&Pipeline>) -> Vec<(String, String)> {
    let actions: Vec<Action> =
        record.stages.iter().filter_map(|stage| stage.key.as_ref()).filter_map(|key| store.action(key).ok()?).collect();
    let distinct = |of: &dyn Fn(&Action) -> Option<String>| -> Option<String> {
        let all: BTreeSet<String> = actions.iter().filter_map(of).filter(|text| !text.is_empty()).collect();
        (!all.is_empty()).then(|| all.into_iter().collect::<Vec<_>>().join(", "))
    };
    let backend = |action: &Action| {
        let backend = serde_json::to_value(Preimage::of(action)?.backend?).ok()?;
        backend.as_str().map(str::to_string)
    };
    let seeds = distinct(&|action| Some(Preimage::of(action)?.seed?.to_string()));
    let sources = actions.iter().filter_map(Preimage::of).flat_map(|preimage| preimage.sources);
    let sources: BTreeSet<String> = sources.map(|(role, digest)| format!("{role} sha256:{digest}")).collect();
    let finished = record.finished_at.as_deref().map(moment);
    let file = record.file.as_ref().map(|file| file.display().to_string());
    let machine = record.machine.as_ref();
    let facts = [
        ("run", Some(record.id.clone())),
        ("pipeline file", file),
        ("started", Some(moment(&record.started_at))),
        ("finished", finished),
        ("srpipe", Some(record.srpipe_version.clone())),
        (
            "computed by srpipe",
            distinct(&|action| Some(action.cost.srpipe_version.clone())).filter(|v| *v != record.srpipe_version),
        ),
        ("machine", machine.map(ToString::to_string)),
        (
            "computed on",
            distinct(&|action| Some(action.cost.host.clone()))
                .filter(|host| machine.is_none_or(|machine| machine.host != *host)),
        ),
        ("network backend", distinct(&backend)),
        ("pipeline seed", pipeline.map(|pipeline| pipeline.seed.to_string())),
        ("seeds", seeds),
        ("external content", (!sources.is_empty()).then(|| sources.into_iter().collect::<Vec<_>>().join(", "))),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))).collect()
}
