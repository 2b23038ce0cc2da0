use super::*;
use crate::comparison::{BICUBIC, Effort, LossRow, against, best};
use crate::config::{DiffusionParams, PredictionType};
use crate::metrics::{Distances, Errors, Forecast, Scores};
use crate::store::Digest;

/// Returns an arm with this CRPS for each seed and each of two images, and these losses.
fn arm(name: &str, seeds: usize, crps: impl Fn(usize) -> [f64; 2], losses: &[f64]) -> Vec<Measured> {
    let row = |(i, &loss): (usize, &f64)| LossRow {
        step: 100 * i as u64,
        loss: None,
        val_loss: Some(loss),
        flops: Some(1e9 * i as f64),
    };
    let errors = Errors { of_sample: 1.0, of_mean: 1.0 };
    let forecast = |crps| Forecast { crps, energy_score: None, errors };
    let of_seed = |seed: usize| Measured {
        name: name.to_string(),
        seed: (seeds > 1).then(|| seed.to_string()),
        samples: 2,
        forecasts: crps(seed).map(forecast).into(),
        distances: Distances::default(),
        losses: losses.iter().enumerate().map(row).collect(),
        ..Measured::default()
    };
    (0..seeds).map(of_seed).collect()
}

fn claim(endpoint: Metric) -> Claim {
    Claim { arm: "a".into(), control: "c".into(), endpoint: Some(endpoint), margin: None }
}

fn params(claims: &[(&str, Claim)]) -> CompareParams {
    let mut params: CompareParams = serde_yaml::from_str("{arms: {a: a, c: c}}").unwrap();
    params.claims = claims.iter().map(|(name, claim)| (name.to_string(), claim.clone())).collect();
    params
}

fn ask(claims: &[(&str, Claim)], arms: [Vec<Measured>; 2]) -> Vec<ClaimAnswer> {
    answers(&params(claims), &arms.concat())
}

#[test]
fn lower_scores_are_better_and_in_percent_of_the_control() {
    let arms = [
        arm("a", 8, |seed| [8.0 + 0.01 * seed as f64, 10.0 + 0.01 * seed as f64], &[1.0]),
        arm("c", 8, |_| [9.0, 11.0], &[1.0]),
    ];
    let answer = ask(&[("any", claim(Metric::Crps))], arms).remove(0);
    // The control's mean is 10, so 1 is 10 %; the mean of 0.01·seed subtracts 0.35 %.
    assert!((answer.effect.unwrap() - (10.0 - 0.35)).abs() < 1e-9, "{answer:?}");
    assert_eq!((answer.verdict, answer.n, answer.p, answer.margin), (Verdict::Confirmed, 8, 1.0 / 128.0, 1.0));
    let [low, high] = answer.interval.unwrap();
    assert!(9.0 < low && low < high && high <= 10.0, "{answer:?}");
}

#[test]
fn bicubic_enlargement_pairs_with_every_seed() {
    let bicubic = || Claim { control: BICUBIC.into(), ..claim(Metric::Crps) };
    let arms = || [arm("a", 7, |_| [8.0, 10.0], &[1.0]), arm(BICUBIC, 1, |_| [9.0, 11.0], &[])];
    assert_eq!(ask(&[("any", bicubic())], arms())[0].n, 7);
    let swapped = Claim { arm: BICUBIC.into(), control: "a".into(), ..bicubic() };
    assert_eq!(ask(&[("any", swapped)], arms())[0].n, 7);
}

#[test]
fn seeds_of_only_one_arm_form_no_pairs() {
    // An arm that was trained once, outside the sweep, pairs with none of the eight seeds.
    for (of_control, pairs) in [(1, 0), (3, 3)] {
        let arms = [arm("a", 8, |_| [8.0, 10.0], &[1.0]), arm("c", of_control, |_| [9.0, 11.0], &[1.0])];
        let answer = ask(&[("any", claim(Metric::Crps))], arms).remove(0);
        assert_eq!((answer.n, answer.by_design, answer.verdict), (pairs, true, Verdict::Inconclusive));
    }
}

