//! Evaluates the claims of a comparison against the measurements.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::independence;
use super::loss::LossRow;
use super::measured::{BICUBIC, Measured};
use crate::config::claims::Claim;
use crate::config::metrics::{Metric, Unit};
use crate::stats::{self, Family, Question, SeedsNeeded, Verdict, seeds_needed};

/// The answer to a claim, in `summary.json`. Effect, interval and margin are in `unit`, and positive if the arm is
/// better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimAnswer {
    pub claim: String,
    pub arm: String,
    pub control: String,
    pub endpoint: Metric,
    /// `dB`, `%` of the control's value, or empty.
    pub unit: Unit,
    pub margin: f64,
    pub verdict: Verdict,
    /// The mean over seeds and images; absent if an arm lacks the metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<f64>,
    /// The 95 % confidence interval over seeds and, if the endpoint has a value for every image, over images; absent with
    /// fewer than two seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The two-sided p value of no difference: the larger one of the sign-flip test over seeds and that of the interval.
    pub p: f64,
    /// The p value after Holm's correction for all claims of the family.
    pub p_holm: f64,
    /// The p value of a difference that is not within the margin (two one-sided tests), after Holm's correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_equivalent_holm: Option<f64>,
    /// Whether a confirmed or refuted effect is also significantly larger than the margin.
    #[serde(default)]
    pub beyond_margin: bool,
    /// The number of claims in the family: those of the pipeline file, unless `family` separates them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family_claims: Option<usize>,
    /// The numbers K of samples per image of arm and control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<[usize; 2]>,
    /// The number of seeds with which a difference as large as the margin would be found with a probability of 80 %,
    /// estimated from the seeds so far; absent with fewer than two seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds_for_power: Option<SeedsNeeded>,
    /// Why the claim cannot be answered, whatever is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The number of independent replicates: pairs of runs of both arms, of which those that share a training count once.
    pub n: usize,
    /// The number of pairs of runs.
    #[serde(default)]
    pub pairs: usize,
    /// Whether there are too few seeds for any significant result; `seeds_needed` would suffice.
    pub by_design: bool,
    pub seeds_needed: usize,
    /// The training effort to reach the same loss; for claims on convergence only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence: Option<Convergence>,
}

/// The training effort until the validation loss reaches a level that both arms reach: the control's last loss, or the
/// arm's if that is higher. Means over the seeds. Seconds are omitted because they differ between runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Convergence {
    pub loss: f64,
    pub arm: Effort,
    pub control: Effort,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    pub steps: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
}

impl ClaimAnswer {
    /// Returns how many seeds the claim needs, if that can be estimated.
    pub fn seeds_in_words(&self) -> Option<String> {
        let margin = format!("the margin of {}{}", self.margin, self.unit.suffix());
        Some(match self.seeds_for_power? {
            SeedsNeeded::Seeds(n) => {
                format!("{n} seeds find a difference as large as {margin} with a probability of 80 %")
            }
            SeedsNeeded::MoreImages => {
                format!(
                    "the test images differ too much for {margin}, whatever the number of seeds; use more test images"
                )
            }
            SeedsNeeded::TooMany => {
                format!("more than 200 seeds would be needed to find a difference as large as {margin}")
            }
        })
    }

    /// Returns n in words, such as `6 seeds`.
    pub fn n_in_words(&self) -> String {
        let seeds = |n: usize| if n == 1 { "1 seed".to_string() } else { format!("{n} seeds") };
        match self.pairs > self.n {
            true => format!("n = {}: {} with shared trainings", self.n, seeds(self.pairs)),
            false => seeds(self.n),
        }
    }

    /// Returns the verdict in words.
    pub fn verdict_in_words(&self) -> &'static str {
        match (self.verdict, self.beyond_margin) {
            (Verdict::Confirmed, false) => "confirmed",
            (Verdict::Confirmed, true) => "confirmed by more than the margin",
            (Verdict::Refuted, false) => "refuted",
            (Verdict::Refuted, true) => "refuted by more than the margin",
            (Verdict::Equivalent, _) => "equivalent",
            (Verdict::Inconclusive, _) => "inconclusive",
        }
    }
}

