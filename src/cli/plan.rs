//! The command `srpipe plan`: what would run, in which order, why, and for how long.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::PlanArgs;
use super::explanations::Explained;
use super::groups::{Group, groups};
use super::layout::Table;
use super::output::{self, Look, Paint, print};
use super::{EXIT_DONE, cluster, load, power};
use crate::config::ModelParams;
use crate::config::StageParams;
use crate::format;

use crate::model::ModelCost;
use crate::pipeline::Pipeline;
use crate::plan::StageState;
use crate::run::prepare_forced;
use crate::store::Store;
use crate::train::training_cost;

pub(super) fn plan(args: &PlanArgs, runs: &Path) -> Result<u8> {
    let store = Store::open_existing(runs);
    let mut pipeline = load(&args.file, &args.flags)?;
    let forced = args.chosen.apply(&mut pipeline)?;
    cluster::executor(args.chosen.executor, &mut pipeline)?;
    let prepared = prepare_forced(&pipeline, store.as_ref(), forced)?;
    let explained = Explained::new(&pipeline, &prepared, store.as_ref());
    print(&match args.power {
        true => power::show(&explained, store.as_ref(), args.json),
        false => show(&explained, args.json, args.all),
    });
    Ok(EXIT_DONE)
}

/// Returns the plan as JSON, or as a table with a summary line.
pub(super) fn show(explained: &Explained, as_json: bool, all: bool) -> String {
    let costs = Costs::new(explained.pipeline);
    match as_json {
        true => output::json(&to_json(explained, costs)),
        false => to_table(explained, costs, all),
    }
}

/// The costs of the networks, each computed once and on demand: a sweep can have thousands of networks.
struct Costs<'a> {
    pipeline: &'a Pipeline,
    computed: HashMap<Network<'a>, Option<ModelCost>>,
}

/// A model and the stage whose images it is trained on.
type Network<'a> = (&'a ModelParams, &'a str);

impl<'a> Costs<'a> {
    fn new(pipeline: &'a Pipeline) -> Self {
        Self { pipeline, computed: HashMap::new() }
    }

    /// Returns the cost of a stage's network; None if it does not train one.
    fn get(&mut self, stage: usize) -> Option<&ModelCost> {
        let StageParams::Train(params) = &self.pipeline.stages[stage].params else { return None };
        let cost = self.computed.entry((&params.model, &params.data));
        cost.or_insert_with(|| training_cost(self.pipeline, params)).as_ref()
    }

    /// Returns the cost of the network that several stages have in common; None if their networks differ.
    fn get_common(&mut self, stages: Range<usize>) -> Option<&ModelCost> {
        let network = |stage: usize| match &self.pipeline.stages[stage].params {
            StageParams::Train(params) => Some((&params.model, &params.data)),
            _ => None,
        };
        let first = network(stages.start);
        if stages.clone().all(|stage| network(stage) == first) { self.get(stages.start) } else { None }
    }
}

fn to_json(explained: &Explained, mut costs: Costs) -> Value {
    let stages = (0..explained.plan().stages.len()).map(|stage| {
        let mut value = explained.json(stage);
        if explained.plan().stages[stage].params.runs_network() {
            value["same_bytes"] = explained.prepared.backend().is_exact().into();
        }
        if let Some(cost) = costs.get(stage) {
            value["network"] = json!(cost);
        }
        value
    });
    let summary = Summary::of(explained);
    json!({
        "schema": 1, "pipeline": explained.pipeline.name, "stages": stages.collect::<Vec<_>>(),
        "summary": {
            "instances": summary.instances, "shared": summary.shared, "cached": summary.cached,
            "to_run": summary.to_run, "seconds": summary.seconds, "without_estimate": summary.without_estimate,
        },
    })
}

