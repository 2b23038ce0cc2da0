//! Differences that are tested without a claim: those of every arm from one control, by every metric that ranks arms,
//! and those from the best arm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::measured::{BICUBIC, Measured};
use super::paired::{differences, objection, pairs, replicates};
use super::planned::Look;
use crate::config::SeedPlan;
use crate::config::metrics::{Better, Metric, Scope, Unit};
use crate::stats::{self, Family, Question};

/// The paired difference of a metric between an arm and the control of the comparison, in `summary.json`. It is
/// exploratory, because it was not claimed in advance. Effect and interval are in `unit`, and positive if the arm is
/// better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub arm: String,
    pub control: String,
    pub metric: Metric,
    pub unit: Unit,
    /// The mean over seeds and images.
    pub effect: f64,
    /// The 95 % confidence interval of this difference alone; absent with fewer than two seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The p-value of the hypothesis of no difference that agrees with the interval (not the sign-flip test), divided
    /// by the planned look's share of the error rate, after Holm's correction for all differences of the comparison.
    pub p_holm: f64,
    /// Whether `p_holm` is at most 0.05 with as many seeds as a verdict needs, and if looks are planned, at one of
    /// them.
    pub is_significant: bool,
    /// The number of independent replicates.
    pub n: usize,
    /// The share of replicates and images for which the arm is better; ties count half. A paired version of the
    /// probability of improvement (Agarwal et al. 2021).
    pub probability: f64,
}

/// Compares every arm but bicubic enlargement with the control, by each metric of the tables that ranks arms and can
/// compare the two. `measured` contains all arms.
pub fn against(control: &str, measured: &[Measured], plan: Option<SeedPlan>) -> Vec<Difference> {
    let others = names(measured).into_iter().filter(|name| *name != control && *name != BICUBIC);
    let mut found: Vec<(Difference, Question, bool)> = vec![];
    for arm in others {
        let replicates = replicates(pairs(arm, control, measured));
        let look = Look::of(plan, replicates.len());
        for metric in ranked() {
            let Some(rows) = differences(metric, &replicates).filter(|rows| !rows.is_empty()) else { continue };
            let difference = Difference {
                arm: arm.to_string(),
                control: control.to_string(),
                metric,
                unit: metric.unit(),
                effect: f64::NAN,
                interval: None,
                p_holm: 1.0,
                is_significant: false,
                n: rows.len(),
                probability: probability(&rows),
            };
            let question = Question { differences: rows, margin: metric.default_margin(), share: look.share() };
            found.push((difference, question, look.allows(replicates.len())));
        }
    }
    let questions: Vec<Question> = found.iter().map(|(_, question, _)| question.clone()).collect();
    let family = Family { claims: questions.len(), alpha: stats::ALPHA };
    let answers = stats::answer(&questions, family);
    let with = |((difference, _, is_allowed), answer): ((Difference, _, bool), stats::Answer)| Difference {
        effect: answer.effect,
        interval: answer.interval,
        p_holm: answer.p_of_interval_holm,
        is_significant: answer.p_of_interval_holm <= family.alpha && is_allowed,
        ..difference
    };
    found.into_iter().zip(answers).map(with).collect()
}

/// Returns, for each metric, the best arm and the arms that are not significantly worse. Omits metrics by which no arm
/// is significantly worse, and metrics whose values in the table do not compare all arms. Bicubic enlargement is a
/// reference and not ranked.
///
/// The best arm is selected by the values that are tested, so the correction covers every pair of arms. With fewer
/// seeds than a verdict needs, and between planned looks, no arm counts as significantly worse.
pub fn best(measured: &[Measured], plan: Option<SeedPlan>) -> BTreeMap<Metric, Vec<String>> {
    ranked().filter_map(|metric| Some((metric, best_by(metric, measured, plan)?))).collect()
}

fn best_by(metric: Metric, measured: &[Measured], plan: Option<SeedPlan>) -> Option<Vec<String>> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let value = |arm: &str| -> Option<f64> {
        let seeds = measured.iter().filter(|of_seed| of_seed.name == arm);
        let values: Option<Vec<f64>> = seeds.map(|of_seed| Some(mean(&of_seed.values(metric)?))).collect();
        Some(mean(&values?)).filter(|value| value.is_finite())
    };
    let names = names(measured).into_iter().filter(|name| *name != BICUBIC);
    let arms: Vec<(&str, f64)> = names.filter_map(|name| Some((name, value(name)?))).collect();
    let (best, _) = *arms.iter().max_by(|(_, a), (_, b)| match metric.is_higher_better() {
        true => a.total_cmp(b),
        false => b.total_cmp(a),
    })?;
    let others: Vec<&str> = arms.iter().map(|(name, _)| *name).filter(|name| *name != best).collect();
    let (mut questions, mut allowed) = (vec![], vec![]);
    for other in &others {
        let replicates = replicates(pairs(best, other, measured));
        if replicates.iter().flatten().any(|pair| objection(metric, pair).is_some()) {
            return None;
        }
        let differences = differences(metric, &replicates).unwrap_or_default();
        let look = Look::of(plan, differences.len());
        allowed.push(look.allows(differences.len()));
        questions.push(Question { differences, margin: metric.default_margin(), share: look.share() });
    }
    let family = Family { claims: arms.len() * (arms.len() - 1) / 2, alpha: stats::ALPHA };
    let answers = stats::answer(&questions, family);
    let is_worse = |(is_allowed, answer): (&bool, &stats::Answer)| {
        *is_allowed && answer.effect > 0.0 && answer.p_holm <= family.alpha
    };
    let level = others.iter().zip(allowed.iter().zip(&answers)).filter(|(_, of)| !is_worse(*of));
    let level = level.map(|(name, _)| name.to_string());
    let mut level: Vec<String> = level.chain([best.to_string()]).collect();
    level.sort();
    (level.len() < arms.len()).then_some(level)
}

/// Returns the metrics of the tables that rank arms.
fn ranked() -> impl Iterator<Item = Metric> {
    let is_ranked = |metric: &Metric| {
        let declaration = metric.declaration();
        // Metrics whose values depend on K are replaced by those that decide claims.
        metric.deciding_metric() == *metric
            && declaration.in_tables
            && declaration.better != Better::One
            && metric.scope() != Scope::Convergence
    };
    Metric::ALL.iter().copied().filter(is_ranked)
}

/// Returns the name of each arm once, in order.
fn names(measured: &[Measured]) -> Vec<&str> {
    measured.chunk_by(|a, b| a.name == b.name).map(|seeds| seeds[0].name.as_str()).collect()
}

fn probability(rows: &[Vec<f64>]) -> f64 {
    let count = |is: fn(f64) -> bool| rows.iter().flatten().filter(|difference| is(**difference)).count() as f64;
    let all = count(|_| true);
    (count(|difference| difference > 0.0) + 0.5 * count(|difference| difference == 0.0)) / all
}
