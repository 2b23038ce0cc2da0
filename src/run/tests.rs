//! Tests of the scheduler's decisions, with an executor that reports at once and computes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use anyhow::Result;
use tempfile::TempDir;

use super::cache_state::CacheState;
use super::protocol::{Event, ProcessEvent, TaskSpec};
use super::resource_pool::ResourcePool;
use super::scheduler::{RunContext, Scheduler};
use super::status::Cause;
use super::{Executor, Machine, OnFailure, Options, Progress, Report, Status, new_record, prepare_forced};
use crate::config::ExecutorKind;
use crate::pipeline::Pipeline;
use crate::runs::{RunRecord, RunState, StageRunState};
use crate::stages::StageEvent;
use crate::store::{Action, Artifact, Cost, Store};

/// What a stage's process does.
#[derive(Clone, Copy)]
enum Behaviour {
    Fail,
    Die,
    /// Dies once.
    DieOnce,
    /// Reports its first input as damaged, once.
    FindDamage,
    /// Runs until it is asked to stop.
    Linger,
    /// Runs out of memory until it divides its batch size by 4.
    RunOut,
}

struct FakeExecutor<'a> {
    store: &'a Store,
    names: Vec<String>,
    reports: Sender<Report>,
    behaviours: BTreeMap<&'static str, Behaviour>,
    /// The names of stages, in the order in which they started.
    started: Vec<String>,
    /// A signal arrives after this stage has started.
    signal_at: Option<&'static str>,
    active: BTreeSet<usize>,
    most_active: usize,
    /// The memory that every stage uses, in bytes.
    memory: u64,
    /// The batch divisor of each start.
    batch_divisors: Vec<usize>,
}

impl FakeExecutor<'_> {
    fn send(&self, stage: usize, event: ProcessEvent) {
        self.reports.send(Report::Event { stage, event: Event::Process(event) }).unwrap();
    }
}

impl Executor for FakeExecutor<'_> {
    fn start(&mut self, stage: usize, spec: &TaskSpec, _log: &Path) -> Result<()> {
        let name = self.names[stage].clone();
        self.started.push(name.clone());
        self.batch_divisors.push(spec.batch_divisor);
        self.active.insert(stage);
        self.most_active = self.most_active.max(self.active.len());
        self.send(stage, ProcessEvent::Started);
        match self.behaviours.get(name.as_str()) {
            Some(Behaviour::Fail) => {
                self.send(stage, ProcessEvent::Failed { error: "it broke".into(), cause: Cause::Failed, damaged: None })
            }
            Some(Behaviour::RunOut) if spec.batch_divisor < 4 => {
                let error = "no room".into();
                self.send(stage, ProcessEvent::Failed { error, cause: Cause::OutOfMemory, damaged: None });
            }
            Some(Behaviour::Die) => {}
            Some(Behaviour::DieOnce) => self.behaviours.retain(|&other, _| other != name),
            Some(Behaviour::FindDamage) => {
                self.behaviours.retain(|&other, _| other != name);
                let damaged = spec.preimage.inputs.values().next().and_then(|blobs| blobs.values().next()).cloned();
                self.send(stage, ProcessEvent::Failed { error: "damaged".into(), cause: Cause::Failed, damaged });
            }
            Some(Behaviour::Linger) => {
                if self.signal_at == Some(name.as_str()) {
                    self.reports.send(Report::Signal).unwrap();
                }
                return Ok(());
            }
            Some(Behaviour::RunOut) | None => {
                // Passes its inputs on, as `degrade` does, and adds outputs that depend only on its parameters.
                let mut outputs = Artifact::new();
                for blob in spec.params.outputs() {
                    let passed_on = spec.preimage.inputs.values().find_map(|blobs| blobs.get(blob));
                    let digest = match passed_on {
                        Some(digest) => digest.clone(),
                        None => self.store.put(format!("{blob} {}", spec.params.complete()).as_bytes())?,
                    };
                    outputs.insert(blob.to_string(), digest);
                }
                let (preimage, metrics) = (spec.preimage.to_value(), BTreeMap::new());
                self.store.commit(&spec.key, &Action { preimage, outputs, metrics, cost: Cost::default() })?;
                self.send(stage, ProcessEvent::Done { adopted: false });
            }
        }
        self.reports.send(Report::Closed { stage }).unwrap();
        Ok(())
    }

    fn stop(&mut self, stage: usize) {
        self.send(stage, ProcessEvent::Interrupted);
        self.reports.send(Report::Closed { stage }).unwrap();
    }

    fn kill(&mut self, stage: usize) {
        self.reports.send(Report::Closed { stage }).unwrap();
    }

    fn memory(&self, _: usize) -> u64 {
        self.memory
    }

    fn exit_cause(&mut self, stage: usize) -> (Cause, String) {
        self.active.remove(&stage);
        (Cause::Lost, "died".into())
    }
}

struct Silent;

impl Progress for Silent {
    fn started(&mut self, _: &RunRecord) {}
    fn stage(&mut self, _: usize, _: &Status) {}
    fn event(&mut self, _: usize, _: &StageEvent) {}
    fn stopping(&mut self, _: super::Stopping) {}
    fn finished(&mut self, _: &RunRecord) {}
}

