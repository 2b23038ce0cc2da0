//! `srpipe plan --power`: how many seeds each claim needs, and how long they take to train.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::explanations::Explained;
use super::layout::Table;
use super::output::{self, Look, Paint};
use super::results;
use crate::comparison::{BICUBIC, ClaimAnswer, Summary};
use crate::config::claims::Claim;
use crate::config::metrics::Metric;
use crate::config::{CompareParams, StageParams};
use crate::format;
use crate::plan::Plan;
use crate::stats::{self, Family, SeedsNeeded};
use crate::store::{Key, Store};

/// Returns the seeds and the time that each claim of the pipeline needs, as JSON or as a table.
pub(super) fn show(explained: &Explained, store: Option<&Store>, as_json: bool) -> String {
    let needs = needs(explained, store);
    match as_json {
        true => output::json(&to_json(&explained.pipeline.name, &needs)),
        false => to_text(&needs),
    }
}

/// The seeds and the time that a claim needs.
struct Need {
    stage: String,
    claim: String,
    endpoint: Metric,
    margin: f64,
    /// The number of seeds of the pilot study, which is the latest run's answer to the same question; `None` without
    /// one.
    pilot: Option<usize>,
    /// The number of seeds for a power of 80 %; `None` if the pilot study has fewer than two seeds.
    seeds: Option<SeedsNeeded>,
    /// The measured seconds to train and sample both arms with one seed.
    seconds_per_seed: Option<f64>,
}

impl Need {
    /// Returns the seconds for the missing seeds.
    fn seconds(&self) -> Option<f64> {
        let Some(SeedsNeeded::Seeds(seeds)) = self.seeds else { return None };
        Some(self.seconds_per_seed? * seeds.saturating_sub(self.pilot?) as f64)
    }
}

fn needs(explained: &Explained, store: Option<&Store>) -> Vec<Need> {
    let plan = explained.plan();
    let seconds = |stage: usize| -> Option<f64> {
        let key = explained.latest_key(&plan.stages[stage].name)?;
        Some(store?.action(key).ok()??.cost.seconds)
    };
    let comparisons = plan.stages.iter().filter_map(|stage| match &stage.params {
        StageParams::Compare(params) => Some((stage.name.as_str(), params)),
        _ => None,
    });
    let of_comparison = |(stage, params): (&str, &CompareParams)| -> Vec<Need> {
        let answers: Vec<ClaimAnswer> =
            explained.latest_key(stage).and_then(|key| answers(store?, key)).unwrap_or_default();
        let need = |(name, claim): (&String, &Claim)| {
            let endpoint = claim.endpoint(name)?;
            let pilot = answers.iter().find(|answer| is_same_question(answer, claim, endpoint));
            let margin = claim.margin.unwrap_or(endpoint.default_margin());
            Some(Need {
                stage: stage.to_string(),
                claim: name.clone(),
                endpoint,
                margin,
                pilot: pilot.map(|pilot| pilot.n),
                seeds: pilot.and_then(|pilot| seeds_of(params, margin, pilot)),
                seconds_per_seed: seconds_per_seed(plan, params, [&claim.arm, &claim.control], &seconds),
            })
        };
        params.claims.iter().filter_map(need).collect()
    };
    comparisons.flat_map(of_comparison).collect()
}

/// Whether an answer of an earlier run is about the same arms and endpoint; margin, family and plan may differ.
fn is_same_question(answer: &ClaimAnswer, claim: &Claim, endpoint: Metric) -> bool {
    answer.arm == claim.arm && answer.control == claim.control && answer.endpoint == endpoint
}

/// Returns the number of seeds for a power of 80 % with the margin, family and plan of the file, if differences vary as
/// in the pilot study.
fn seeds_of(params: &CompareParams, margin: f64, pilot: &ClaimAnswer) -> Option<SeedsNeeded> {
    let family = Family { claims: params.claims_in_family, alpha: stats::ALPHA };
    Some(stats::seeds_for(pilot.variation?, margin, family, params.seeds.map_or(1, |plan| plan.looks)))
}

fn answers(store: &Store, compare: &Key) -> Option<Vec<ClaimAnswer>> {
    let summary: Summary = serde_json::from_value(results::summary(store, compare)?).ok()?;
    Some(summary.claims)
}

