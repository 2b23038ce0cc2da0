//! Which answers are exploratory, because the same question was answered before with other seeds or another plan.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::ClaimAnswer;
use crate::config::blobs::SAMPLES;
use crate::runs::StudyLook;
use crate::store::Digest;

/// The number of hexadecimal digits of a truncated digest.
const DIGITS: usize = 16;

/// The blobs that a comparison reads, by role and name.
pub type Inputs = BTreeMap<String, BTreeMap<String, Digest>>;

/// Returns the record of an answer of the comparison `stage`, which has read `inputs`. `None` if the study was too small
/// for any verdict, so that the answer does not count as a look.
pub fn look(stage: &str, answer: &ClaimAnswer, inputs: &Inputs) -> Option<StudyLook> {
    if answer.reason.is_some() || answer.by_design {
        return None;
    }
    let is_of_claim = |role: &str| {
        let name = role.strip_prefix("arms.").unwrap_or_default();
        [&answer.arm, &answer.control].iter().any(|arm| name == **arm || name.starts_with(&format!("{arm}[seed=")))
    };
    let samples = inputs.iter().filter(|(role, _)| is_of_claim(role)).filter_map(|(_, blobs)| blobs.get(SAMPLES));
    let start = |digest: &Digest| digest.to_string().chars().take(DIGITS).collect();
    Some(StudyLook {
        stage: stage.to_string(),
        claim: answer.claim.clone(),
        question: [answer.arm.clone(), answer.control.clone(), answer.endpoint.to_string()],
        n: answer.n,
        plan: answer.look.map(|look| look.plan),
        samples: samples.map(start).collect::<BTreeSet<String>>(),
    })
}

/// Returns the earlier look that makes `now` exploratory: one at the same question with other seeds, some of which are the
/// same, or with another plan. Planned looks at a growing study are not exploratory. The name of the claim does not matter.
fn unplanned<'a>(now: &StudyLook, earlier: &'a [StudyLook]) -> Option<&'a StudyLook> {
    earlier.iter().find(|look| {
        let is_same_question = look.question == now.question && look.stage == now.stage;
        let is_same_look = look.samples == now.samples && look.plan == now.plan;
        let is_planned = look.plan.is_some() && look.plan == now.plan && look.samples.is_subset(&now.samples);
        is_same_question && !look.samples.is_disjoint(&now.samples) && !is_same_look && !is_planned
    })
}

/// Returns, for each answer of the comparison `stage`, the reason why it is exploratory, if it is.
pub fn exploratory(
    stage: &str,
    answers: &[ClaimAnswer],
    inputs: &Inputs,
    earlier: &[StudyLook],
) -> Vec<Option<String>> {
    let of_answer = |answer| Some(describe(unplanned(&look(stage, answer, inputs)?, earlier)?));
    answers.iter().map(of_answer).collect()
}

/// Explains why an answer is exploratory.
fn describe(earlier: &StudyLook) -> String {
    format!(
        "because it was already tested with {} seeds, and testing again with other seeds or another plan makes false \
         findings more likely. To avoid this, plan the looks before the first run with `seeds: {{ plan: …, looks: … }}`",
        earlier.n
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::PlannedLook;
    use crate::comparison::testing::claim_answer;
    use crate::config::SeedPlan;

    fn at(seeds: usize, plan: Option<SeedPlan>) -> StudyLook {
        let look = plan.map(|plan| PlannedLook { plan, alpha: 0.01 });
        let answer = ClaimAnswer { n: seeds, by_design: false, look, ..claim_answer() };
        let input = |arm: &str, seed: usize| {
            let digest = Digest::of(format!("{arm} {seed}").as_bytes());
            (format!("arms.{arm}[seed={seed}]"), BTreeMap::from([(SAMPLES.to_string(), digest)]))
        };
        let inputs: Inputs =
            (0..seeds).flat_map(|seed| ["attention", "baseline", "other"].map(|arm| input(arm, seed))).collect();
        look_of(&answer, &inputs)
    }

    fn look_of(answer: &ClaimAnswer, inputs: &Inputs) -> StudyLook {
        look("compare", answer, inputs).unwrap()
    }

    #[test]
    fn answers_after_adding_seeds_are_exploratory_unless_planned() {
        let plan = Some(SeedPlan { plan: 12, looks: 2 });
        assert_eq!(at(6, None).samples.len(), 12);
        assert_eq!(unplanned(&at(8, None), &[at(6, None)]), Some(&at(6, None)));
        assert_eq!(unplanned(&at(6, None), &[at(6, None)]), None);
        assert!(unplanned(&at(6, None), &[at(8, None)]).is_some(), "a selection of the seeds");
        assert_eq!(unplanned(&at(12, plan), &[at(6, plan)]), None);
        // Seeds that were exchanged, a claim with another name, and a plan that was deleted, made or changed.
        let exchanged = StudyLook { samples: at(6, None).samples.into_iter().skip(2).collect(), ..at(6, None) };
        assert!(unplanned(&exchanged, &[at(6, None)]).is_some());
        let renamed = StudyLook { claim: "other".to_string(), ..at(6, None) };
        assert!(unplanned(&at(8, None), &[renamed]).is_some());
        assert!(unplanned(&at(6, None), &[at(6, plan)]).is_some());
        assert!(unplanned(&at(12, plan), &[at(6, None)]).is_some());
        let longer = Some(SeedPlan { plan: 18, looks: 3 });
        assert!(unplanned(&at(18, longer), &[at(12, plan)]).is_some());
        // Another study.
        let retrained = StudyLook { samples: BTreeSet::from(["0".to_string()]), ..at(6, None) };
        assert_eq!(unplanned(&at(8, None), &[retrained]), None);
    }

    #[test]
    fn a_study_too_small_to_decide_is_not_a_look() {
        let few = ClaimAnswer { n: 3, by_design: true, ..claim_answer() };
        assert_eq!(look("compare", &few, &Inputs::new()), None);
    }
}
