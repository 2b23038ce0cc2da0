//! From differences to a verdict.

use serde::{Deserialize, Serialize};

use super::bootstrap::effect;
use super::{ALPHA, MIN_SEEDS, RESAMPLES, holm, interval, mean, min_p, sign_flip};

/// What is asked: whether an arm is better than its control by one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// A row a seed and a column an image, or one column where the endpoint is no mean over images. Positive where the
    /// arm is better.
    pub differences: Vec<Vec<f64>>,
    /// Effects smaller than this, either way, are of no interest.
    pub margin: f64,
}

/// The answer to a claim that an arm is better than its control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is: p is small and the interval above 0.
    Confirmed,
    /// It is worse: p is small and the interval below 0.
    Refuted,
    /// The difference is of no interest: the interval lies within the margin on both sides.
    Equivalent,
    /// The study does not tell.
    Inconclusive,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub verdict: Verdict,
    /// The mean difference, positive where the arm is better.
    pub effect: f64,
    /// 95 %; `None` of fewer than two seeds.
    pub interval: Option<[f64; 2]>,
    /// Of the sign-flip test over the seeds, two-sided.
    pub p: f64,
    /// `p` after Holm's correction for all questions of the study.
    pub p_holm: f64,
}

/// The least number of seeds with which one of `claims` can be shown. With fewer no outcome is significant: the verdict
/// is settled before anything is measured.
pub fn seeds_needed(claims: usize) -> usize {
    (MIN_SEEDS..).find(|&n| claims as f64 * min_p(n) <= ALPHA || n >= 64).unwrap_or(MIN_SEEDS)
}

/// Answers all questions of a study together.
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

/// That a difference is too small to be of interest is said before that there is one.
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
    fn verdicts_say_which_way_and_whether_it_matters() {
        let one = |q: Question| answer(&[q]).remove(0);
        let clear = one(question(8, |i| 1.0 + 0.1 * i as f64));
        assert_eq!((clear.verdict, clear.p), (Verdict::Confirmed, 1.0 / 128.0));
        assert!((clear.effect - 1.35).abs() < 1e-12);
        assert_eq!(one(question(8, |i| -1.0 - 0.1 * i as f64)).verdict, Verdict::Refuted);
        // Significant, and of no interest.
        let small = one(question(8, |i| 0.01 + 0.001 * i as f64));
        assert_eq!((small.verdict, small.p), (Verdict::Equivalent, 1.0 / 128.0));
        let wide = one(question(8, |i| if i % 2 == 0 { 1.0 } else { -0.9 }));
        assert_eq!(wide.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn too_few_seeds_decide_nothing() {
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
