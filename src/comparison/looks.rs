//! Determines which answers are exploratory, because an earlier comparison of the same data already showed the result.
//!
//! An earlier comparison is about the same data if it has trained networks of both arms, or if both arms sample the same
//! networks or networks that are unknown, samples of both. The names of arms, claims, stages and pipelines do not matter.
//! It does not matter either which of the two arms is the control.

use std::collections::BTreeMap;

use super::claims::ClaimAnswer;
use super::measured::BICUBIC;
use crate::config::blobs::{LOSS, SAMPLES};
use crate::runs::{ArmData, ClaimLook, DataSet, StudyLook};
use crate::stats::{self, Family, MIN_SEEDS, Verdict, seeds_needed};
use crate::store::Digest;

/// The blobs that a comparison reads, by role and name.
pub type Inputs = BTreeMap<String, BTreeMap<String, Digest>>;

/// The minimum number of seeds with which a difference between arms can suggest a claim.
const SUGGESTIVE_SEEDS: usize = 2;

/// Returns the record of what a comparison in the run `run` showed. `inputs` are the blobs that the comparison has
/// read. `None` if all arms have a single seed.
pub fn look(run: &str, answers: &[ClaimAnswer], inputs: &Inputs) -> Option<StudyLook> {
    let mut arms = arms(inputs);
    arms.retain(|_, data| seeds(data) >= SUGGESTIVE_SEEDS);
    let is_shown = |arm: &String| arm == BICUBIC || arms.contains_key(arm);
    let claims = answers.iter().filter(|answer| is_shown(&answer.arm) && is_shown(&answer.control)).map(claim_look);
    let claims = claims.collect();
    (!arms.is_empty()).then(|| StudyLook { run: run.to_string(), arms, claims })
}

/// Returns, for each answer of a comparison, the reason why it is exploratory, if it is.
pub fn exploratory(answers: &[ClaimAnswer], inputs: &Inputs, earlier: &[StudyLook]) -> Vec<Option<String>> {
    let arms = arms(inputs);
    let of_answer = |answer: &ClaimAnswer| {
        let is_verdict = answer.reason.is_none() && answer.effect.is_some() && !answer.by_design;
        let now = CurrentAnswer { claim: claim_look(answer), verdict: answer.verdict, answer, arms: &arms };
        if is_verdict && answer.n >= MIN_SEEDS { now.objection(earlier) } else { None }
    };
    answers.iter().map(of_answer).collect()
}

/// Returns the data of each arm.
fn arms(inputs: &Inputs) -> BTreeMap<String, ArmData> {
    let mut arms: BTreeMap<String, ArmData> = BTreeMap::new();
    for (role, blobs) in inputs {
        let Some(name) = role.strip_prefix("arms.") else { continue };
        let name = name.rsplit_once("[seed=").map_or(name, |(arm, _)| arm);
        let data = arms.entry(name.to_string()).or_default();
        blobs.get(SAMPLES).into_iter().for_each(|digest| data.samples.insert(digest));
        blobs.get(LOSS).into_iter().for_each(|digest| data.losses.insert(digest));
    }
    arms
}

/// Returns the number of seeds of an arm. Samples of one trained network count once.
fn seeds(data: &ArmData) -> usize {
    if data.losses.is_empty() { data.samples.len() } else { data.losses.len() }
}

fn claim_look(answer: &ClaimAnswer) -> ClaimLook {
    ClaimLook {
        arm: answer.arm.clone(),
        control: answer.control.clone(),
        endpoint: answer.endpoint.to_string(),
        n: answer.effect.map_or(0, |_| answer.n),
        margin: answer.margin,
        family_claims: answer.family_claims.unwrap_or(1),
        plan: answer.plan,
    }
}

/// An answer, and the data that it is based on.
struct CurrentAnswer<'a> {
    claim: ClaimLook,
    verdict: Verdict,
    answer: &'a ClaimAnswer,
    arms: &'a BTreeMap<String, ArmData>,
}

/// A pair of arms of an earlier comparison that has data of the arm and of the control.
struct EarlierPair<'a> {
    look: &'a StudyLook,
    /// The names of its two arms.
    names: [&'a str; 2],
    /// Whether the current answer is based on the same data of both arms.
    is_same: bool,
    /// Whether the current answer is based on all of this data, and possibly more.
    is_subset: bool,
}

