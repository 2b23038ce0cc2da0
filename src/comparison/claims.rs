//! Evaluates the claims of a comparison against the measurements.

use serde::{Deserialize, Serialize};

use super::convergence::{Convergence, convergence};
use super::measured::{BICUBIC, Measured};
use super::paired::{Replicate, differences, objection, pairs, replicates};
use super::planned::Look;
use crate::config::claims::Claim;
use crate::config::metrics::{Metric, Scope, Unit};
use crate::config::{CompareParams, SeedPlan};
use crate::format::count;
use crate::stats::{self, Family, Question, SeedsNeeded, Variation, Verdict, seeds_for};

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
    /// The two-sided p-value of the hypothesis of no difference: the larger one of the sign-flip test over seeds and of
    /// the interval.
    pub p: f64,
    /// `p` divided by the planned look's share of the error rate, after Holm's correction for all claims of the family.
    /// 1 if no test is planned at this number of seeds.
    pub p_holm: f64,
    /// The p-value of the hypothesis that the difference is not within the margin (two one-sided tests), after both
    /// corrections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_equivalent_holm: Option<f64>,
    /// Whether the effect of a confirmed or refuted claim is also significantly larger than the margin, in absolute value.
    #[serde(default)]
    pub beyond_margin: bool,
    /// The number of claims in the family: those of the pipeline file, unless `family` separates them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family_claims: Option<usize>,
    /// The name of the family; absent for the family of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Whether the file has claims of other families.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_other_families: bool,
    /// The numbers K of samples per image of the arm and of its control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<[usize; 2]>,
    /// The number of seeds with which a true difference as large as the margin is detected with a probability of 80 %,
    /// estimated from the seeds so far; absent with fewer than two seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds_for_power: Option<SeedsNeeded>,
    /// How much the differences vary, in `unit`; absent with fewer than two seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variation: Option<Variation>,
    /// The planned seeds and looks, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<SeedPlan>,
    /// The planned look at the study, if one is planned at its number of seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look: Option<PlannedLook>,
    /// Why the claim cannot be answered, whatever the measurements are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The number of independent replicates: pairs of runs of both arms, where pairs that share a training run count once.
    pub n: usize,
    /// The number of pairs of runs.
    #[serde(default)]
    pub pairs: usize,
    /// Whether there are too few seeds to confirm or refute the claim; `seeds_needed` are enough.
    pub by_design: bool,
    pub seeds_needed: usize,
    /// The training effort to reach the same loss; for claims on convergence only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence: Option<Convergence>,
}

/// A look at a study with a planned number of seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlannedLook {
    #[serde(flatten)]
    pub plan: SeedPlan,
    /// The share of the error rate for this look.
    pub alpha: f64,
}

impl PlannedLook {
    /// Describes the plan.
    pub fn describe(&self) -> String {
        let SeedPlan { plan, looks } = self.plan;
        format!(
            "one of {looks} planned looks at a study of {plan} seeds; p is also corrected for the look's share of the \
             error rate, {:.4} of {}",
            self.alpha,
            stats::ALPHA
        )
    }
}

impl ClaimAnswer {
    /// Describes how many seeds the claim needs, if that can be estimated.
    pub fn describe_seeds_needed(&self) -> Option<String> {
        let margin = format!("the margin of {}{}", self.margin, self.unit.suffix());
        Some(match self.seeds_for_power? {
            SeedsNeeded::Seeds(n) => {
                format!("{n} seeds detect a true difference as large as {margin} with a probability of 80 %")
            }
            SeedsNeeded::MoreImages => {
                format!(
                    "no number of seeds can detect {margin}, because the difference varies too much between images; use \
                     more images"
                )
            }
            SeedsNeeded::TooMany => {
                format!("more than 200 seeds are needed to detect a true difference as large as {margin}")
            }
        })
    }

    /// Describes the claims that are corrected together with this one, if the file has several families.
    pub fn describe_family(&self) -> Option<String> {
        let others = self.family_claims.filter(|_| self.has_other_families)?.saturating_sub(1);
        let others = match others {
            0 => return Some("not corrected for other claims: the family has no other claim".to_string()),
            _ => count(others, "other claim"),
        };
        Some(match &self.family {
            Some(name) => format!("corrected together with {others} of family {name}"),
            None => format!("corrected together with {others} without a named family"),
        })
    }

    /// Explains why the error rate of the verdict is not guaranteed, if it is not: bicubic enlargement does not vary,
    /// so the variation of the other arm does not cancel. The rates are those of `docs/statistics.md`.
    pub fn describe_asymmetry(&self) -> Option<String> {
        let has_fixed_side = [&self.arm, &self.control].iter().any(|arm| *arm == BICUBIC);
        let rate = match self.verdict {
            Verdict::Confirmed | Verdict::Refuted => "false findings reach 9 %",
            Verdict::Equivalent => "false equivalents reach 15 %",
            Verdict::Inconclusive => return None,
        };
        has_fixed_side.then(|| {
            format!(
                "the error rate of 5 % is not guaranteed, because {BICUBIC} does not vary between seeds; {rate} if the \
                 results of the other arm are as skewed as an exponential distribution"
            )
        })
    }

