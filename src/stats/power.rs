//! The power of a study, and the number of seeds that it needs.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::{Family, Looks, MIN_SEEDS, min_p};

/// The power that a study is planned for.
pub(super) const POWER: f64 = 0.8;

/// The largest number of seeds that is recommended.
const MAX_SEEDS: usize = 200;

/// How much the differences between an arm and its control vary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Variation {
    /// The standard deviation over seeds of the mean difference over the images.
    pub seeds: f64,
    /// The standard error due to the choice of images, which more seeds do not reduce.
    pub images: f64,
}

/// The number of seeds that a claim needs, estimated from the seeds so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedsNeeded {
    /// With this number of seeds, a true difference as large as the margin is detected with a probability of 80 %.
    Seeds(usize),
    /// No number of seeds suffices, because the difference varies too much between images: more test images are needed.
    MoreImages,
    /// More than 200 seeds are needed.
    TooMany,
}

/// Returns the number of seeds with which a true difference as large as `margin` becomes significant with a probability
/// of 80 %, if differences vary as in the pilot study.
///
/// With several planned `looks`, the number is that of the whole plan. The power is that of the last look alone, with
/// its own share of the error rate; earlier looks make the power of the plan slightly larger.
pub fn seeds_for(pilot: Variation, margin: f64, family: Family, looks: usize) -> SeedsNeeded {
    let at_last_look = |seeds: usize| {
        let alpha = Looks { seeds, looks }.alpha(seeds, family.alpha);
        Family { alpha: alpha.unwrap_or(family.alpha), ..family }
    };
    let power = |n: usize| power(n, pilot.seeds, pilot.images, margin, at_last_look(n));
    if let Some(n) = (MIN_SEEDS..=MAX_SEEDS).find(|&n| power(n) >= POWER) {
        return SeedsNeeded::Seeds(n);
    }
    let level = at_last_look(MAX_SEEDS).level();
    let of_images_alone =
        Normal::standard().sf(Normal::standard().inverse_cdf(1.0 - level / 2.0) - margin / pilot.images);
    if pilot.images > 0.0 && of_images_alone < POWER { SeedsNeeded::MoreImages } else { SeedsNeeded::TooMany }
}

/// Returns the probability that a true difference of `effect` becomes significant with `n` seeds, if the seeds'
/// differences have the standard deviation `sd`, and the choice of images contributes the standard error `of_images`.
///
/// This is the power of the t test (normal approximation of the noncentral t distribution, Johnson & Welch 1940) at the
/// largest level that the sign-flip test of `n` seeds can attain without exceeding the corrected level. If the
/// sign-flip test attains that level only if all seeds have the same sign, the power is at most the probability of
/// that.
pub fn power(n: usize, sd: f64, of_images: f64, effect: f64, family: Family) -> f64 {
    let smallest = min_p(n);
    let significant_signs = (family.level() / smallest).floor();
    if n < MIN_SEEDS || significant_signs == 0.0 {
        return 0.0;
    }
    let level = significant_signs * smallest;
    let of_seeds = sd / (n as f64).sqrt();
    let error = of_seeds.hypot(of_images);
    if error == 0.0 {
        return f64::from(effect > 0.0);
    }
    let freedom = (n - 1) as f64;
    let student = StudentsT::new(0.0, 1.0, freedom).expect("at least six seeds");
    let normal = Normal::standard();
    let (t, z) = (student.inverse_cdf(1.0 - level / 2.0), normal.inverse_cdf(1.0 - level / 2.0));
    // Only the seeds' part of the standard error counts as uncertain.
    let share = (of_seeds / error).powi(2);
    let critical = (t * of_seeds * (1.0 - 1.0 / (4.0 * freedom))).hypot(z * of_images) / error;
    let spread = (1.0 + share * (t * of_seeds / error).powi(2) / (2.0 * freedom)).sqrt();
    let of_t = normal.sf((critical - effect / error) / spread);
    if significant_signs > 1.0 || sd == 0.0 { of_t } else { of_t.min(agreement(n, sd, of_images, effect)) }
}

/// Returns the probability that the differences of all `n` seeds are positive, averaged over the choice of test images.
fn agreement(n: usize, sd: f64, of_images: f64, effect: f64) -> f64 {
    const QUANTILES: usize = 64;
    let of_image = |i: usize| {
        let shift = of_images * Normal::standard().inverse_cdf((i as f64 + 0.5) / QUANTILES as f64);
        Normal::standard().cdf((effect + shift) / sd).powi(n as i32)
    };
    (0..QUANTILES).map(of_image).sum::<f64>() / QUANTILES as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// scipy.stats.nct.sf(scipy.stats.t.ppf(1 - level / 2, n - 1), n - 1, effect)
    /// ```
    ///
    /// with the level that the sign-flip test can attain: 6/128 for eight seeds, and 25/2048 for twelve seeds and four
    /// claims.
    #[test]
    fn power_approximates_the_noncentral_t_distribution() {
        for (n, effect, claims, expected) in [
            (8, 2.0, 1, 0.394_621_481),
            (8, 3.0, 1, 0.717_778_430),
            (12, 3.0, 4, 0.526_903_356),
            (20, 2.8, 1, 0.756_874_028),
        ] {
            let sd = (n as f64).sqrt();
            let power = power(n, sd, 0.0, effect, Family { claims, alpha: 0.05 });
            assert!((power - expected).abs() < 0.01, "{n}: {power} is not {expected}");
        }
    }

    /// With six seeds, p is at most 0.05 only if all signs are equal. `scipy.stats.norm.cdf(1.5) ** 6`
    #[test]
    fn the_power_of_six_seeds_is_the_probability_of_equal_signs() {
        let power = power(6, 1.0, 0.0, 1.5, Family { claims: 1, alpha: 0.05 });
        assert!((power - 0.660_432_250_274).abs() < 1e-6, "{power}");
    }

    #[test]
    fn seeds_for_a_margin_have_the_planned_power() {
        let family = Family { claims: 4, alpha: 0.05 };
        let pilot = Variation { seeds: 0.75, images: 0.0 };
        let SeedsNeeded::Seeds(n) = seeds_for(pilot, 1.0, family, 1) else { panic!("a number") };
        assert!(power(n, 0.75, 0.0, 1.0, family) >= POWER && power(n - 1, 0.75, 0.0, 1.0, family) < POWER, "{n}");
        assert_eq!(seeds_for(pilot, 100.0, family, 1), SeedsNeeded::Seeds(8), "four claims need at least eight seeds");
        assert_eq!(seeds_for(pilot, 0.01, family, 1), SeedsNeeded::TooMany);
        let images = Variation { seeds: 0.01, images: 5.0 };
        assert_eq!(seeds_for(images, 1.0, family, 1), SeedsNeeded::MoreImages);
        // The last of two looks has 0.0444 of the error rate of 0.05.
        let SeedsNeeded::Seeds(planned) = seeds_for(pilot, 1.0, family, 2) else { panic!("a number") };
        let last = Family { alpha: Looks { seeds: planned, looks: 2 }.alpha(planned, 0.05).unwrap(), ..family };
        assert!(planned >= n && power(planned, 0.75, 0.0, 1.0, last) >= POWER, "{planned} {n}");
    }
}