fn to_table(explained: &Explained, mut costs: Costs, all: bool) -> String {
    let plan = explained.plan();
    let mut table = Table::new(&["stage", "kind", "parameters", "MFLOPs", "action", "time", "reason"]);
    for Group { name, members } in groups(plan.stages.iter().map(|stage| stage.name.as_str()), all) {
        let first = members.start;
        let cached = members.clone().filter(|&stage| explained.is_cached(stage)).count();
        let is_waiting = members.clone().any(|stage| matches!(explained.state(stage), StageState::Waiting { .. }));
        let (look, action) = match members.len() {
            1 if cached == 1 => (Look::Dim, "cached".to_string()),
            1 if is_waiting => (Look::Attention, "run".to_string()),
            1 => (Look::Good, "run".to_string()),
            n if cached == n => (Look::Dim, format!("{n} cached")),
            n if cached == 0 => (Look::Attention, format!("{n} run")),
            n => (Look::Attention, format!("{} run, {cached} cached", n - cached)),
        };
        let seconds = |stage: usize| explained.explanations[stage].seconds.filter(|_| !explained.is_cached(stage));
        let time: Option<f64> = members.clone().filter_map(seconds).reduce(|a, b| a + b);
        // A group shows why the first instance that is not cached runs.
        let shown = members.clone().find(|&stage| !explained.is_cached(stage)).unwrap_or(first);
        let reason = match members.len() {
            1 => explained.reason(shown),
            _ if shown == first && explained.is_cached(shown) => explained.reason(shown),
            _ => format!("{}: {}", plan.stages[shown].name, explained.reason(shown)),
        };
        let plain = |text: String| (Look::Plain, text);
        // A group with different networks shows no cost.
        let cost = costs.get_common(members.clone());
        table.row(vec![
            plain(name),
            plain(plan.stages[first].kind.name().to_string()),
            plain(cost.map_or(String::new(), |cost| cost.parameters.to_string())),
            plain(cost.map_or(String::new(), |cost| format!("{:.1}", cost.training_flops as f64 / 1e6))),
            (look, action),
            plain(time.map_or(String::new(), |seconds| format!("about {}", format::estimate(seconds)))),
            plain(reason),
        ]);
    }
    let on_gpu = |stage: usize| plan.stages[stage].params.runs_network() && !explained.is_cached(stage);
    let rounding = match explained.prepared.backend().is_exact() || !(0..plan.stages.len()).any(on_gpu) {
        true => "",
        false => {
            "Networks run on a GPU, where the order of sums varies: a rerun agrees within rounding, not bit for bit.\n"
        }
    };
    format!("{}\n{}\n{rounding}", table.render(Paint::stdout()), Summary::of(explained).line())
}

/// The totals of a plan.
struct Summary {
    /// The number of instances of swept stages.
    instances: usize,
    /// The number of other stages, which all instances of a sweep share.
    shared: usize,
    cached: usize,
    to_run: usize,
    /// The estimated time of all stages that would run and have an estimate.
    seconds: f64,
    /// The number of stages that would run and have no estimate, because no similar stage has run.
    without_estimate: usize,
}

impl Summary {
    fn of(explained: &Explained) -> Self {
        let stages = &explained.plan().stages;
        let to_run: Vec<usize> = (0..stages.len()).filter(|&stage| !explained.is_cached(stage)).collect();
        let estimates: Vec<Option<f64>> = to_run.iter().map(|&stage| explained.explanations[stage].seconds).collect();
        let instances = stages.iter().filter(|stage| stage.is_swept).count();
        Self {
            instances,
            shared: stages.len() - instances,
            cached: stages.len() - to_run.len(),
            to_run: to_run.len(),
            seconds: estimates.iter().flatten().sum(),
            without_estimate: estimates.iter().filter(|seconds| seconds.is_none()).count(),
        }
    }

    /// Returns the summary line, such as "24 instances, 2 shared, 5 cached, about 41 min".
    fn line(&self) -> String {
        let mut parts = match self.instances {
            0 => vec![format::count(self.shared, "stage")],
            n => vec![format::count(n, "instance"), format!("{} shared", self.shared)],
        };
        parts.push(format!("{} cached", self.cached));
        parts.push(match (self.to_run, self.without_estimate) {
            (0, _) => "nothing to run".to_string(),
            (_, 0) => format!("about {}", format::estimate(self.seconds)),
            (n, without_estimate) if n == without_estimate => {
                "no time estimate: no similar stage has run before".to_string()
            }
            (_, without_estimate) => format!(
                "about {}, plus {} without an estimate",
                format::estimate(self.seconds),
                format::count(without_estimate, "stage")
            ),
        });
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::prepare;

    #[test]
    fn plans_for_a_gpu_do_not_promise_bit_identical_results() {
        let text = "name: p\nseed: 0\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic, train: 1}\n  \
                    pairs: {kind: degrade, input: images}\n  model: {kind: train, data: pairs, optim: {steps: 1}}\n";
        let pipeline = crate::pipeline::parse("p.yaml", text, &Default::default()).ok().unwrap();
        let mut prepared = prepare(&pipeline, None).unwrap();
        for (cuda, exact) in [(None, true), (Some(0), false)] {
            prepared.cuda = cuda;
            let explained = Explained::new(&pipeline, &prepared, None);
            assert_eq!(show(&explained, false, false).contains("not bit for bit"), !exact);
            let json: Value = serde_json::from_str(&show(&explained, true, false)).unwrap();
            assert_eq!(json["stages"][2]["same_bytes"], exact);
            assert_eq!(json["stages"][0]["same_bytes"], Value::Null);
        }
    }
}