impl CurrentAnswer<'_> {
    /// Returns the reason why the answer is exploratory, if it is.
    fn objection(&self, earlier: &[StudyLook]) -> Option<String> {
        let pairs: Vec<EarlierPair> = earlier.iter().flat_map(|look| self.earlier_pairs(look)).collect();
        let first = |is: &dyn Fn(&EarlierPair, &ClaimLook) -> bool| {
            let runs = pairs.iter().filter(|pair| self.earlier_claims(pair).any(|claim| is(pair, claim)));
            runs.map(|pair| pair.look.run.as_str()).min()
        };
        // Runs after the first one with this answer do not change it. Other comparisons in the first run with the claim
        // did not precede the claim.
        let (answered, claimed) = (first(&|pair, claim| self.is_same_answer(pair, claim)), first(&|_, _| true));
        let is_before = |pair: &EarlierPair, run: Option<&str>| run.is_none_or(|run| pair.look.run.as_str() < run);
        let tested = pairs.iter().filter(|pair| is_before(pair, answered)).find_map(|pair| {
            let claim = self.earlier_claims(pair).find(|claim| !self.may_follow(pair, claim))?;
            Some(self.describe(pair, claim))
        });
        let unclaimed = || {
            let pair = pairs.iter().find(|pair| is_before(pair, claimed))?;
            let seeds = pair.names.iter().filter_map(|arm| pair.look.arms.get(*arm)).map(seeds).min()?;
            Some(format!(
                "because a comparison of these arms with {seeds} seeds was shown before the claim was made. To test \
                 the claim, train with new seeds"
            ))
        };
        tested.or_else(unclaimed)
    }

    /// Returns the pairs of arms of an earlier comparison that have data of the arm and of its control.
    fn earlier_pairs<'b>(&self, look: &'b StudyLook) -> Vec<EarlierPair<'b>> {
        let names = || look.arms.keys().map(String::as_str).chain([BICUBIC]);
        let of = |now: &str| -> Vec<(&'b str, [bool; 2])> {
            names().filter_map(|name| Some((name, self.relation(look.arms.get(name), self.arms.get(now))?))).collect()
        };
        let controls = of(&self.answer.control);
        let with = |(arm, [same, subset]): (&'b str, [bool; 2])| {
            let pair = move |(control, [same_control, subset_control]): &(&'b str, [bool; 2])| EarlierPair {
                look,
                names: [arm, control],
                is_same: same && *same_control,
                is_subset: subset && *subset_control,
            };
            controls.iter().map(pair).collect::<Vec<_>>()
        };
        of(&self.answer.arm).into_iter().flat_map(with).collect()
    }

    /// Returns whether the data of an arm is the same as before, and whether it contains all data from before. `None`
    /// if the two have nothing in common. Bicubic enlargement has no data.
    ///
    /// If the arms sample different networks, the networks decide: otherwise, changing the sampler would hide that a study
    /// has grown. If both sample the same networks, the claim is about the sampler, and the samples decide.
    fn relation(&self, before: Option<&ArmData>, now: Option<&ArmData>) -> Option<[bool; 2]> {
        match (before, now) {
            (None, None) => Some([true, true]),
            (Some(before), Some(now)) => {
                let overlaps = match self.compares_networks() {
                    true => before.losses.overlaps(&now.losses),
                    false => before.samples.overlaps(&now.samples),
                };
                let is_of_training = self.answer.endpoint.is_of_training() && !now.losses.is_empty();
                let parts: &[fn(&ArmData) -> &DataSet] =
                    if is_of_training { &[|data| &data.losses] } else { &[|data| &data.losses, |data| &data.samples] };
                let all =
                    |is: &dyn Fn(&DataSet, &DataSet) -> bool| parts.iter().all(|part| is(part(before), part(now)));
                overlaps.then(|| [all(&|a, b| a == b), all(&|a, b| a.is_subset(b))])
            }
            _ => None,
        }
    }

    /// Whether the arms have known networks, none of which both sample.
    fn compares_networks(&self) -> bool {
        let losses = [&self.answer.arm, &self.answer.control].map(|arm| self.arms.get(arm).map(|data| &data.losses));
        match losses {
            [Some(arm), Some(control)] => !arm.is_empty() && !control.is_empty() && !arm.overlaps(control),
            // Bicubic enlargement has no data.
            [Some(losses), None] | [None, Some(losses)] => !losses.is_empty(),
            [None, None] => false,
        }
    }

    /// Returns the earlier claims about these arms by the same endpoint.
    fn earlier_claims<'b>(&self, pair: &EarlierPair<'b>) -> impl Iterator<Item = &'b ClaimLook> {
        let [arm, control] = pair.names;
        let endpoint = self.claim.endpoint.clone();
        pair.look.claims.iter().filter(move |claim| {
            let names = [claim.arm.as_str(), claim.control.as_str()];
            claim.endpoint == endpoint && (names == [arm, control] || names == [control, arm])
        })
    }

    /// Whether the margin and the plan are unchanged, and the family has not become smaller.
    fn has_same_terms(&self, before: &ClaimLook) -> bool {
        let now = &self.claim;
        now.margin == before.margin && now.plan == before.plan && now.family_claims >= before.family_claims
    }

    fn is_same_answer(&self, pair: &EarlierPair, before: &ClaimLook) -> bool {
        pair.is_same && self.has_same_terms(before)
    }

    /// Whether the earlier answer does not raise the error rate of this one.
    fn may_follow(&self, pair: &EarlierPair, before: &ClaimLook) -> bool {
        let family = Family { claims: before.family_claims, alpha: stats::ALPHA };
        // The first differences may suggest a margin.
        let is_same_margin = before.n < SUGGESTIVE_SEEDS || before.margin == self.claim.margin;
        let had_no_verdict = before.n < MIN_SEEDS && is_same_margin;
        let could_only_be_equivalent = is_same_margin
            && before.n < seeds_needed(family)
            && before.family_claims <= self.claim.family_claims
            && self.verdict != Verdict::Equivalent;
        // This includes comparisons between planned looks, which give no verdicts.
        let is_planned =
            before.plan.is_some() && self.has_same_terms(before) && pair.is_subset && before.n < self.claim.n;
        had_no_verdict || could_only_be_equivalent || is_planned || self.is_same_answer(pair, before)
    }

    /// Explains why an answer is exploratory.
    fn describe(&self, pair: &EarlierPair, before: &ClaimLook) -> String {
        let n = before.n;
        if before.margin != self.claim.margin || (pair.is_same && before.plan == self.claim.plan) {
            return format!("because the margin or the family was changed after an answer with {n} seeds");
        }
        format!(
            "because it was already tested with {n} seeds, and testing again with other seeds, other samples or \
             another plan makes false findings more likely. To avoid this, plan the looks before the first run with \
             `seeds: {{ plan: …, looks: … }}`"
        )
    }
}

#[cfg(test)]
#[path = "looks_tests.rs"]
mod tests;
