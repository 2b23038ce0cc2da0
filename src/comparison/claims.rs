//! Evaluates the claims of a comparison against the measurements.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::loss::LossRow;
use super::measured::{BICUBIC, Measured};
use crate::config::claims::Claim;
use crate::config::metrics::{Metric, Unit};
use crate::stats::{self, Family, Question, Verdict, seeds_needed};
use crate::store::Digest;

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
    /// Why the claim cannot be answered, whatever is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The number of independent trainings that both arms have; several samplings of one training count once.
    pub n: usize,
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
            reason: self.replicates.iter().flatten().find_map(|pair| objection(self.endpoint, pair)),
            n,
            by_design: answer.verdict == Verdict::Inconclusive && n < needed,
            seeds_needed: needed,
            convergence: self.endpoint.is_convergence().then(|| convergence(&self.replicates)).flatten(),
        }
    }
}

type Pair<'a> = (&'a Measured, &'a Measured);

/// Pairs that share a training with one another and with no other pair. They count as one random draw, however many
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

/// Groups pairs in the order of their first pairs. Pairs without a known training share none.
fn replicates(pairs: Vec<Pair>) -> Vec<Replicate> {
    fn trainings<'a>(&(arm, control): &Pair<'a>) -> impl Iterator<Item = &'a Digest> {
        [&arm.training, &control.training].into_iter().flatten()
    }
    let mut replicates: Vec<Replicate> = vec![];
    for pair in pairs {
        let of_pair: Vec<&Digest> = trainings(&pair).collect();
        let (shared, others): (Vec<Replicate>, Vec<Replicate>) =
            replicates.into_iter().partition(|r| r.iter().flat_map(trainings).any(|t| of_pair.contains(&t)));
        replicates = others;
        replicates.push(shared.into_iter().flatten().chain([pair]).collect());
    }
    replicates
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
    if endpoint.is_of_training() && arm.training.is_some() && arm.training == control.training {
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
mod tests {
    use super::*;
    use crate::config::{DiffusionParams, PredictionType};
    use crate::metrics::{Distances, Errors, Forecast, Scores};

    /// An arm with some seeds, whose CRPS of two images and whose losses are as given.
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

    fn ask(claims: &[(&str, Claim)], arms: [Vec<Measured>; 2]) -> Vec<ClaimAnswer> {
        let claims = claims.iter().map(|(name, claim)| (name.to_string(), claim.clone())).collect();
        answers(&claims, 0, &arms.concat())
    }

    #[test]
    fn lower_scores_are_better_and_in_percent_of_the_control() {
        let arms = [
            arm("a", 8, |seed| [8.0 + 0.01 * seed as f64, 10.0 + 0.01 * seed as f64], &[1.0]),
            arm("c", 8, |_| [9.0, 11.0], &[1.0]),
        ];
        let answer = ask(&[("any", claim(Metric::Crps))], arms).remove(0);
        // Ten is the control's mean: 1 is 10 %, less 0.035 of 10 %.
        assert!((answer.effect.unwrap() - (10.0 - 0.35)).abs() < 1e-9, "{answer:?}");
        assert_eq!((answer.verdict, answer.n, answer.p, answer.margin), (Verdict::Confirmed, 8, 1.0 / 128.0, 1.0));
        let [low, high] = answer.interval.unwrap();
        assert!(9.0 < low && low < high && high <= 10.0, "{answer:?}");
    }

    #[test]
    fn bicubic_enlargement_stands_beside_every_seed() {
        let bicubic = || Claim { control: BICUBIC.into(), ..claim(Metric::Crps) };
        let arms = || [arm("a", 7, |_| [8.0, 10.0], &[1.0]), arm(BICUBIC, 1, |_| [9.0, 11.0], &[])];
        assert_eq!(ask(&[("any", bicubic())], arms())[0].n, 7);
        let turned = Claim { arm: BICUBIC.into(), control: "a".into(), ..bicubic() };
        assert_eq!(ask(&[("any", turned)], arms())[0].n, 7);
    }

    #[test]
    fn seeds_that_only_one_has_are_no_pairs() {
        // Trained once, without a seed of the sweep: it is no control of eight others.
        for (of_control, pairs) in [(1, 0), (3, 3)] {
            let arms = [arm("a", 8, |_| [8.0, 10.0], &[1.0]), arm("c", of_control, |_| [9.0, 11.0], &[1.0])];
            let answer = ask(&[("any", claim(Metric::Crps))], arms).remove(0);
            assert_eq!((answer.n, answer.by_design, answer.verdict), (pairs, true, Verdict::Inconclusive));
        }
    }

    #[test]
    fn what_was_trained_once_counts_once() {
        let training = |i: usize| Some(Digest::of(&[i as u8]));
        let of = |trainings: [fn(usize) -> usize; 2]| {
            let mut arms = [arm("a", 8, |seed| [8.0 + seed as f64, 10.0], &[1.0]), arm("c", 8, |_| [20.0; 2], &[1.0])];
            for (side, training_of) in trainings.into_iter().enumerate() {
                for (seed, measured) in arms[side].iter_mut().enumerate() {
                    measured.training = training(100 * side + training_of(seed));
                }
            }
            ask(&[("any", claim(Metric::Crps))], arms).remove(0)
        };
        let whole = of([|seed| seed, |seed| seed]);
        assert_eq!((whole.n, whole.verdict), (8, Verdict::Confirmed));
        // One model of either side that was sampled with eight seeds.
        for once in [of([|_| 0, |_| 0]), of([|seed| seed, |_| 0]), of([|_| 0, |seed| seed])] {
            assert_eq!((once.n, once.by_design, once.interval), (1, true, None));
            assert!((once.effect.unwrap() - whole.effect.unwrap()).abs() < 1e-12, "{once:?}");
        }
        // Chains: 0 and 1 share the arm's, 1 and 2 the control's.
        assert_eq!(of([|seed| seed / 2, |seed| seed.div_ceil(2)]).n, 1);
        assert_eq!(of([|seed| seed / 2, |seed| seed / 2]).n, 4);
    }

    #[test]
    fn the_time_to_a_loss_is_that_of_the_loss_both_reach() {
        let at = |steps: f64| Effort { steps, flops: Some(steps * 1e7) };
        // The arm is better: it has the control's 0.5 half way from 0.6 to 0.4.
        let better = [arm("a", 1, |_| [0.0; 2], &[1.0, 0.6, 0.4]), arm("c", 1, |_| [0.0; 2], &[1.0, 0.7, 0.5])];
        let answer = ask(&[("convergence", Claim { endpoint: None, ..claim(Metric::Crps) })], better.clone()).remove(0);
        let found = answer.convergence.unwrap();
        assert_eq!((found.loss, found.control), (0.5, at(200.0)));
        assert!((found.arm.steps - 150.0).abs() < 1e-9 && (found.arm.flops.unwrap() - 1.5e9).abs() < 1.0, "{found:?}");
        assert_eq!(answer.endpoint, Metric::FlopsToLoss);
        assert!((answer.effect.unwrap() - 25.0).abs() < 1e-9, "{answer:?}");
        // Exchanged, the difference is the other way round; it is in percent of the other one, which took less.
        let [mut a, mut c] = better;
        (a[0].name, c[0].name) = ("c".into(), "a".into());
        let worse = ask(&[("steps", claim(Metric::StepsToLoss))], [c, a]).remove(0);
        assert!((worse.effect.unwrap() + 100.0 * 50.0 / 150.0).abs() < 1e-9, "{worse:?}");
    }

    #[test]
    fn what_was_not_measured_is_inconclusive() {
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
            let scores = Scores { psnr: 20.0, psnr_y: None, ssim: None, ssim_y: None, consistency_psnr: 40.0 };
            for (arms, samples) in arms.iter_mut().zip(samples) {
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
    fn one_training_has_no_difference_in_its_own_validation_loss() {
        let training = Some(Digest::of(b"loss"));
        let mut arms = [arm("a", 1, |_| [8.0, 10.0], &[0.5]), arm("c", 1, |_| [9.0, 11.0], &[0.5])];
        arms.iter_mut().flatten().for_each(|of_seed| of_seed.training.clone_from(&training));
        let answer = ask(&[("any", claim(Metric::ValLoss))], arms).remove(0);
        assert_eq!((answer.effect, answer.verdict), (None, Verdict::Inconclusive));
        assert!(answer.reason.unwrap().contains("both arms sample the same trained network"));
    }

    #[test]
    fn claims_of_other_comparisons_count() {
        let arms = || [arm("a", 7, |_| [8.0, 10.0], &[0.4]), arm("c", 7, |_| [9.0, 11.0], &[0.5])];
        let claims = BTreeMap::from([("any".to_string(), claim(Metric::Crps))]);
        let alone = answers(&claims, 1, &arms().concat()).remove(0);
        assert_eq!((alone.p_holm, alone.verdict, alone.family_claims), (1.0 / 64.0, Verdict::Confirmed, Some(1)));
        let of_four = answers(&claims, 4, &arms().concat()).remove(0);
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
}