#[test]
fn runs_of_one_training_count_once() {
    let of = |trainings: [fn(usize) -> usize; 2]| {
        let mut arms = [arm("a", 8, |seed| [8.0 + seed as f64, 10.0], &[1.0]), arm("c", 8, |_| [20.0; 2], &[1.0])];
        for (side, training_of) in trainings.into_iter().enumerate() {
            for (seed, measured) in arms[side].iter_mut().enumerate() {
                measured.trainings = vec![100 * side + training_of(seed)];
            }
        }
        ask(&[("any", claim(Metric::Crps))], arms).remove(0)
    };
    let whole = of([|seed| seed, |seed| seed]);
    assert_eq!((whole.n, whole.verdict), (8, Verdict::Confirmed));
    // One model of either arm, sampled with eight seeds.
    for once in [of([|_| 0, |_| 0]), of([|seed| seed, |_| 0]), of([|_| 0, |seed| seed])] {
        assert_eq!((once.n, once.pairs, once.by_design, once.interval), (1, 8, true, None));
        assert!((once.effect.unwrap() - whole.effect.unwrap()).abs() < 1e-12, "{once:?}");
    }
    // A chain: seeds 0 and 1 share the arm's training, 1 and 2 the control's.
    assert_eq!(of([|seed| seed / 2, |seed| seed.div_ceil(2)]).n, 1);
    assert_eq!(of([|seed| seed / 2, |seed| seed / 2]).n, 4);
}

#[test]
fn effort_is_measured_to_a_loss_that_both_arms_reach() {
    let at = |steps: f64| Effort { steps, flops: Some(steps * 1e7) };
    // The arm is better: it reaches the control's 0.5 half-way between 0.6 and 0.4.
    let better = [arm("a", 1, |_| [0.0; 2], &[1.0, 0.6, 0.4]), arm("c", 1, |_| [0.0; 2], &[1.0, 0.7, 0.5])];
    let answer = ask(&[("convergence", Claim { endpoint: None, ..claim(Metric::Crps) })], better.clone()).remove(0);
    let found = answer.convergence.unwrap();
    assert_eq!((found.loss, found.control), (0.5, at(200.0)));
    assert!((found.arm.steps - 150.0).abs() < 1e-9 && (found.arm.flops.unwrap() - 1.5e9).abs() < 1.0, "{found:?}");
    assert_eq!(answer.endpoint, Metric::FlopsToLoss);
    assert!((answer.effect.unwrap() - 25.0).abs() < 1e-9, "{answer:?}");
    // If the arms are swapped, the difference changes its sign; it is in percent of the other arm, which needed less.
    let [mut a, mut c] = better;
    (a[0].name, c[0].name) = ("c".into(), "a".into());
    let worse = ask(&[("steps", claim(Metric::StepsToLoss))], [c, a]).remove(0);
    assert!((worse.effect.unwrap() + 100.0 * 50.0 / 150.0).abs() < 1e-9, "{worse:?}");
}

#[test]
fn claims_without_measurements_are_inconclusive() {
    let diverged = [arm("a", 8, |_| [0.0; 2], &[1.0, f64::NAN]), arm("c", 8, |_| [0.0; 2], &[1.0, 0.5])];
    for endpoint in [Metric::ValLoss, Metric::StepsToLoss, Metric::SpectrumDistance, Metric::SsimMean] {
        let answer = ask(&[("any", claim(endpoint))], diverged.clone()).remove(0);
        assert_eq!((answer.verdict, answer.effect, answer.interval), (Verdict::Inconclusive, None, None));
        assert_eq!((answer.n, answer.by_design), (8, false));
        serde_json::to_string(&answer).unwrap();
    }
}

