//! The power of a study, and the number of seeds that it needs.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::{Estimate, Family, MIN_SEEDS, min_p};

/// The power that a study is planned for.
pub(super) const POWER: f64 = 0.8;

/// The largest number of seeds that is recommended.
const MAX_SEEDS: usize = 200;

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
/// of 80 %. The variances are those of `pilot`.
pub fn seeds_for(pilot: &Estimate, margin: f64, family: Family) -> SeedsNeeded {
    let sd = pilot.sd_over_seeds();
    let of_images = pilot.standard_error_over_images();
    let power = |n: usize| power(n, sd, of_images, margin, family);
    if let Some(n) = (MIN_SEEDS..=MAX_SEEDS).find(|&n| power(n) >= POWER) {
        return SeedsNeeded::Seeds(n);
    }
    let of_images_alone =
        Normal::standard().sf(Normal::standard().inverse_cdf(1.0 - family.level() / 2.0) - margin / of_images);
    if of_images > 0.0 && of_images_alone < POWER { SeedsNeeded::MoreImages } else { SeedsNeeded::TooMany }
}

/// Returns the probability that a true difference of `effect` becomes significant with `n` seeds, if the seeds'
/// differences have the standard deviation `sd`, and the choice of images contributes the standard error `of_images`.
///
/// This is the power of the t test (normal approximation of the noncentral t distribution, Johnson & Welch 1940) at the
/// largest level that the sign-flip test of `n` seeds can attain without exceeding the corrected level. If the sign-flip
/// test attains that level only if all seeds have the same sign, the power is at most the probability of that.
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
        let pilot = Estimate::of(&[-0.5, 1.0, 0.25, -1.0, 0.75, 0.5].map(|d| vec![d])).unwrap();
        let sd = pilot.sd_over_seeds();
        let SeedsNeeded::Seeds(n) = seeds_for(&pilot, 1.0, family) else { panic!("a number") };
        assert!(power(n, sd, 0.0, 1.0, family) >= POWER && power(n - 1, sd, 0.0, 1.0, family) < POWER, "{n}");
        assert_eq!(seeds_for(&pilot, 100.0, family), SeedsNeeded::Seeds(8), "four claims need at least eight seeds");
        assert_eq!(seeds_for(&pilot, 0.01, family), SeedsNeeded::TooMany);
        let images: Vec<Vec<f64>> = (0..6).map(|s| vec![0.01 * s as f64 - 5.0, 0.01 * s as f64 + 5.0]).collect();
        assert_eq!(seeds_for(&Estimate::of(&images).unwrap(), 1.0, family), SeedsNeeded::MoreImages);
    }
}
