//! Validates the verdicts on a thousand simulated studies of eight seeds each, with known effects.

use rayon::prelude::*;

use super::verdict::answer_with;
use super::{Question, Verdict};
use crate::random::{Purpose, stream};

const STUDIES: u64 = 1000;
const SEEDS: usize = 8;
const RESAMPLES: usize = 1000;

/// The distribution of a study's differences: their mean, and their standard deviations between seeds, between images
/// (shared by all seeds), and between individual measurements.
#[derive(Clone, Copy)]
struct Study {
    effect: f64,
    seed_sd: f64,
    image_sd: f64,
    rest_sd: f64,
    images: usize,
    margin: f64,
    claims: usize,
}

/// Eight seeds, with a standard error of the mean of 1.
const PLAIN: Study = Study {
    effect: 0.0,
    seed_sd: 2.828_427_124_746_19,
    image_sd: 0.0,
    rest_sd: 0.0,
    images: 1,
    margin: 0.0,
    claims: 1,
};

impl Study {
    fn verdicts(self, number: u64) -> Vec<Verdict> {
        let question = |claim: usize| {
            let mut noise = stream(number, Purpose::Synthetic, 1, claim as u64);
            let images: Vec<f64> = (0..self.images).map(|_| self.image_sd * noise.normal()).collect();
            let mut seed = || {
                let seed = self.effect + self.seed_sd * noise.normal();
                images.iter().map(|image| seed + image + self.rest_sd * noise.normal()).collect()
            };
            Question { differences: (0..SEEDS).map(|_| seed()).collect(), margin: self.margin }
        };
        let questions: Vec<Question> = (0..self.claims).map(question).collect();
        answer_with(&questions, RESAMPLES).into_iter().map(|a| a.verdict).collect()
    }

    /// Returns the fraction of studies that have a claim with this verdict.
    fn share(self, verdict: Verdict) -> f64 {
        let with = (0..STUDIES).into_par_iter().filter(|&number| self.verdicts(number).contains(&verdict));
        with.count() as f64 / STUDIES as f64
    }
}

/// The test has two tails of 2.5 %, one of which confirms.
#[test]
fn missing_effects_are_rarely_confirmed() {
    let seeds_only = PLAIN.share(Verdict::Confirmed);
    assert!(seeds_only <= 0.05, "{seeds_only}");
    // As in real comparisons, both seeds and images vary; other images have another mean.
    let images = Study { seed_sd: 1.0, image_sd: 4.0, rest_sd: 4.0, images: 32, ..PLAIN };
    let both = images.share(Verdict::Confirmed);
    assert!(both <= 0.05, "{both}");
    // The probability that any of four claims is confirmed.
    let family = Study { claims: 4, ..PLAIN }.share(Verdict::Confirmed);
    assert!(family <= 0.05, "{family}");
}

/// The power of the exact sign-flip test for eight normally distributed differences with a mean of two standard errors
/// is 0.388 (SciPy and NumPy, 400,000 simulated studies); that of the t-test is 0.408:
///
/// ```python
/// c = t.ppf(0.975, 7); nct.sf(c, 7, 2) + nct.cdf(-c, 7, 2)
/// ```
///
/// The tolerance is three standard errors of a fraction of 1,000 studies.
#[test]
fn the_power_for_an_effect_of_two_standard_errors_matches_theory() {
    let power = Study { effect: 2.0, ..PLAIN }.share(Verdict::Confirmed);
    assert!((power - 0.388).abs() < 0.047, "{power}");
    let refuted = Study { effect: -2.0, ..PLAIN }.share(Verdict::Refuted);
    assert!((refuted - 0.388).abs() < 0.047, "{refuted}");
}

/// With a margin of four standard errors: for equal arms, the interval, about 2.4 wide on either side, is almost always
/// within the margin.
#[test]
fn equal_arms_are_equivalent_but_arms_that_differ_by_the_margin_are_not() {
    let equal = Study { margin: 4.0, ..PLAIN };
    let share = equal.share(Verdict::Equivalent);
    assert!(share >= 0.8, "{share}");
    let different = Study { effect: 4.0, ..equal }.share(Verdict::Equivalent);
    assert!(different <= 0.05, "{different}");
}