#[test]
fn only_endpoints_that_are_fair_to_both_arms_decide() {
    let of = |samples: [usize; 2], objective: PredictionType, endpoint: Metric| {
        let mut arms = [arm("a", 8, |_| [8.0, 10.0], &[1.0]), arm("c", 8, |_| [9.0, 11.0], &[1.0])];
        for ((arms, samples), psnr) in arms.iter_mut().zip(samples).zip([20.0, 21.0]) {
            let scores = Scores { psnr, consistency_psnr: 40.0, ..Scores::default() };
            let diffusion = DiffusionParams { objective, ..Default::default() };
            arms.iter_mut().for_each(|of_seed| {
                (of_seed.samples, of_seed.diffusion) = (samples, Some(diffusion.clone()));
                (of_seed.sample, of_seed.mean) = (vec![scores; 2], vec![scores; 2]);
            });
        }
        ask(&[("any", claim(endpoint))], arms)[0].effect.is_some()
    };
    let cases = [
        ([4, 4], PredictionType::V, [true, true, true]),
        ([4, 8], PredictionType::V, [true, true, true]),
        ([1, 8], PredictionType::Eps, [false, false, true]),
        ([1, 1], PredictionType::V, [false, false, true]),
        // The outputs of regression are not samples, however many there are.
        ([1, 8], PredictionType::Regression, [true, false, true]),
    ];
    for (samples, objective, fair) in cases {
        let endpoints = [Metric::PsnrMean, Metric::Crps, Metric::PsnrSample];
        assert_eq!(endpoints.map(|e| of(samples, objective, e)), fair, "{samples:?} {objective:?}");
    }
}

/// Two networks have equal errors for infinitely many samples, 16, so that no difference may be found between the
/// mean of two samples and that of eight. Bicubic enlargement has an error of 18: 0.51 dB.
#[test]
fn psnr_of_the_mean_is_compared_for_infinitely_many_samples() {
    let of = |name: &str, samples: usize, variance: f64, error: f64| {
        let mut arms = arm(name, if name == BICUBIC { 1 } else { 6 }, |_| [1.0, 1.0], &[]);
        for of_seed in &mut arms {
            let of_mean = error + variance / samples as f64;
            let errors = Errors { of_sample: error + variance, of_mean };
            of_seed.forecasts.iter_mut().for_each(|forecast| forecast.errors = errors);
            of_seed.samples = samples;
            of_seed.diffusion = (name != BICUBIC).then(DiffusionParams::default);
        }
        arms
    };
    let few = || of("a", 2, 12.0, 16.0);
    let answer = ask(&[("any", claim(Metric::PsnrMean))], [few(), of("c", 8, 12.0, 16.0)]).remove(0);
    assert!(answer.effect.unwrap().abs() < 1e-9, "{answer:?}");
    assert_eq!((answer.samples, answer.verdict), (Some([2, 8]), Verdict::Equivalent));
    let bicubic = Claim { control: BICUBIC.into(), ..claim(Metric::PsnrMean) };
    let answer = ask(&[("any", bicubic)], [few(), of(BICUBIC, 1, 0.0, 18.0)]).remove(0);
    assert!((answer.effect.unwrap() - 10.0 * (18.0_f64 / 16.0).log10()).abs() < 1e-9, "{answer:?}");
    assert_eq!((answer.verdict, answer.beyond_margin), (Verdict::Confirmed, true));
}

#[test]
fn arms_of_one_training_cannot_differ_in_validation_loss() {
    let digest = Some(Digest::of(b"loss"));
    let mut arms = [arm("a", 1, |_| [8.0, 10.0], &[0.5]), arm("c", 1, |_| [9.0, 11.0], &[0.5])];
    arms.iter_mut().flatten().for_each(|of_seed| of_seed.loss_digest.clone_from(&digest));
    let answer = ask(&[("any", claim(Metric::ValLoss))], arms).remove(0);
    assert_eq!((answer.effect, answer.verdict), (None, Verdict::Inconclusive));
    assert!(answer.reason.unwrap().contains("both arms have the same loss.csv"));
}

