//! The scheduler's decisions, with an executor that answers at once and computes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use anyhow::Result;
use tempfile::TempDir;

use super::scheduler::{Executor, Job, Progress, Report, Scheduler};
use super::slots::Slots;
use super::wire::{Event, Order, ProcessEvent};
use super::{Options, Prepared, Status, new_record};
use crate::pipeline::Pipeline;
use crate::stages::StageEvent;
use crate::store::{Action, Artifact, Cost, RunRecord, RunState, StageRunState, Store};

/// What a stage's process is made to do.
#[derive(Clone, Copy)]
enum Act {
    Fail,
    Die,
    /// Finds the blob that it read first damaged, once.
    FindDamage,
    /// Works until it is asked to stop.
    Linger,
}

struct Fake<'a> {
    store: &'a Store,
    names: Vec<String>,
    reports: Sender<Report>,
    acts: BTreeMap<&'static str, Act>,
    /// Stages as they were started.
    started: Vec<String>,
    /// A signal comes when this stage has started.
    signal_at: Option<&'static str>,
    active: BTreeSet<usize>,
    most_active: usize,
}

impl Fake<'_> {
    fn say(&self, stage: usize, event: ProcessEvent) {
        self.reports.send(Report::Event { stage, event: Event::Process(event) }).unwrap();
    }
}

impl Executor for Fake<'_> {
    fn start(&mut self, stage: usize, order: &Order, _log: &Path) -> Result<()> {
        let name = self.names[stage].clone();
        self.started.push(name.clone());
        self.active.insert(stage);
        self.most_active = self.most_active.max(self.active.len());
        self.say(stage, ProcessEvent::Started);
        match self.acts.get(name.as_str()) {
            Some(Act::Fail) => self.say(stage, ProcessEvent::Failed { error: "it broke".into(), damaged: None }),
            Some(Act::Die) => {}
            Some(Act::FindDamage) => {
                self.acts.retain(|&other, _| other != name);
                let damaged = order.preimage.inputs.values().next().and_then(|blobs| blobs.values().next()).cloned();
                self.say(stage, ProcessEvent::Failed { error: "damaged".into(), damaged });
            }
            Some(Act::Linger) => {
                if self.signal_at == Some(name.as_str()) {
                    self.reports.send(Report::Signal).unwrap();
                }
                return Ok(());
            }
            None => {
                // Passes its inputs on, as `degrade` does, and adds what depends on its parameters alone.
                let mut outputs = Artifact::new();
                for blobs in order.preimage.inputs.values() {
                    outputs.extend(blobs.clone());
                }
                let blobs = ["train_hr", "train_lr", "validation_hr", "validation_lr", "test_hr", "test_lr"];
                for blob in blobs.map(|blob| format!("{blob}.safetensors")) {
                    let digest = self.store.put(format!("{blob} {}", order.params.complete()).as_bytes())?;
                    outputs.entry(blob).or_insert(digest);
                }
                let (preimage, metrics) = (order.preimage.to_value(), BTreeMap::new());
                self.store.commit(&order.key, &Action { preimage, outputs, metrics, cost: Cost::default() })?;
                self.say(stage, ProcessEvent::Done { adopted: false });
            }
        }
        self.reports.send(Report::Closed { stage }).unwrap();
        Ok(())
    }

    fn stop(&mut self, stage: usize) {
        self.say(stage, ProcessEvent::Interrupted);
        self.reports.send(Report::Closed { stage }).unwrap();
    }

    fn kill(&mut self, stage: usize) {
        self.reports.send(Report::Closed { stage }).unwrap();
    }

    fn ended(&mut self, stage: usize) -> String {
        self.active.remove(&stage);
        "died".into()
    }
}

struct Silent;

impl Progress for Silent {
    fn started(&mut self, _: &RunRecord) {}
    fn stage(&mut self, _: usize, _: &Status) {}
    fn event(&mut self, _: usize, _: &StageEvent) {}
    fn stopping(&mut self) {}
    fn finished(&mut self, _: &RunRecord) {}
}

struct Ran {
    state: RunState,
    stages: BTreeMap<String, StageRunState>,
    errors: Vec<String>,
    started: Vec<String>,
    most_active: usize,
}