/// Returns the mean seconds per seed of the stages that each further seed of the arms needs: those that are not common
/// to all runs.
fn seconds_per_seed(
    plan: &Plan,
    params: &CompareParams,
    arms: [&String; 2],
    seconds: &dyn Fn(usize) -> Option<f64>,
) -> Option<f64> {
    let index: BTreeMap<&str, usize> =
        plan.stages.iter().enumerate().map(|(i, stage)| (stage.name.as_str(), i)).collect();
    let trained: Vec<&crate::config::Arm> =
        arms.into_iter().filter(|arm| *arm != BICUBIC).map(|arm| params.arms.get(arm)).collect::<Option<_>>()?;
    let runs = trained.iter().flat_map(|arm| &arm.runs);
    let upstream: Vec<BTreeSet<usize>> =
        runs.map(|run| Some(upstream(plan, *index.get(run.stage.as_str())?))).collect::<Option<_>>()?;
    let all: BTreeSet<usize> = upstream.iter().flatten().copied().collect();
    let of_seeds = all.into_iter().filter(|stage| upstream.iter().any(|of_run| !of_run.contains(stage)));
    let total: f64 = of_seeds.map(seconds).sum::<Option<f64>>()?;
    let seeds = trained.iter().map(|arm| arm.runs.len()).max()?;
    Some(total / seeds as f64).filter(|seconds| *seconds > 0.0)
}

/// Returns a stage and everything that it depends on.
fn upstream(plan: &Plan, stage: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([stage]);
    let mut rest = vec![stage];
    while let Some(stage) = rest.pop() {
        rest.extend(plan.stages[stage].dependencies.iter().filter(|&&dependency| found.insert(dependency)));
    }
    found
}

fn to_text(needs: &[Need]) -> String {
    if needs.is_empty() {
        return "the pipeline has no claims\n".to_string();
    }
    let several = needs.iter().any(|need| need.stage != needs[0].stage);
    let mut table = Table::new(&["claim", "by", "margin", "n", "seeds for 80 %", "per seed", "missing seeds take"]);
    for need in needs {
        let name = if several { format!("{}: {}", need.stage, need.claim) } else { need.claim.clone() };
        let seeds = match need.seeds {
            None => "unknown: run at least two seeds".to_string(),
            Some(SeedsNeeded::Seeds(seeds)) => seeds.to_string(),
            Some(SeedsNeeded::TooMany) => "more than 200".to_string(),
            Some(SeedsNeeded::MoreImages) => "no number is enough: use more images".to_string(),
        };
        let about = |seconds: Option<f64>| seconds.map_or(String::new(), |s| format!("about {}", format::estimate(s)));
        let missing = match need.seconds() {
            Some(0.0) => "enough seeds".to_string(),
            seconds => about(seconds),
        };
        let cells = [
            name,
            need.endpoint.to_string(),
            format!("{}{}", need.margin, need.endpoint.unit().suffix()),
            need.pilot.map(|n| n.to_string()).unwrap_or_default(),
            seeds,
            about(need.seconds_per_seed),
            missing,
        ];
        table.row(cells.map(|text| (Look::Plain, text)).into());
    }
    let note = "seeds for 80 %: with this many seeds, a true difference as large as the margin is detected with a \
                probability of 80 %. The number is estimated from the latest run (n seeds), for the margin, family and \
                looks of the file; it is uncertain if n is small\n";
    table.render(Paint::stdout()) + note
}

fn to_json(pipeline: &str, needs: &[Need]) -> Value {
    let of_claim = |need: &Need| {
        json!({
            "stage": need.stage,
            "claim": need.claim,
            "endpoint": need.endpoint,
            "margin": need.margin,
            "unit": need.endpoint.unit(),
            "n": need.pilot,
            "seeds_for_power": need.seeds,
            "seconds_per_seed": need.seconds_per_seed,
            "hours": need.seconds().map(|seconds| seconds / 3600.0),
        })
    };
    json!({"schema": 1, "pipeline": pipeline, "power": 0.8, "claims": needs.iter().map(of_claim).collect::<Vec<_>>()})
}