/// Answers all `claims` together, in name order, as part of a family of `in_family` claims. Omits claims with an unknown
/// endpoint; no valid file has any.
pub fn answers(claims: &BTreeMap<String, Claim>, in_family: usize, measured: &[Measured]) -> Vec<ClaimAnswer> {
    let asked: Vec<Asked> = claims
        .iter()
        .filter_map(|(name, claim)| {
            let endpoint = claim.endpoint(name)?;
            let replicates = replicates(pairs(&claim.arm, &claim.control, measured));
            let margin = claim.margin.unwrap_or(endpoint.default_margin());
            Some(Asked { name, claim, endpoint, margin, replicates })
        })
        .collect();
    let question = |asked: &Asked| Question {
        differences: differences(asked.endpoint, &asked.replicates).unwrap_or_default(),
        margin: asked.margin,
    };
    let family = Family { claims: in_family.max(asked.len()), alpha: stats::ALPHA };
    let answers = stats::answer(&asked.iter().map(question).collect::<Vec<_>>(), family);
    asked.iter().zip(answers).map(|(asked, answer)| asked.answer(answer, family)).collect()
}

/// A claim with its measurements.
struct Asked<'a> {
    name: &'a str,
    claim: &'a Claim,
    endpoint: Metric,
    margin: f64,
    replicates: Vec<Replicate<'a>>,
}

impl Asked<'_> {
    fn answer(&self, answer: stats::Answer, family: Family) -> ClaimAnswer {
        let n = self.replicates.len();
        let needed = seeds_needed(family);
        let first = self.replicates.first().and_then(|pairs| pairs.first());
        ClaimAnswer {
            claim: self.name.to_string(),
            arm: self.claim.arm.clone(),
            control: self.claim.control.clone(),
            endpoint: self.endpoint,
            unit: self.endpoint.unit(),
            margin: self.margin,
            verdict: answer.verdict,
            effect: Some(answer.effect).filter(|effect| effect.is_finite()),
            interval: answer.interval,
            p: answer.p,
            p_holm: answer.p_holm,
            p_equivalent_holm: Some(answer.p_equivalent_holm),
            beyond_margin: answer.is_beyond_margin,
            family_claims: Some(family.claims),
            samples: first.map(|(arm, control)| [arm.samples, control.samples]),
            seeds_for_power: answer.seeds_for_power,
            reason: self.replicates.iter().flatten().find_map(|pair| objection(self.endpoint, pair)),
            n,
            pairs: self.replicates.iter().map(Vec::len).sum(),
            by_design: answer.verdict == Verdict::Inconclusive && n < needed,
            seeds_needed: needed,
            convergence: self.endpoint.is_convergence().then(|| convergence(&self.replicates)).flatten(),
        }
    }
}

type Pair<'a> = (&'a Measured, &'a Measured);

/// Pairs that share a training run with one another and with no other pair. They count as one random draw, however many
/// there are.
type Replicate<'a> = Vec<Pair<'a>>;

/// Pairs the seeds that both arms have. Bicubic enlargement is deterministic and pairs with every seed.
fn pairs<'a>(arm: &str, control: &str, measured: &'a [Measured]) -> Vec<Pair<'a>> {
    let of = |name: &str| measured.iter().filter(|m| m.name == name).collect::<Vec<_>>();
    let (arms, controls) = (of(arm), of(control));
    let beside = |a: &Measured, b: &Measured| a.seed == b.seed || [a, b].iter().any(|m| m.name == BICUBIC);
    let with = |a: &'a Measured| controls.iter().filter(move |c| beside(a, c)).map(move |c| (a, *c));
    arms.into_iter().flat_map(with).collect()
}

/// Groups the pairs into replicates.
fn replicates(pairs: Vec<Pair>) -> Vec<Replicate> {
    independence::group(pairs, |(arm, control)| [&arm.trainings[..], &control.trainings].concat())
}