/// Returns the reason why `val_loss` cannot compare the arms, after `edit` of the arm and the control of each seed.
fn objection_to_losses(edit: impl Fn(usize, &mut Measured, &mut Measured)) -> Option<String> {
    let [mut a, mut c] = [arm("a", 6, |_| [8.0, 10.0], &[0.4]), arm("c", 6, |_| [9.0, 11.0], &[0.5])];
    a.iter_mut().zip(&mut c).enumerate().for_each(|(seed, (a, c))| edit(seed, a, c));
    let answer = ask(&[("any", claim(Metric::ValLoss))], [a.clone(), c.clone()]).remove(0);
    let arms = [a, c].concat();
    let is_ranked = best(&arms, None).contains_key(&Metric::ValLoss);
    let is_compared = against("c", &arms, None).iter().any(|difference| difference.metric == Metric::ValLoss);
    let is_answered = answer.effect.is_some();
    assert_eq!([is_ranked, is_compared, is_answered], [answer.reason.is_none(); 3], "{:?}", answer.reason);
    answer.reason
}

#[test]
fn one_rule_decides_whether_losses_are_compared() {
    let objection = |edit: fn(usize, &mut Measured, &mut Measured)| objection_to_losses(edit).unwrap_or_default();
    assert_eq!(objection(|_, _, _| {}), "");
    assert_eq!(objection(|_, a, c| (a.loss_kind, c.loss_kind) = (Some(0), Some(0))), "");
    let incomparable = "the losses of the arms are not comparable";
    // The same diffusion parameters, but other data.
    let diffusion = |m: &mut Measured| m.diffusion = Some(DiffusionParams::default());
    let other_data = objection_to_losses(|_, a, c| {
        (a.loss_kind, c.loss_kind) = (Some(0), Some(1));
        [a, c].into_iter().for_each(diffusion);
    });
    assert!(other_data.unwrap().contains(incomparable));
    assert!(objection(|_, a, _| a.loss_kind = Some(0)).contains(incomparable), "a command and a training run");
    assert!(objection(|_, a, _| a.diffusion = Some(DiffusionParams::default())).contains(incomparable));
    // A command rewrote the loss file of the same training run.
    let copied = objection(|seed, a, c| (a.trainings, c.trainings) = (vec![seed, 6 + seed], vec![seed]));
    assert!(copied.contains("both arms depend on the same training run"), "{copied}");
}

#[test]
fn samples_of_an_unknown_model_count_as_random() {
    let of = |objective: Option<PredictionType>, endpoint| {
        let arms = [("a", 8.0), ("c", 9.0)].map(|(name, crps)| arm(name, 6, move |_| [crps, crps], &[]));
        let [mut a, mut c] = arms;
        for (of_seed, objective) in
            a.iter_mut().map(|a| (a, Some(PredictionType::Regression))).chain(c.iter_mut().map(|c| (c, objective)))
        {
            of_seed.samples = 1;
            of_seed.diffusion = objective.map(|objective| DiffusionParams { objective, ..Default::default() });
            let (psnr, ssim) = if of_seed.name == "a" { (20.0, 0.5) } else { (21.0, 0.6) };
            let scores = Scores { psnr, ssim: Some(ssim), consistency_psnr: 40.0, ..Scores::default() };
            (of_seed.sample, of_seed.mean) = (vec![scores; 2], vec![scores; 2]);
        }
        let arms = [a, c];
        assert!(objective.is_some() || best(&arms.concat(), None).is_empty());
        ask(&[("any", claim(endpoint))], arms).remove(0)
    };
    for endpoint in [Metric::PsnrSample, Metric::SsimSample, Metric::PsnrMean] {
        let reason = of(None, endpoint).reason.unwrap();
        assert!(reason.contains("The outputs of a command count as random draws"), "{reason}");
        assert_eq!(of(Some(PredictionType::Regression), endpoint).reason, None);
        assert!(!of(Some(PredictionType::V), endpoint).reason.unwrap().contains("command"));
    }
}

