//! The verdict on a claim, from paired differences.

use serde::{Deserialize, Serialize};

use super::{ALPHA, Estimate, Family, MIN_SEEDS, Variation, mean, min_p, sign_flip};

/// The differences between an arm and its control by one endpoint, and the smallest relevant effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// One row per seed and one column per image, or a single column if the endpoint has no value for each image.
    /// Positive values mean that the arm is better.
    pub differences: Vec<Vec<f64>>,
    /// Effects smaller than this, in either direction, are irrelevant.
    pub margin: f64,
    /// The fraction of the family's error rate for the look at this number of seeds. It is 1 unless several looks are
    /// planned, and 0 if none is planned at this number, so that the question is not tested.
    pub share: f64,
}

/// The verdict on the claim that an arm is better than its control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The arm is better: the difference is significant and positive.
    Confirmed,
    /// The arm is worse: the difference is significant and negative.
    Refuted,
    /// The difference is irrelevant: it is significantly smaller than the margin in both directions.
    Equivalent,
    /// The study shows none of these.
    Inconclusive,
}

/// The result of the statistical tests of one question. Corrected p-values are those of [`Family::holm`], computed from
/// p-values that are divided by the question's share of the error rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub verdict: Verdict,
    /// Whether the effect of a confirmed or refuted claim is also significantly larger than the margin, in absolute
    /// value.
    pub is_beyond_margin: bool,
    /// The mean difference, positive if the arm is better.
    pub effect: f64,
    /// The 95 % confidence interval; `None` for fewer than two seeds.
    pub interval: Option<[f64; 2]>,
    /// The two-sided p-value of the hypothesis of no difference: the larger one of the sign-flip test over the seeds
    /// and of the [`Estimate`].
    pub p: f64,
    /// `p` after both corrections.
    pub p_holm: f64,
    /// The two-sided p-value of no difference that agrees with the interval, after both corrections; 1 for fewer than
    /// two seeds.
    pub p_of_interval_holm: f64,
    /// The p-value of the hypothesis that the difference is not within the margin (two one-sided tests of the
    /// [`Estimate`]), after both corrections.
    pub p_equivalent_holm: f64,
    /// How much the differences vary; `None` with fewer than two seeds.
    pub variation: Option<Variation>,
}

/// Returns the minimum number of seeds with which a claim of the family can be confirmed or refuted. With fewer, p
/// cannot be small enough, whatever is measured; with six or more, a claim can still be equivalent.
pub fn seeds_needed(family: Family) -> usize {
    (MIN_SEEDS..).find(|&n| min_p(n) <= family.level() || n >= 64).unwrap_or(MIN_SEEDS)
}

/// Answers questions of one family.
///
/// Each question is tested at the look that matches its own number of seeds: its p-values are divided by the share w of
/// the error rate for that look, and Holm's procedure is applied to the results. This is the group-sequential Holm
/// procedure of Maurer & Bretz (2013) with fixed shares. It keeps the error rates of the family over all its looks,
/// whatever the numbers of seeds are and however the p-values depend on one another:
///
/// 1. The shares of a question's looks add up to 1. If its null hypothesis is true, the smallest p / w of all looks is
///    therefore at most x with a probability of at most Σ w·x = x, so it is a valid p-value.
/// 2. Holm's procedure with these valid p-values keeps the error rate (Holm 1979).
/// 3. Any single test of the family rejects no more than that: the current p / w of each question is at least its
///    smallest one, and larger p-values never reject more.
pub fn answer(questions: &[Question], family: Family) -> Vec<Answer> {
    let tested: Vec<Tested> = questions.iter().map(Tested::new).collect();
    let holm = |p: fn(&Tested) -> f64| {
        let at_look = |(tested, question): (&Tested, &Question)| (p(tested) / question.share).min(1.0);
        family.holm(&tested.iter().zip(questions).map(at_look).collect::<Vec<_>>())
    };
    let (different, equivalent, beyond) = (holm(|t| t.different), holm(|t| t.equivalent), holm(|t| t.beyond_margin));
    let of_interval = holm(|t| t.estimate.map_or(1.0, |estimate| estimate.two_sided_p(0.0)));
    let one = |(i, tested): (usize, &Tested)| {
        let verdict = verdict(tested.seeds, tested.effect, different[i], equivalent[i], family.alpha);
        Answer {
            verdict,
            is_beyond_margin: matches!(verdict, Verdict::Confirmed | Verdict::Refuted) && beyond[i] <= family.alpha,
            effect: tested.effect,
            interval: tested.estimate.map(|estimate| estimate.interval(ALPHA)),
            p: tested.different,
            p_holm: different[i],
            p_of_interval_holm: of_interval[i],
            p_equivalent_holm: equivalent[i],
            variation: tested.estimate.map(|estimate| estimate.variation()),
        }
    };
    tested.iter().enumerate().map(one).collect()
}

/// The p-values of a question, named after the alternative hypotheses.
///
/// The p-values `different` and `beyond_margin` are the larger ones of two tests: the sign-flip test does not assume a
/// normal distribution, but generalises only to other seeds; the estimate generalises to other images as well.
/// `equivalent` is that of the estimate alone.
struct Tested {
    seeds: usize,
    effect: f64,
    estimate: Option<Estimate>,
    /// Of the hypothesis that there is no difference; two-sided.
    different: f64,
    /// Of the hypothesis that the difference is not within the margin.
    equivalent: f64,
    /// Of the hypothesis that the difference equals the margin; two-sided, and 1 if the effect is within the margin.
    beyond_margin: f64,
}