struct Summary {
    state: RunState,
    stages: BTreeMap<String, StageRunState>,
    errors: Vec<String>,
    started: Vec<String>,
    batch_divisors: Vec<usize>,
    most_active: usize,
}

fn pipeline(stages: &[(&str, &str)]) -> Pipeline {
    let stages: String = stages.iter().map(|(name, yaml)| format!("  {name}: {yaml}\n")).collect();
    let text = format!("name: p\nseed: 0\ndevice: cpu\nstages:\n{stages}");
    crate::pipeline::parse("p.yaml", text, &Default::default())
        .unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

/// Two datasets with separate branches.
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

fn run(store: &Store, pipeline: &Pipeline, behaviours: &[(&'static str, Behaviour)], jobs: usize) -> Summary {
    run_as(store, pipeline, behaviours, jobs, &Setup::default())
}

/// Further options of a run.
#[derive(Default)]
struct Setup {
    signal_at: Option<&'static str>,
    on_failure: OnFailure,
    force: &'static [&'static str],
    cuda: Option<usize>,
}

fn run_as(
    store: &Store,
    pipeline: &Pipeline,
    behaviours: &[(&'static str, Behaviour)],
    jobs: usize,
    setup: &Setup,
) -> Summary {
    let is_forced = |&stage: &usize| setup.force.contains(&pipeline.stages[stage].name.as_str());
    let forced = (0..pipeline.stages.len()).filter(is_forced).collect();
    let prepared = prepare_forced(pipeline, Some(store), forced).unwrap();
    let (exe, command) = ("srpipe".into(), vec![]);
    let options = Options {
        file: None,
        jobs: None,
        on_failure: setup.on_failure,
        remote: None,
        exe,
        command,
        executor: ExecutorKind::Local,
        slurm: Default::default(),
    };
    let record = new_record(pipeline, &prepared, store, &options);
    let run = store.create_run("p", "", &record).unwrap();
    let (sender, reports) = channel();
    let mut fake = FakeExecutor {
        store,
        names: pipeline.stages.iter().map(|stage| stage.name.clone()).collect(),
        reports: sender,
        behaviours: behaviours.iter().copied().collect(),
        started: vec![],
        signal_at: setup.signal_at,
        active: BTreeSet::new(),
        most_active: 0,
        memory: 1_000_000,
        batch_divisors: vec![],
    };
    let context = RunContext {
        plan: &prepared.plan,
        cuda: setup.cuda,
        pool: ResourcePool {
            machine: Some(Machine { cores: jobs, ..Machine::default() }),
            jobs: Some(jobs),
            cuda: None,
        },
        on_failure: setup.on_failure,
        remote: None,
        store,
        run: &run,
    };
    let mut silent = Silent;
    let scheduler = Scheduler::new(context, CacheState::new(&prepared, store), record, &mut fake, &mut silent);
    let record = scheduler.run(&reports, store.guard().unwrap()).unwrap();
    assert_eq!(run.record().unwrap().stages, record.stages, "the record on disk matches the returned one");
    Summary {
        state: record.state,
        errors: record.stages.iter().filter_map(|stage| stage.error.clone()).collect(),
        stages: record.stages.into_iter().map(|stage| (stage.name, stage.state)).collect(),
        started: fake.started,
        batch_divisors: fake.batch_divisors,
        most_active: fake.most_active,
    }
}

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

#[test]
fn every_stage_runs_once_and_is_then_cached() {
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
fn a_failure_skips_only_dependent_stages() {
    for behaviour in [Behaviour::Fail, Behaviour::Die] {
        let (_folder, store) = store();
        let setup = Setup { on_failure: OnFailure::KeepGoing, ..Setup::default() };
        let ran = run_as(&store, &two_branches(), &[("left_pairs", behaviour)], 1, &setup);
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
        assert_eq!(ran.errors, [if let Behaviour::Fail = behaviour { "it broke" } else { "died" }]);
    }
}

#[test]
fn no_more_stages_than_allowed_run_at_the_same_time() {
    for jobs in [1, 2] {
        let (_folder, store) = store();
        assert_eq!(run(&store, &two_branches(), &[], jobs).most_active, jobs);
    }
}

#[test]
fn stages_with_the_same_key_are_computed_once() {
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
fn producers_of_a_damaged_blob_run_again() {
    let (_folder, store) = store();
    let ran = run(&store, &two_branches(), &[("left_model", Behaviour::FindDamage)], 1);
    assert_eq!(ran.state, RunState::Ok, "{:?}", ran.errors);
    let times = |name: &str| ran.started.iter().filter(|started| *started == name).count();
    // `left_pairs` passes on the images of `left`, so both are producers.
    assert_eq!(["left", "left_pairs", "left_model", "right", "right_pairs"].map(times), [2, 2, 2, 1, 1]);
}

#[test]
fn a_signal_lets_stages_save_and_starts_no_others() {
    let (_folder, store) = store();
    let setup = Setup { signal_at: Some("left_pairs"), ..Setup::default() };
    let ran = run_as(&store, &two_branches(), &[("left_pairs", Behaviour::Linger)], 1, &setup);
    assert_eq!(ran.state, RunState::Interrupted);
    assert_eq!(ran.stages["left_pairs"], StageRunState::Interrupted);
    assert_eq!(ran.stages["left_model"], StageRunState::Skipped);
    assert!(!ran.started.contains(&"left_model".to_string()));
}

#[test]
fn after_a_failure_no_other_stage_starts() {
    let (_folder, store) = store();
    let ran = run(&store, &two_branches(), &[("left", Behaviour::Fail)], 1);
    assert_eq!((ran.state, ran.started), (RunState::Failed, vec!["left".to_string()]));
    assert_eq!(ran.stages["right"], StageRunState::Skipped);
}

#[test]
fn a_stage_is_retried_as_often_as_allowed_for_each_cause() {
    let with = |retry: &str| pipeline(&[("one", &format!("{{kind: fetch, dataset: synthetic, retry: {retry}}}"))]);
    for (retry, behaviour, state, starts) in [
        ("{lost: 1}", Behaviour::DieOnce, RunState::Ok, 2),
        ("0", Behaviour::DieOnce, RunState::Failed, 1),
        ("2", Behaviour::Die, RunState::Failed, 3),
        ("{failed: 2}", Behaviour::Die, RunState::Failed, 1),
        ("{failed: 2}", Behaviour::Fail, RunState::Failed, 3),
    ] {
        let (_folder, store) = store();
        let ran = run(&store, &with(retry), &[("one", behaviour)], 1);
        assert_eq!((ran.state, ran.started.len()), (state, starts), "{retry}");
    }
}

#[test]
fn a_network_that_exceeds_gpu_memory_is_retried_with_half_the_images() {
    let stages = |retry: usize| {
        let model = format!("{{kind: train, data: pairs, optim: {{steps: 1}}, retry: {{out_of_memory: {retry}}}}}");
        pipeline(&[
            ("images", "{kind: fetch, dataset: synthetic, train: 1}"),
            ("pairs", "{kind: degrade, input: images}"),
            ("model", &model),
            ("other", "{kind: train, data: pairs, optim: {steps: 2}}"),
        ])
    };
    let gpu = Setup { cuda: Some(0), on_failure: OnFailure::KeepGoing, ..Setup::default() };
    for (retry, setup, state, batch_divisors) in [
        (2, &gpu, RunState::Ok, vec![1, 1, 1, 2, 4, 1]),
        (1, &gpu, RunState::Failed, vec![1, 1, 1, 2, 1]),
        (0, &gpu, RunState::Failed, vec![1, 1, 1, 1]),
        // On the CPU, another batch size would change the bytes of the result.
        (2, &Setup { cuda: None, ..gpu }, RunState::Failed, vec![1, 1, 1, 1, 1, 1]),
    ] {
        let (_folder, store) = store();
        let ran = run_as(&store, &stages(retry), &[("model", Behaviour::RunOut)], 1, setup);
        assert_eq!((ran.state, ran.batch_divisors), (state, batch_divisors), "{retry}");
        assert_eq!(ran.stages["other"], StageRunState::Ran);
    }
}

#[test]
fn stages_that_exceed_their_resources_are_stopped() {
    let with = |resources: &str| {
        pipeline(&[(
            "one",
            &format!("{{kind: fetch, dataset: synthetic, resources: {{{resources}}}, retry: {{time: 1}}}}"),
        )])
    };
    let (_folder, store) = store();
    let ran = run(&store, &with("memory: 900 kB"), &[("one", Behaviour::Linger)], 1);
    assert_eq!((ran.state, ran.started.len()), (RunState::Failed, 1));
    assert_eq!(ran.errors, ["it used 1 MB of memory, more than its limit of 1 MB (`resources.memory`)"]);
    let ran = run(&store, &with("time: 0.05 s, memory: 2 MB"), &[("one", Behaviour::Linger)], 1);
    assert_eq!((ran.state, ran.started.len()), (RunState::Failed, 2));
    assert_eq!(ran.errors, ["it exceeded its time limit of 0.05 s (`resources.time`)"]);
}

#[test]
fn stages_after_a_forced_stage_stay_cached_if_its_outputs_are_the_same() {
    let (_folder, store) = store();
    run(&store, &two_branches(), &[], 1);
    let setup = Setup { force: &["left_pairs", "right_model"], ..Setup::default() };
    let ran = run_as(&store, &two_branches(), &[], 1, &setup);
    assert_eq!((ran.state, ran.started), (RunState::Ok, vec!["left_pairs".into(), "right_model".into()]));
    assert_eq!(ran.stages["left_pairs"], StageRunState::Ran);
    assert_eq!(ran.stages["left_model"], StageRunState::Cached);
    // If it fails, the earlier result stays cached.
    let failed = run_as(&store, &two_branches(), &[("left_pairs", Behaviour::Fail)], 1, &setup);
    assert_eq!(failed.state, RunState::Failed);
    assert_eq!(run(&store, &two_branches(), &[], 1).started.len(), 0);
}
