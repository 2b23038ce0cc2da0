use super::*;
use crate::comparison::testing::claim_answer;
use crate::config::SeedPlan;
use crate::config::metrics::Metric;

/// Returns an answer with a verdict, based on `n` seeds.
fn answer(n: usize) -> ClaimAnswer {
    ClaimAnswer { n, by_design: false, verdict: Verdict::Confirmed, endpoint: Metric::Crps, ..claim_answer() }
}

fn planned(n: usize, plan: SeedPlan) -> ClaimAnswer {
    ClaimAnswer { plan: Some(plan), ..answer(n) }
}

/// Returns the inputs of a comparison of three arms with seeds. `sampler` changes the samples but not the training.
fn sampled(seeds: std::ops::Range<usize>, sampler: &str) -> Inputs {
    let digest = |text: String| Digest::of(text.as_bytes());
    let of_seed = |seed: usize| {
        ["attention", "baseline", "other"].map(|arm| {
            let blobs = [
                (SAMPLES.to_string(), digest(format!("{arm} {seed} {sampler}"))),
                (LOSS.to_string(), digest(format!("{arm} {seed}"))),
            ];
            (format!("arms.{arm}[seed={seed}]"), BTreeMap::from(blobs))
        })
    };
    seeds.flat_map(of_seed).collect()
}

fn inputs(seeds: usize) -> Inputs {
    sampled(0..seeds, "ddim")
}

/// Returns the look of the `run`-th run at an answer based on all of its seeds.
fn at(run: usize, answer: &ClaimAnswer) -> StudyLook {
    look(&run.to_string(), std::slice::from_ref(answer), &inputs(answer.n)).unwrap()
}

fn of(answer: &ClaimAnswer, inputs: &Inputs, earlier: &[StudyLook]) -> Option<String> {
    exploratory(std::slice::from_ref(answer), inputs, earlier).remove(0)
}

fn is_exploratory(answer: &ClaimAnswer, earlier: &[StudyLook]) -> bool {
    of(answer, &inputs(answer.n), earlier).is_some()
}

const PLAN: SeedPlan = SeedPlan { plan: 12, looks: 2 };

#[test]
fn answers_after_adding_seeds_are_exploratory_unless_planned() {
    let six = at(1, &answer(6));
    let why = of(&answer(8), &inputs(8), std::slice::from_ref(&six)).unwrap();
    assert!(why.starts_with("because it was already tested with 6 seeds"), "{why}");
    assert!(!is_exploratory(&answer(6), std::slice::from_ref(&six)));
    assert!(is_exploratory(&answer(6), &[at(1, &answer(8))]), "a selection of the seeds");
    assert!(!is_exploratory(&answer(6), &[six.clone(), at(2, &answer(8))]), "a repetition of the first answer");
    assert!(!is_exploratory(&planned(12, PLAN), &[at(1, &planned(6, PLAN))]));
    // Seeds that were exchanged, and other seeds.
    assert!(of(&answer(8), &sampled(5..13, "ddim"), std::slice::from_ref(&six)).is_some());
    assert_eq!(of(&answer(8), &sampled(6..14, "ddim"), &[six]), None);
}

#[test]
fn plans_that_are_made_deleted_or_changed_later_do_not_count() {
    assert!(is_exploratory(&answer(6), &[at(1, &planned(6, PLAN))]));
    assert!(is_exploratory(&planned(12, PLAN), &[at(1, &answer(6))]));
    assert!(is_exploratory(&planned(18, SeedPlan { plan: 18, looks: 3 }), &[at(1, &planned(12, PLAN))]));
    // The same look with more samples of the same networks.
    let more: Inputs = inputs(6).into_iter().chain(sampled(6..12, "ddim")).collect();
    assert!(of(&planned(6, PLAN), &more, &[at(1, &planned(6, PLAN))]).is_some());
    // Nine seeds were shown without a test; that matters only if the plan changes.
    let shown = ClaimAnswer { reason: Some("planned at 6, 12".into()), by_design: true, ..planned(9, PLAN) };
    assert!(!is_exploratory(&planned(12, PLAN), &[at(1, &shown)]));
    assert!(is_exploratory(&planned(9, SeedPlan { plan: 9, looks: 1 }), &[at(1, &shown)]));
    assert!(is_exploratory(&answer(9), &[at(1, &shown)]));
}