impl Tested {
    fn new(question: &Question) -> Self {
        let rows: Vec<f64> = question.differences.iter().map(|row| mean(row)).collect();
        let effect = mean(&rows);
        let Some(estimate) = Estimate::of(&question.differences) else {
            return Self {
                seeds: rows.len(),
                effect,
                estimate: None,
                different: 1.0,
                equivalent: 1.0,
                beyond_margin: 1.0,
            };
        };
        let differs_from = |null: f64| {
            let rows: Vec<f64> = rows.iter().map(|row| row - null).collect();
            sign_flip(&rows).max(estimate.two_sided_p(null))
        };
        let margin = question.margin.copysign(effect);
        Self {
            seeds: rows.len(),
            effect,
            estimate: Some(estimate),
            different: differs_from(0.0),
            equivalent: estimate.p_equivalent(question.margin),
            beyond_margin: if effect.abs() > question.margin { differs_from(margin) } else { 1.0 },
        }
    }
}

/// Equivalence takes precedence over confirmation and refutation.
fn verdict(seeds: usize, effect: f64, different: f64, equivalent: f64, alpha: f64) -> Verdict {
    match () {
        _ if seeds < MIN_SEEDS => Verdict::Inconclusive,
        _ if equivalent <= alpha => Verdict::Equivalent,
        _ if different <= alpha && effect > 0.0 => Verdict::Confirmed,
        _ if different <= alpha && effect < 0.0 => Verdict::Refuted,
        _ => Verdict::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: Family = Family { claims: 1, alpha: ALPHA };

    fn question(seeds: usize, of: impl Fn(usize) -> f64) -> Question {
        Question { differences: (0..seeds).map(|seed| vec![of(seed)]).collect(), margin: 0.1, share: 1.0 }
    }

    #[test]
    fn verdicts_depend_on_direction_and_relevance() {
        let one = |q: Question| answer(&[q], FAMILY).remove(0);
        let clear = one(question(8, |i| 1.0 + 0.1 * i as f64));
        assert_eq!((clear.verdict, clear.p), (Verdict::Confirmed, 1.0 / 128.0));
        assert!((clear.effect - 1.35).abs() < 1e-12);
        assert_eq!(one(question(8, |i| -1.0 - 0.1 * i as f64)).verdict, Verdict::Refuted);
        // Significant, but irrelevant.
        let small = one(question(8, |i| 0.01 + 0.001 * i as f64));
        assert_eq!((small.verdict, small.p), (Verdict::Equivalent, 1.0 / 128.0));
        let wide = one(question(8, |i| if i % 2 == 0 { 1.0 } else { -0.9 }));
        assert_eq!(wide.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn too_few_seeds_are_inconclusive() {
        for n in 0..MIN_SEEDS {
            let differences = vec![vec![1.0, 1.1]; n];
            let answer = answer(&[Question { differences, margin: 10.0, share: 1.0 }], FAMILY).remove(0);
            assert_eq!(answer.verdict, Verdict::Inconclusive);
        }
        assert_eq!(answer(&[question(6, |i| 1.0 + 0.1 * i as f64)], FAMILY)[0].verdict, Verdict::Confirmed);
    }

    #[test]
    fn more_claims_need_more_seeds() {
        assert_eq!(
            [1, 2, 3, 4, 6, 7, 12, 13].map(|claims| seeds_needed(Family { claims, ..FAMILY })),
            [6, 7, 7, 8, 8, 9, 9, 10]
        );
        let four = vec![question(7, |i| 1.0 + 0.1 * i as f64); 4];
        assert!(
            answer(&four, Family { claims: 4, ..FAMILY })
                .iter()
                .all(|a| a.verdict == Verdict::Inconclusive && a.p == 1.0 / 64.0 && a.p_holm == 4.0 / 64.0)
        );
        let four = vec![question(8, |i| 1.0 + 0.1 * i as f64); 4];
        assert!(
            answer(&four, Family { claims: 4, ..FAMILY })
                .iter()
                .all(|a| a.verdict == Verdict::Confirmed && a.p_holm == 4.0 / 128.0)
        );
    }

    /// p is 2 / 2^8 with eight seeds, and 2 / 2^10 with ten.
    #[test]
    fn each_question_is_tested_at_its_own_look() {
        let of = |seeds, share| Question { share, ..question(seeds, |i| 1.0 + 0.1 * i as f64) };
        let family = Family { claims: 3, ..FAMILY };
        let answers = answer(&[of(8, 0.5), of(10, 0.1), of(12, 0.0)], family);
        let p: Vec<f64> = answers.iter().map(|answer| answer.p_holm).collect();
        assert_eq!(p, [3.0 / 128.0 / 0.5, 3.0 / 128.0 / 0.5, 1.0]);
        assert_eq!(answers[2].p, 1.0 / 2048.0);
        let verdicts: Vec<Verdict> = answers.iter().map(|answer| answer.verdict).collect();
        assert_eq!(verdicts, [Verdict::Confirmed, Verdict::Confirmed, Verdict::Inconclusive]);
        // A question that is not tested does not make the others significant.
        let one = answer(&[of(8, 0.3), of(12, 0.0)], Family { claims: 2, ..FAMILY }).remove(0);
        assert_eq!((one.p_holm, one.verdict), (2.0 / 128.0 / 0.3, Verdict::Inconclusive));
    }
}