    /// Whether the interval covers the choice of test images as well as that of seeds.
    pub fn covers_images(&self) -> bool {
        self.endpoint.scope() == Scope::Image
    }

    /// Returns n in words, such as `6 seeds`.
    pub fn describe_n(&self) -> String {
        let seeds = |n: usize| if n == 1 { "1 seed".to_string() } else { format!("{n} seeds") };
        match self.pairs > self.n {
            true => format!("n = {}: {} that share training runs", self.n, seeds(self.pairs)),
            false => seeds(self.n),
        }
    }

    /// Describes the finding in plain language.
    pub fn describe_finding(&self) -> String {
        let (arm, control, unit, decimals) = (&self.arm, &self.control, self.unit.suffix(), self.unit.decimals());
        let size = |value: f64| format!("{:.decimals$}{unit}", value.abs());
        let effect = self.effect.map(size).unwrap_or_default();
        let margin = format!("{}{unit}", self.margin);
        let direction = match self.verdict {
            Verdict::Confirmed => "better",
            Verdict::Refuted => "worse",
            Verdict::Equivalent => {
                return format!(
                    "{arm} and {control} are equivalent: if they differ at all, then by less than the margin of {margin}."
                );
            }
            Verdict::Inconclusive => return self.describe_uncertainty(),
        };
        let beyond = match self.beyond_margin {
            true => format!(", significantly more than the margin of {margin}"),
            false => String::new(),
        };
        format!("{arm} is {direction} than {control}, by {effect} in this study{beyond}.")
    }

    /// Describes the effects that an inconclusive study leaves open.
    fn describe_uncertainty(&self) -> String {
        let (arm, control, unit, decimals) = (&self.arm, &self.control, self.unit.suffix(), self.unit.decimals());
        let size = |value: f64| format!("{:.decimals$}{unit}", value.abs());
        let direction = |value: f64| if value < 0.0 { "worse" } else { "better" };
        let open = format!("This study does not show whether {arm} is better or worse than {control}");
        match self.interval {
            Some([low, high]) if low < 0.0 && high > 0.0 => {
                format!("{open}: anything from {} worse to {} better is plausible.", size(low), size(high))
            }
            Some([low, high]) => {
                let [near, far] = if low < 0.0 { [high, low] } else { [low, high] };
                format!(
                    "{open}. The interval is {} to {} {}, but the evidence is too weak for a verdict.",
                    size(near),
                    size(far),
                    direction(far)
                )
            }
            None => format!("{open}."),
        }
    }

    /// Returns the verdict in words.
    pub fn verdict_label(&self) -> &'static str {
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

/// Answers all claims together, in name order, each at the look that matches its own number of seeds. Omits claims
/// without an endpoint, which no valid file contains.
pub fn answers(params: &CompareParams, measured: &[Measured]) -> Vec<ClaimAnswer> {
    let asked: Vec<Asked> = params
        .claims
        .iter()
        .filter_map(|(name, claim)| {
            let endpoint = claim.endpoint(name)?;
            let replicates = replicates(pairs(&claim.arm, &claim.control, measured));
            let margin = claim.margin.unwrap_or(endpoint.default_margin());
            Some(Asked { name, claim, endpoint, margin, replicates })
        })
        .collect();
    let question = |(asked, look): (&Asked, &Look)| Question {
        differences: differences(asked.endpoint, &asked.replicates).unwrap_or_default(),
        margin: asked.margin,
        share: look.share(),
    };
    let looks: Vec<Look> = asked.iter().map(|asked| Look::of(params.seeds, asked.replicates.len())).collect();
    let family = Family { claims: params.claims_in_family.max(asked.len()), alpha: stats::ALPHA };
    let answers = stats::answer(&asked.iter().zip(&looks).map(question).collect::<Vec<_>>(), family);
    let answered = asked.iter().zip(looks).zip(answers);
    answered.map(|((asked, look), answer)| asked.answer(answer, params, family, look)).collect()
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
    fn answer(&self, answer: stats::Answer, params: &CompareParams, family: Family, look: Look) -> ClaimAnswer {
        let n = self.replicates.len();
        let needed = look.seeds_needed(family);
        let is_allowed = look.objection.is_none();
        let looks = look.plan.map_or(1, |plan| plan.looks);
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
            family: params.family.clone(),
            has_other_families: params.has_other_families,
            samples: first.map(|(arm, control)| [arm.samples, control.samples]),
            seeds_for_power: answer.variation.map(|pilot| seeds_for(pilot, self.margin, family, looks)),
            variation: answer.variation,
            plan: look.plan,
            look: look.plan.filter(|_| is_allowed).map(|plan| PlannedLook { plan, alpha: look.alpha }),
            reason: self.replicates.iter().flatten().find_map(|pair| objection(self.endpoint, pair)).or(look.objection),
            n,
            pairs: self.replicates.iter().map(Vec::len).sum(),
            by_design: answer.verdict == Verdict::Inconclusive && n < needed,
            seeds_needed: needed,
            convergence: self
                .endpoint
                .is_convergence()
                .then(|| convergence(self.replicates.iter().flatten().copied()))
                .flatten(),
        }
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