/// Returns the differences in the endpoint's unit: one row per replicate (the mean of its pairs), one column per image;
/// positive if the arm is better. `None` if a value is missing, not finite, or not comparable.
fn differences(endpoint: Metric, replicates: &[Replicate]) -> Option<Vec<Vec<f64>>> {
    let mut values: Vec<Vec<[Vec<f64>; 2]>> = vec![];
    for replicate in replicates {
        values.push(replicate.iter().map(|pair| values_of_pair(endpoint, pair)).collect::<Option<_>>()?);
    }
    let all = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let of_controls = |pairs: &Vec<[Vec<f64>; 2]>| all(&pairs.iter().map(|[_, c]| all(c)).collect::<Vec<_>>());
    let unit = match endpoint.unit() {
        Unit::Percent => 100.0 / all(&values.iter().map(of_controls).collect::<Vec<_>>()),
        Unit::Decibel | Unit::One => 1.0,
    };
    let sign = if endpoint.is_higher_better() { unit } else { -unit };
    let row = |pairs: &Vec<[Vec<f64>; 2]>| -> Vec<f64> {
        let difference = |column: usize| all(&pairs.iter().map(|[a, c]| a[column] - c[column]).collect::<Vec<_>>());
        (0..pairs[0][0].len()).map(|column| sign * difference(column)).collect()
    };
    let rows: Vec<Vec<f64>> = values.iter().map(row).collect();
    rows.iter().all(|row| !row.is_empty() && row.iter().all(|d| d.is_finite())).then_some(rows)
}

/// Returns why the endpoint cannot compare an arm with its control, if it cannot.
fn objection(endpoint: Metric, (arm, control): &Pair) -> Option<String> {
    if endpoint.is_of_training() && arm.loss_digest.is_some() && arm.loss_digest == control.loss_digest {
        return Some(format!("{endpoint} is measured in training, and both arms sample the same trained network"));
    }
    let objection = endpoint.objection([arm.drawn(), control.drawn()])?;
    Some(format!("{endpoint} cannot compare these arms: {}", objection.reason))
}

/// Returns the endpoint of the arm and of its control, for the same number of images.
fn values_of_pair(endpoint: Metric, &(arm, control): &Pair) -> Option<[Vec<f64>; 2]> {
    if objection(endpoint, &(arm, control)).is_some() {
        return None;
    }
    if endpoint.is_convergence() {
        let Convergence { arm, control, .. } = reached(arm, control)?;
        let effort = |e: Effort| if endpoint == Metric::StepsToLoss { Some(e.steps) } else { e.flops };
        return Some([vec![effort(arm)?], vec![effort(control)?]]);
    }
    Some([arm.deciding_values(endpoint)?, control.deciding_values(endpoint)?])
}

/// Returns the loss that both arms reach, and the effort of each.
///
/// With the control's last loss alone, an arm that never reaches it would have no time. Both reach the higher of the
/// two last losses, which is the control's whenever the arm is better. Exchanging the arms only changes the sign of the
/// difference, as the sign-flip test requires.
fn reached(arm: &Measured, control: &Measured) -> Option<Convergence> {
    let loss = arm.val_loss()?.max(control.val_loss()?);
    Some(Convergence { loss, arm: effort(&arm.losses, loss)?, control: effort(&control.losses, loss)? })
}

/// Returns when the validation loss first reached `loss`, interpolating linearly between measurements.
fn effort(rows: &[LossRow], loss: f64) -> Option<Effort> {
    let mut before: Option<(&LossRow, f64)> = None;
    for row in rows {
        let Some(validation) = row.val_loss else { continue };
        if validation <= loss {
            let (from, part) = match before {
                Some((from, above)) if above.is_finite() => (from, (above - loss) / (above - validation)),
                _ => (row, 1.0),
            };
            let between = |a: f64, b: f64| a + part * (b - a);
            return Some(Effort {
                steps: between(from.step as f64, row.step as f64),
                flops: from.flops.zip(row.flops).map(|(a, b)| between(a, b)),
            });
        }
        before = Some((row, validation));
    }
    None
}

/// Returns the means over the pairs.
fn convergence(replicates: &[Replicate]) -> Option<Convergence> {
    let all: Option<Vec<Convergence>> =
        replicates.iter().flatten().map(|(arm, control)| reached(arm, control)).collect();
    let all = all.filter(|all| !all.is_empty())?;
    let mean = |sum: f64| sum / all.len() as f64;
    let effort = |side: fn(&Convergence) -> Effort| Effort {
        steps: mean(all.iter().map(|c| side(c).steps).sum()),
        flops: all.iter().map(|c| side(c).flops).sum::<Option<f64>>().map(mean),
    };
    let loss = mean(all.iter().map(|c| c.loss).sum());
    Some(Convergence { loss, arm: effort(|c| c.arm), control: effort(|c| c.control) })
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