#[test]
fn names_do_not_matter() {
    let six = at(1, &answer(6));
    let mut renamed = six.clone();
    renamed.arms = renamed.arms.into_iter().map(|(name, data)| (format!("new {name}"), data)).collect();
    for claim in &mut renamed.claims {
        (claim.arm, claim.control) = (format!("new {}", claim.arm), format!("new {}", claim.control));
    }
    let swapped = ClaimAnswer { arm: "baseline".into(), control: "attention".into(), claim: "x".into(), ..answer(8) };
    for (earlier, now) in [(renamed, answer(8)), (six.clone(), swapped)] {
        let why = of(&now, &inputs(8), &[earlier]).unwrap();
        assert!(why.contains("already tested with 6 seeds"), "{why}");
    }
    // Another arm with the same control is another question, but its metrics were shown as well.
    let other = ClaimAnswer { arm: "other".into(), ..answer(6) };
    let why = of(&other, &inputs(6), std::slice::from_ref(&six)).unwrap();
    assert!(why.contains("with 6 seeds was shown before the claim was made"), "{why}");
    let bicubic = ClaimAnswer { control: BICUBIC.into(), ..answer(8) };
    let earlier = at(1, &ClaimAnswer { control: BICUBIC.into(), ..answer(6) });
    assert!(of(&bicubic, &inputs(8), &[earlier]).unwrap().contains("already tested"));
}

#[test]
fn endpoints_of_training_are_identified_by_their_networks() {
    let loss = |n| ClaimAnswer { endpoint: Metric::ValLoss, ..answer(n) };
    let earlier = |answer| [at(1, &answer)];
    let resampled = sampled(0..8, "heun");
    assert!(of(&loss(8), &resampled, &earlier(loss(6))).unwrap().contains("already tested with 6 seeds"));
    assert_eq!(of(&loss(6), &sampled(0..6, "heun"), &earlier(loss(6))), None);
    assert!(of(&answer(8), &resampled, &earlier(answer(6))).unwrap().contains("already tested with 6 seeds"));
    // The same networks, sampled in another way.
    assert!(of(&answer(6), &sampled(0..6, "heun"), &earlier(answer(6))).unwrap().contains("other samples"));
}

#[test]
fn claims_made_after_the_results_are_exploratory() {
    let without = look("1", &[], &inputs(6)).unwrap();
    let with = at(2, &answer(6));
    assert!(is_exploratory(&answer(6), std::slice::from_ref(&without)));
    assert!(is_exploratory(&answer(6), &[without.clone(), with.clone()]), "even if repeated");
    assert!(is_exploratory(&answer(6), &[at(1, &ClaimAnswer { endpoint: Metric::PsnrMean, ..answer(6) })]));
    // Another comparison of the same run shows the same arms.
    let beside = StudyLook { run: "2".into(), ..without };
    assert!(!is_exploratory(&answer(6), &[beside.clone(), with]));
    assert!(!is_exploratory(&planned(12, PLAN), &[beside, at(2, &planned(6, PLAN))]));
}

#[test]
fn the_margin_and_the_family_must_not_be_fitted_to_the_results() {
    let of_two = |n| ClaimAnswer { family_claims: Some(2), ..answer(n) };
    let earlier = [at(1, &of_two(8))];
    assert!(!is_exploratory(&ClaimAnswer { family_claims: Some(3), ..answer(8) }, &earlier));
    for now in [ClaimAnswer { family_claims: Some(1), ..answer(8) }, ClaimAnswer { margin: 7.0, ..of_two(8) }] {
        let why = of(&now, &inputs(8), &earlier).unwrap();
        assert!(why.contains("the margin or the family was changed after an answer with 8 seeds"), "{why}");
    }
}

#[test]
fn a_study_too_small_to_decide_is_not_a_look() {
    assert_eq!(look("1", &[answer(1)], &inputs(1)), None);
    assert!(!is_exploratory(&answer(8), &[at(1, &answer(5))]), "five seeds give no verdict");
    // Without the claim, they can suggest one; with it, a margin.
    let shown = look("1", &[], &inputs(5)).unwrap();
    assert!(is_exploratory(&answer(8), &[shown]));
    let why = of(&ClaimAnswer { margin: 7.0, ..answer(8) }, &inputs(8), &[at(1, &answer(5))]).unwrap();
    assert!(why.contains("the margin or the family was changed"), "{why}");
    // Four claims need eight seeds to be confirmed, but six are enough for equivalence.
    let of_four = |n| ClaimAnswer { family_claims: Some(4), ..answer(n) };
    let six = [at(1, &ClaimAnswer { by_design: true, verdict: Verdict::Inconclusive, ..of_four(6) })];
    assert!(!is_exploratory(&of_four(8), &six));
    assert!(is_exploratory(&ClaimAnswer { verdict: Verdict::Equivalent, ..of_four(8) }, &six));
    assert!(is_exploratory(&answer(6), &six), "the family became smaller");
    // Samples of one training run.
    let mut one = inputs(8);
    let loss = Digest::of(b"one");
    one.values_mut().for_each(|blobs| drop(blobs.insert(LOSS.to_string(), loss.clone())));
    assert_eq!(look("1", &[answer(1)], &one), None);
}