#[test]
fn claims_of_other_comparisons_count_in_the_correction() {
    let arms = || [arm("a", 7, |_| [8.0, 10.0], &[0.4]), arm("c", 7, |_| [9.0, 11.0], &[0.5])];
    let of = |in_family| CompareParams { claims_in_family: in_family, ..params(&[("any", claim(Metric::Crps))]) };
    let alone = answers(&of(1), &arms().concat()).remove(0);
    assert_eq!((alone.p_holm, alone.verdict, alone.family_claims), (1.0 / 64.0, Verdict::Confirmed, Some(1)));
    let of_four = answers(&of(4), &arms().concat()).remove(0);
    assert_eq!((of_four.p_holm, of_four.by_design, of_four.seeds_needed), (4.0 / 64.0, true, 8));
}

#[test]
fn claims_are_corrected_for_one_another() {
    let arms = || [arm("a", 7, |_| [8.0, 10.0], &[0.4]), arm("c", 7, |_| [9.0, 11.0], &[0.5])];
    let two = [("one", claim(Metric::Crps)), ("two", claim(Metric::ValLoss))];
    let found = ask(&two, arms());
    assert!(found.iter().all(|a| a.p == 1.0 / 64.0 && a.p_holm == 2.0 / 64.0 && a.verdict == Verdict::Confirmed));
    let four = ["one", "two", "three", "four"].map(|name| (name, claim(Metric::Crps)));
    assert!(ask(&four, arms()).iter().all(|a| a.by_design && a.seeds_needed == 8));
}

#[test]
fn a_planned_study_is_tested_only_at_its_looks() {
    let at = |seeds, plan, looks| {
        let arms = [
            arm("a", seeds, |seed| [8.0, 10.0].map(|crps| crps + 0.01 * seed as f64), &[0.4]),
            arm("c", seeds, |_| [9.0, 11.0], &[0.5]),
        ];
        let planned =
            CompareParams { seeds: Some(SeedPlan { plan, looks }), ..params(&[("any", claim(Metric::Crps))]) };
        answers(&planned, &arms.concat()).remove(0)
    };
    // The share of the first look is 0.0056, and ten seeds have p = 1/512.
    let first = at(10, 20, 2);
    assert_eq!((first.verdict, first.by_design, first.seeds_needed), (Verdict::Confirmed, false, 10));
    assert!((first.look.unwrap().alpha - 0.005_574_6).abs() < 1e-6, "{first:?}");
    let between = at(9, 20, 2);
    assert_eq!((between.verdict, between.look), (Verdict::Inconclusive, None));
    assert_eq!(between.reason.unwrap(), "the claim has 9 seeds, but its tests are planned at 10, 20");
    // With six seeds, p is at least 1/32, which is above the share of the first of two looks.
    let early = at(6, 12, 2);
    assert_eq!((early.verdict, early.by_design, early.seeds_needed), (Verdict::Inconclusive, true, 12));
    assert_eq!(at(6, 6, 1).verdict, Verdict::Confirmed);
}