fn pipeline(stages: &[(&str, &str)]) -> Pipeline {
    let stages: String = stages.iter().map(|(name, yaml)| format!("  {name}: {yaml}\n")).collect();
    let text = format!("name: p\nseed: 0\ndevice: cpu\nstages:\n{stages}");
    crate::pipeline::parse("p.yaml", text, &Default::default())
        .unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

/// Two datasets degraded apart.
fn two_branches() -> Pipeline {
    pipeline(&[
        ("left", "{kind: fetch, dataset: synthetic, train: 1}"),
        ("right", "{kind: fetch, dataset: synthetic, train: 2}"),
        ("left_pairs", "{kind: degrade, input: left}"),
        ("right_pairs", "{kind: degrade, input: right}"),
        ("left_model", "{kind: train, data: left_pairs, optim: {steps: 1}}"),
        ("right_model", "{kind: train, data: right_pairs, optim: {steps: 1}}"),
    ])
}

fn run(store: &Store, pipeline: &Pipeline, acts: &[(&'static str, Act)], jobs: usize) -> Ran {
    run_with_signal(store, pipeline, acts, jobs, None)
}

fn run_with_signal(
    store: &Store,
    pipeline: &Pipeline,
    acts: &[(&'static str, Act)],
    jobs: usize,
    signal_at: Option<&'static str>,
) -> Ran {
    let prepared = Prepared::new(pipeline, Some(store)).unwrap();
    let options = Options { file: None, jobs: None, exe: "srpipe".into(), command: vec![] };
    let record = new_record(pipeline, &prepared, &options);
    let run = store.create_run("p", "", &record).unwrap();
    let (sender, reports) = channel();
    let mut fake = Fake {
        store,
        names: pipeline.stages.iter().map(|stage| stage.name.clone()).collect(),
        reports: sender,
        acts: acts.iter().copied().collect(),
        started: vec![],
        signal_at,
        active: BTreeSet::new(),
        most_active: 0,
    };
    let job = Job {
        plan: &prepared.plan,
        sources: &prepared.sources,
        backend: prepared.backend(),
        cuda: None,
        slots: Slots { cores: jobs, jobs: Some(jobs), cuda: false },
        store,
        run: &run,
    };
    let record = Scheduler::new(job, prepared.states.clone(), record, &mut fake, &mut Silent).run(&reports).unwrap();
    assert_eq!(run.record().unwrap().stages, record.stages, "what is on disk is what was returned");
    Ran {
        state: record.state,
        errors: record.stages.iter().filter_map(|stage| stage.error.clone()).collect(),
        stages: record.stages.into_iter().map(|stage| (stage.name, stage.state)).collect(),
        started: fake.started,
        most_active: fake.most_active,
    }
}

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

#[test]
fn every_stage_runs_once_and_then_never() {
    let (_folder, store) = store();
    let first = run(&store, &two_branches(), &[], 4);
    assert_eq!(first.state, RunState::Ok);
    assert!(first.stages.values().all(|&state| state == StageRunState::Ran));
    assert_eq!(first.started.len(), 6);
    let second = run(&store, &two_branches(), &[], 4);
    assert_eq!((second.state, second.started.len()), (RunState::Ok, 0));
    assert!(second.stages.values().all(|&state| state == StageRunState::Cached));
}

#[test]
fn a_failure_skips_what_needs_it_and_nothing_else() {
    for act in [Act::Fail, Act::Die] {
        let (_folder, store) = store();
        let ran = run(&store, &two_branches(), &[("left_pairs", act)], 1);
        assert_eq!(ran.state, RunState::Failed);
        let expected = [
            ("left", StageRunState::Ran),
            ("left_pairs", StageRunState::Failed),
            ("left_model", StageRunState::Skipped),
            ("right", StageRunState::Ran),
            ("right_pairs", StageRunState::Ran),
            ("right_model", StageRunState::Ran),
        ];
        assert_eq!(ran.stages, expected.map(|(name, state)| (name.to_string(), state)).into());
        assert_eq!(ran.errors, [if let Act::Fail = act { "it broke" } else { "died" }]);
    }
}

#[test]
fn no_more_stages_run_at_once_than_there_are_places() {
    for jobs in [1, 2] {
        let (_folder, store) = store();
        assert_eq!(run(&store, &two_branches(), &[], jobs).most_active, jobs);
    }
}

#[test]
fn stages_of_one_key_are_computed_once() {
    let (_folder, store) = store();
    let twins = pipeline(&[
        ("one", "{kind: fetch, dataset: synthetic, train: 1}"),
        ("two", "{kind: fetch, dataset: synthetic, train: 1}"),
    ]);
    let ran = run(&store, &twins, &[], 4);
    assert_eq!(ran.started, ["one"]);
    assert_eq!((ran.state, ran.stages["two"]), (RunState::Ok, StageRunState::Cached));
}

#[test]
fn what_made_a_damaged_blob_runs_again() {
    let (_folder, store) = store();
    let ran = run(&store, &two_branches(), &[("left_model", Act::FindDamage)], 1);
    assert_eq!(ran.state, RunState::Ok, "{:?}", ran.errors);
    let times = |name: &str| ran.started.iter().filter(|started| *started == name).count();
    // The images of `left` are handed on by `left_pairs`, so both claim to have made them.
    assert_eq!(["left", "left_pairs", "left_model", "right", "right_pairs"].map(times), [2, 2, 2, 1, 1]);
}

#[test]
fn a_signal_lets_stages_save_and_starts_no_more() {
    let (_folder, store) = store();
    let ran = run_with_signal(&store, &two_branches(), &[("left_pairs", Act::Linger)], 1, Some("left_pairs"));
    assert_eq!(ran.state, RunState::Interrupted);
    assert_eq!(ran.stages["left_pairs"], StageRunState::Interrupted);
    assert_eq!(ran.stages["left_model"], StageRunState::Skipped);
    assert!(!ran.started.contains(&"left_model".to_string()));
}
