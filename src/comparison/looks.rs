//! Which answers are exploratory, because earlier comparisons of the same data showed the result before.
//!
//! An earlier comparison is about the same data if it has samples of both arms, or for endpoints that are measured in
//! training, trained networks of both. The names of arms, claims, stages and pipelines do not matter, nor which of two arms
//! is the control.

use std::collections::BTreeMap;

use super::claims::ClaimAnswer;
use super::measured::BICUBIC;
use crate::config::blobs::{LOSS, SAMPLES};
use crate::runs::{ArmData, ClaimLook, DataSet, StudyLook};
use crate::stats::{self, Family, MIN_SEEDS, Verdict, seeds_needed};
use crate::store::Digest;

/// The blobs that a comparison reads, by role and name.
pub type Inputs = BTreeMap<String, BTreeMap<String, Digest>>;

/// Returns what a comparison of the run `run`, which has read `inputs`, showed. `None` if no arm has enough seeds for a
/// verdict.
pub fn look(run: &str, answers: &[ClaimAnswer], inputs: &Inputs) -> Option<StudyLook> {
    let mut arms = arms(inputs);
    arms.retain(|_, data| seeds(data) >= MIN_SEEDS);
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
        let now = Asked { claim: claim_look(answer), verdict: answer.verdict, answer, arms: &arms };
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
struct Asked<'a> {
    claim: ClaimLook,
    verdict: Verdict,
    answer: &'a ClaimAnswer,
    arms: &'a BTreeMap<String, ArmData>,
}

/// A pair of arms of an earlier comparison that has data of the arm and of the control.
struct Shown<'a> {
    look: &'a StudyLook,
    pair: [&'a str; 2],
    /// Whether all data of both arms is the same, or at least contained in the data now.
    is_same: bool,
    is_subset: bool,
}

impl Asked<'_> {
    /// Returns the reason why the answer is exploratory, if it is.
    fn objection(&self, earlier: &[StudyLook]) -> Option<String> {
        let shown: Vec<Shown> = earlier.iter().flat_map(|look| self.shown(look)).collect();
        let first = |is: &dyn Fn(&Shown, &ClaimLook) -> bool| {
            let runs = shown.iter().filter(|shown| self.claims(shown).any(|claim| is(shown, claim)));
            runs.map(|shown| shown.look.run.as_str()).min()
        };
        // Later runs do not change the first answer, and a comparison with the claim may have others beside it.
        let (answered, claimed) = (first(&|shown, claim| self.is_same_answer(shown, claim)), first(&|_, _| true));
        let is_before = |shown: &Shown, run: Option<&str>| run.is_none_or(|run| shown.look.run.as_str() < run);
        let tested = shown.iter().filter(|shown| is_before(shown, answered)).find_map(|shown| {
            let claim = self.claims(shown).find(|claim| !self.may_follow(shown, claim))?;
            Some(self.describe(shown, claim))
        });
        let unclaimed = || {
            let shown = shown.iter().find(|shown| is_before(shown, claimed))?;
            let seeds = shown.pair.iter().filter_map(|arm| shown.look.arms.get(*arm)).map(seeds).min()?;
            Some(format!(
                "because a comparison of these arms with {seeds} seeds was shown before the claim was made. To test the \
                 claim, train with new seeds"
            ))
        };
        tested.or_else(unclaimed)
    }

    /// Returns the pairs of arms of an earlier comparison that have data of the arm and of its control.
    fn shown<'b>(&self, look: &'b StudyLook) -> Vec<Shown<'b>> {
        let names = || look.arms.keys().map(String::as_str).chain([BICUBIC]);
        let of = |now: &str| -> Vec<(&'b str, [bool; 2])> {
            names().filter_map(|name| Some((name, self.relation(look.arms.get(name), self.arms.get(now))?))).collect()
        };
        let controls = of(&self.answer.control);
        let with = |(arm, [same, subset]): (&'b str, [bool; 2])| {
            let pair = move |(control, [same_control, subset_control]): &(&'b str, [bool; 2])| Shown {
                look,
                pair: [arm, control],
                is_same: same && *same_control,
                is_subset: subset && *subset_control,
            };
            controls.iter().map(pair).collect::<Vec<_>>()
        };
        of(&self.answer.arm).into_iter().flat_map(with).collect()
    }

    /// Returns whether all data of an arm is the same as before, and whether it contains that of before. `None` if they
    /// have nothing in common. Bicubic enlargement has no data.
    fn relation(&self, before: Option<&ArmData>, now: Option<&ArmData>) -> Option<[bool; 2]> {
        match (before, now) {
            (None, None) => Some([true, true]),
            (Some(before), Some(now)) => {
                let (before, now) = (self.data(before), self.data(now));
                before.overlaps(now).then(|| [before == now, before.is_subset(now)])
            }
            _ => None,
        }
    }

    fn data<'b>(&self, arm: &'b ArmData) -> &'b DataSet {
        let is_of_training = self.answer.endpoint.is_of_training() && !arm.losses.is_empty();
        if is_of_training { &arm.losses } else { &arm.samples }
    }

    /// Returns the earlier claims about these arms by the same endpoint.
    fn claims<'b>(&self, shown: &Shown<'b>) -> impl Iterator<Item = &'b ClaimLook> {
        let [arm, control] = shown.pair;
        let endpoint = self.claim.endpoint.clone();
        shown.look.claims.iter().filter(move |claim| {
            let names = [claim.arm.as_str(), claim.control.as_str()];
            claim.endpoint == endpoint && (names == [arm, control] || names == [control, arm])
        })
    }

    /// Whether neither the margin nor the plan were changed since, and the family did not become smaller.
    fn has_same_terms(&self, before: &ClaimLook) -> bool {
        let now = &self.claim;
        now.margin == before.margin && now.plan == before.plan && now.family_claims >= before.family_claims
    }

    fn is_same_answer(&self, shown: &Shown, before: &ClaimLook) -> bool {
        shown.is_same && self.has_same_terms(before)
    }

    /// Whether the earlier answer does not raise the error rate of this one.
    fn may_follow(&self, shown: &Shown, before: &ClaimLook) -> bool {
        let family = Family { claims: before.family_claims, alpha: stats::ALPHA };
        let had_no_verdict = before.n < MIN_SEEDS;
        let could_only_be_equivalent = before.n < seeds_needed(family)
            && before.family_claims <= self.claim.family_claims
            && self.verdict != Verdict::Equivalent;
        // Includes looks at numbers of seeds without a planned test, which give no verdicts.
        let is_planned =
            before.plan.is_some() && self.has_same_terms(before) && shown.is_subset && before.n < self.claim.n;
        had_no_verdict || could_only_be_equivalent || is_planned || self.is_same_answer(shown, before)
    }

    /// Explains why an answer is exploratory.
    fn describe(&self, shown: &Shown, before: &ClaimLook) -> String {
        let n = before.n;
        if shown.is_same && before.plan == self.claim.plan {
            return format!("because the margin or the family was changed after an answer with {n} seeds");
        }
        format!(
            "because it was already tested with {n} seeds, and testing again with other seeds or another plan makes false \
             findings more likely. To avoid this, plan the looks before the first run with `seeds: {{ plan: …, looks: … }}`"
        )
    }
}

#[cfg(test)]
#[path = "looks_tests.rs"]
mod tests;