#[test]
fn claims_with_different_numbers_of_seeds_are_tested_at_their_own_looks() {
    let of = |name, seeds| arm(name, seeds, |seed| [8.0, 10.0].map(|crps| crps + 0.01 * seed as f64), &[0.4]);
    let arms = [of("a", 20), of("b", 10), of("d", 9), arm("c", 20, |_| [9.0, 11.0], &[0.5])].concat();
    let claims = ["a", "b", "d"].map(|arm| (arm, Claim { arm: arm.into(), ..claim(Metric::Crps) }));
    let planned = CompareParams { seeds: Some(SeedPlan { plan: 20, looks: 2 }), ..params(&claims) };
    let [a, b, d] = answers(&planned, &arms).try_into().unwrap();
    let alpha = |answer: &ClaimAnswer| answer.look.map(|look| look.alpha);
    assert_eq!((a.n, b.n, d.n, alpha(&d)), (20, 10, 9, None));
    let [first, last] = [&b, &a].map(|answer| alpha(answer).unwrap());
    assert!((first - 0.005_574_6).abs() < 1e-6 && (first + last - 0.05).abs() < 1e-9, "{first} {last}");
    // Ten seeds have p = 1/512 and twenty have p = 1/2^19; the claim that is not tested counts as not rejected.
    assert!((b.p_holm - 2.0 / 512.0 * 0.05 / first).abs() < 1e-9, "{b:?}");
    assert!((a.p_holm - 3.0 * a.p * 0.05 / last).abs() < 1e-9 && a.p < 1e-5, "{a:?}");
    assert_eq!(
        [&a, &b, &d].map(|answer| answer.verdict),
        [Verdict::Confirmed, Verdict::Confirmed, Verdict::Inconclusive]
    );
    assert_eq!(
        (d.p_holm, d.reason.as_deref()),
        (1.0, Some("the claim has 9 seeds, but its tests are planned at 10, 20"))
    );
    assert!((d.p - 1.0 / 256.0).abs() < 1e-9 && d.effect.is_some(), "{d:?}");
}

#[test]
fn findings_are_described_in_plain_language() {
    let answer = ask(
        &[("any", claim(Metric::Crps))],
        [arm("a", 8, |seed| [8.0 + 0.01 * seed as f64, 10.0], &[1.0]), arm("c", 8, |_| [9.0, 11.0], &[1.0])],
    )
    .remove(0);
    assert_eq!(
        answer.describe_finding(),
        "a is better than c, by 9.83 % in this study, significantly more than the margin of 1 %."
    );
    let equal = ClaimAnswer { verdict: Verdict::Equivalent, ..answer.clone() };
    assert_eq!(
        equal.describe_finding(),
        "a and c are equivalent: if they differ at all, then by less than the margin of 1 %."
    );
    let open = |interval| ClaimAnswer { verdict: Verdict::Inconclusive, interval, ..answer.clone() }.describe_finding();
    let unknown = "This study does not show whether a is better or worse than c";
    assert_eq!(open(None), format!("{unknown}."));
    assert_eq!(
        open(Some([-1.0, 2.5])),
        format!("{unknown}: anything from 1.00 % worse to 2.50 % better is plausible.")
    );
    let weak =
        format!("{unknown}. The interval is 1.00 % to 3.00 % worse, but the evidence is too weak for a verdict.");
    assert_eq!(open(Some([-3.0, -1.0])), weak);
}

#[test]
fn differences_from_a_control_are_corrected_and_omit_bicubic() {
    let arms = [
        arm("a", 8, |seed| [8.0 + 0.01 * seed as f64, 12.0], &[0.4]),
        arm("b", 8, |seed| [9.0 + if seed.is_multiple_of(2) { 0.5 } else { -0.5 }, 11.0], &[0.5]),
        arm("c", 8, |_| [9.0, 11.0], &[0.5]),
        arm(BICUBIC, 1, |_| [9.0, 11.0], &[]),
    ]
    .concat();
    let all = against("c", &arms, None);
    let of = |arm: &str, metric| all.iter().find(|d| d.arm == arm && d.metric == metric);
    let a = of("a", Metric::Crps).unwrap();
    // Better on one of two images.
    assert_eq!((a.n, a.probability, a.is_significant), (8, 0.5, false));
    let loss = of("a", Metric::ValLoss).unwrap();
    assert!((loss.effect - 20.0).abs() < 1e-9 && loss.is_significant && loss.probability == 1.0, "{loss:?}");
    // All seeds have the same difference, so the interval has no width.
    assert_eq!(loss.p_holm, 0.0);
    let b = of("b", Metric::Crps).unwrap();
    assert!(!b.is_significant && b.probability == 0.5, "{b:?}");
    assert!(all.iter().all(|d| d.arm != BICUBIC && d.control == "c"));
    assert!(of("a", Metric::Calibration).is_none());
}

