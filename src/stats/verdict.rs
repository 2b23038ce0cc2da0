//! The verdict on a claim, from paired differences.

use serde::{Deserialize, Serialize};

use super::bootstrap::effect;
use super::{ALPHA, MIN_SEEDS, RESAMPLES, holm, interval, mean, min_p, sign_flip};

/// The question whether an arm is better than its control, by one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// One row per seed and one column per image, or a single column if the endpoint is not a mean over images.
    /// Positive values mean that the arm is better.
    pub differences: Vec<Vec<f64>>,
    /// Effects smaller than this, in either direction, are irrelevant.
    pub margin: f64,
}

/// The verdict on the claim that an arm is better than its control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The arm is better: p is small and the interval is above 0.
    Confirmed,
    /// The arm is worse: p is small and the interval is below 0.
    Refuted,
    /// The difference is irrelevant: the interval is within the margin on both sides.
    Equivalent,
    /// The study is not conclusive.
    Inconclusive,
}

/// The result of the statistical tests of one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub verdict: Verdict,
    /// The mean difference, positive if the arm is better.
    pub effect: f64,
    /// The 95 % confidence interval; `None` for fewer than two seeds.
    pub interval: Option<[f64; 2]>,
    /// The two-sided p-value of the sign-flip test over the seeds.
    pub p: f64,
    /// `p` after Holm's correction for all questions of the study.
    pub p_holm: f64,
}

/// Returns the minimum number of seeds with which one of `claims` claims can become significant. With fewer, every
/// verdict is inconclusive, whatever is measured.
pub fn seeds_needed(claims: usize) -> usize {
    (MIN_SEEDS..).find(|&n| claims as f64 * min_p(n) <= ALPHA || n >= 64).unwrap_or(MIN_SEEDS)
}

/// Answers all questions of a study, corrected for their number.
pub fn answer(questions: &[Question]) -> Vec<Answer> {
    answer_with(questions, RESAMPLES)
}

pub(super) fn answer_with(questions: &[Question], resamples: usize) -> Vec<Answer> {
    let of_seeds = |q: &Question| q.differences.iter().map(|row| mean(row)).collect::<Vec<_>>();
    let p: Vec<f64> = questions.iter().map(|q| sign_flip(&of_seeds(q))).collect();
    let one = |((question, &p), p_holm): ((&Question, &f64), f64)| {
        let interval = interval(&question.differences, resamples);
        let verdict = verdict(question.differences.len(), interval, p_holm, question.margin);
        Answer { verdict, effect: effect(&question.differences), interval, p, p_holm }
    };
    questions.iter().zip(&p).zip(holm(&p)).map(one).collect()
}

/// Equivalence takes precedence over confirmation and refutation.
fn verdict(seeds: usize, interval: Option<[f64; 2]>, p_holm: f64, margin: f64) -> Verdict {
    let Some([low, high]) = interval.filter(|_| seeds >= MIN_SEEDS) else { return Verdict::Inconclusive };
    match p_holm <= ALPHA {
        _ if -margin < low && high < margin => Verdict::Equivalent,
        true if low > 0.0 => Verdict::Confirmed,
        true if high < 0.0 => Verdict::Refuted,
        _ => Verdict::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(seeds: usize, of: impl Fn(usize) -> f64) -> Question {
        Question { differences: (0..seeds).map(|seed| vec![of(seed)]).collect(), margin: 0.1 }
    }

    #[test]
    fn verdicts_depend_on_direction_and_relevance() {
        let one = |q: Question| answer(&[q]).remove(0);
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
            let answer = answer(&[Question { differences: vec![vec![1.0, 1.1]; n], margin: 10.0 }]).remove(0);
            assert_eq!(answer.verdict, Verdict::Inconclusive);
        }
        assert_eq!(answer(&[question(6, |i| 1.0 + 0.1 * i as f64)])[0].verdict, Verdict::Confirmed);
    }

    #[test]
    fn more_claims_need_more_seeds() {
        assert_eq!([1, 2, 3, 4, 6, 7, 12, 13].map(seeds_needed), [6, 7, 7, 8, 8, 9, 9, 10]);
        let four = vec![question(7, |i| 1.0 + 0.1 * i as f64); 4];
        assert!(
            answer(&four)
                .iter()
                .all(|a| a.verdict == Verdict::Inconclusive && a.p == 1.0 / 64.0 && a.p_holm == 4.0 / 64.0)
        );
        let four = vec![question(8, |i| 1.0 + 0.1 * i as f64); 4];
        assert!(answer(&four).iter().all(|a| a.verdict == Verdict::Confirmed && a.p_holm == 4.0 / 128.0));
    }
}