#[test]
fn the_best_arms_are_those_that_are_not_significantly_worse_than_the_best() {
    let noisy = |level: f64| move |seed: usize| [level + if seed.is_multiple_of(2) { 0.5 } else { -0.5 }, level];
    let arms =
        |worst: f64| [arm("a", 8, |_| [8.0, 8.0], &[]), arm("b", 8, noisy(8.1), &[]), arm("c", 8, |_| [worst; 2], &[])];
    let best_of = |arms: [Vec<Measured>; 3]| best(&arms.concat(), None).remove(&Metric::Crps);
    assert_eq!(best_of(arms(12.0)), Some(vec!["a".to_string(), "b".to_string()]));
    assert_eq!(best_of(arms(8.05)).unwrap(), ["a", "b"]);
    // With five seeds, no arm is distinguishable from the best.
    let few = |arms: [Vec<Measured>; 3]| arms.map(|seeds| seeds[..5].to_vec());
    assert_eq!(best_of(few(arms(12.0))), None);
}

#[test]
fn nothing_is_significant_before_a_verdict_is_possible() {
    let arms = |seeds| {
        let noisy = |seed: usize| [8.0 + 0.01 * seed as f64; 2];
        [arm("a", seeds, noisy, &[0.4]), arm("c", seeds, |_| [12.0; 2], &[0.5])].concat()
    };
    let of = |seeds, plan| {
        let mut all = against("c", &arms(seeds), plan);
        // The arms do not differ by the PSNR.
        all.retain(|difference| difference.metric != Metric::PsnrMeanLimit);
        let found: Vec<bool> = all.iter().map(|difference| difference.is_significant).collect();
        assert!(found.iter().all(|is| *is == found[0]) && all.iter().all(|d| d.effect > 10.0), "{all:?}");
        [found[0], !best(&arms(seeds), plan).is_empty()]
    };
    assert_eq!(of(3, None), [false; 2]);
    assert_eq!(of(6, None), [true; 2]);
    // Between the looks at ten and at twenty seeds.
    let plan = Some(SeedPlan { plan: 20, looks: 2 });
    assert_eq!(of(15, plan), [false; 2]);
    assert_eq!(of(10, plan), [true; 2]);
    assert_eq!(of(20, plan), [true; 2]);
    // The first of two looks has too few seeds for any verdict.
    assert_eq!(of(6, Some(SeedPlan { plan: 12, looks: 2 })), [false; 2]);
}

/// The arm with K = 16 has a higher PSNR of the mean than the arm with K = 2, although its network is worse.
#[test]
fn the_best_arms_do_not_depend_on_the_number_of_samples() {
    let of = |name: &str, samples: usize, error: f64| {
        let mut arms = arm(name, 6, |_| [1.0, 1.0], &[]);
        for (seed, of_seed) in arms.iter_mut().enumerate() {
            let of_mean = error + 0.01 * seed as f64 + 16.0 / samples as f64;
            let errors = Errors { of_sample: error + 0.01 * seed as f64 + 16.0, of_mean };
            of_seed.forecasts.iter_mut().for_each(|forecast| forecast.errors = errors);
            let psnr = 10.0 * (65025.0 / of_mean).log10();
            of_seed.mean = vec![Scores { psnr, ..Scores::default() }; 2];
            (of_seed.samples, of_seed.diffusion) = (samples, Some(DiffusionParams::default()));
        }
        arms
    };
    let arms = [of("few", 2, 16.0), of("many", 16, 18.0)].concat();
    let found = best(&arms, None);
    assert_eq!((found.get(&Metric::PsnrMean), &found[&Metric::PsnrMeanLimit]), (None, &vec!["few".to_string()]));
    let figure = |arm: usize, metric| arms[arm].figures().get(metric).unwrap();
    assert!(figure(0, Metric::PsnrMean) < figure(6, Metric::PsnrMean));
    assert!(figure(0, Metric::PsnrMeanLimit) > figure(6, Metric::PsnrMeanLimit));
}
