//! The mean of paired differences and its uncertainty.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Variation, mean};

/// The mean of paired differences with its uncertainty over seeds and over test images.
///
/// The model has a random effect of the seed (`a`), a random effect of the image (`b`, the same for every seed) and a
/// residual: for seed `s` and image `i`, the difference is `μ + a_s + b_i + e_si`. The variance of the mean then has two
/// parts, estimated from the mean squares of the two-way table (Searle, Casella & McCulloch 1992, section 4.7). The part
/// of the seeds, which includes the residual, has `seeds - 1` degrees of freedom. The part of the images counts as having
/// `images - 1`; a negative estimate is set to 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean over seeds and images.
    pub mean: f64,
    of_seeds: Variance,
    of_images: Option<Variance>,
}

/// A part of the variance of a mean.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Variance {
    value: f64,
    degrees_of_freedom: f64,
}

impl Variance {
    /// Returns the variance of the sum with Satterthwaite's degrees of freedom.
    fn plus(self, other: Self) -> Self {
        let value = self.value + other.value;
        let of_part = |part: Self| part.value.powi(2) / part.degrees_of_freedom;
        Self { value, degrees_of_freedom: value.powi(2) / (of_part(self) + of_part(other)) }
    }

    /// Returns half the width of the interval of level `1 - alpha` if this were the only part.
    fn half_width(self, alpha: f64) -> f64 {
        if self.value == 0.0 { 0.0 } else { self.student().inverse_cdf(1.0 - alpha / 2.0) * self.value.sqrt() }
    }

    /// Returns the two-sided p-value of a mean that is `distance` from the null hypothesis, if this were the only part.
    fn two_sided_p(self, distance: f64) -> f64 {
        2.0 * self.student().sf(distance / self.value.sqrt())
    }

    fn student(self) -> StudentsT {
        StudentsT::new(0.0, 1.0, self.degrees_of_freedom).expect("degrees of freedom are positive")
    }
}

impl Estimate {
    /// Estimates the mean of `differences`, which has one row per seed and one column per image, or a single column if
    /// there are no values for each image. Returns `None` for fewer than two seeds.
    ///
    /// Panics unless the rows have the same length and are not empty.
    pub fn of(differences: &[Vec<f64>]) -> Option<Self> {
        let (seeds, images) = (differences.len(), differences.first()?.len());
        assert!(images > 0 && differences.iter().all(|row| row.len() == images));
        if seeds < 2 {
            return None;
        }
        let (n, m) = (seeds as f64, images as f64);
        let rows: Vec<f64> = differences.iter().map(|row| mean(row)).collect();
        let grand = mean(&rows);
        let square = |value: f64| (value - grand).powi(2);
        let between_seeds = rows.iter().map(|&row| square(row)).sum::<f64>() / (n - 1.0);
        let of_images = (images > 1).then(|| {
            let columns: Vec<f64> =
                (0..images).map(|i| differences.iter().map(|row| row[i]).sum::<f64>() / n).collect();
            let between_images = n * columns.iter().map(|&column| square(column)).sum::<f64>() / (m - 1.0);
            let rest = |(row, of_row): (&Vec<f64>, &f64)| -> f64 {
                row.iter().zip(&columns).map(|(d, column)| (d - of_row - column + grand).powi(2)).sum()
            };
            let rest = differences.iter().zip(&rows).map(rest).sum::<f64>() / ((n - 1.0) * (m - 1.0));
            Variance { value: ((between_images - rest) / (n * m)).max(0.0), degrees_of_freedom: m - 1.0 }
        });
        let of_seeds = Variance { value: between_seeds / n, degrees_of_freedom: n - 1.0 };
        Some(Self { mean: grand, of_seeds, of_images })
    }

    /// Returns the variation over seeds and over images.
    pub fn variation(&self) -> Variation {
        Variation {
            seeds: (self.of_seeds.value * (self.of_seeds.degrees_of_freedom + 1.0)).sqrt(),
            images: self.of_images.map_or(0.0, |part| part.value.sqrt()),
        }
    }

    /// Returns the confidence interval of level `1 - alpha`.
    ///
    /// If one part of the variance dominates, this is Student's interval for that part. Otherwise, it is a weighted mean
    /// of two half widths: that of Howe (1974), which adds the half widths of the parts in quadrature and whose coverage
    /// is as high as 99 % with two seeds, and that of Satterthwaite (1946), whose coverage is as low as 87 %. The weight
    /// of Howe's is the seeds' share of the variance to the power of 2/3. In simulations with 32 images or more, the
    /// coverage at 95 % is 93 to 97 % with two seeds, and 94.5 to 96.5 % with three or more.
    pub fn interval(&self, alpha: f64) -> [f64; 2] {
        let half = self.half_width(alpha);
        [self.mean - half, self.mean + half]
    }

    fn half_width(&self, alpha: f64) -> f64 {
        let seeds = self.of_seeds;
        let Some(images) = self.of_images.filter(|part| part.value > 0.0) else { return seeds.half_width(alpha) };
        let howe = seeds.half_width(alpha).hypot(images.half_width(alpha));
        let share = seeds.value / (seeds.value + images.value);
        let weight = share.powf(2.0 / 3.0);
        weight * howe + (1.0 - weight) * seeds.plus(images).half_width(alpha)
    }

    /// Returns the two-sided p-value of the hypothesis that the mean is `null`: the smallest `alpha` whose interval
    /// does not contain it.
    pub(super) fn two_sided_p(&self, null: f64) -> f64 {
        let distance = (self.mean - null).abs();
        match self.of_images.filter(|part| part.value > 0.0) {
            _ if distance == 0.0 => 1.0,
            None if self.of_seeds.value == 0.0 => 0.0,
            None => self.of_seeds.two_sided_p(distance),
            Some(images) if self.of_seeds.value == 0.0 => images.two_sided_p(distance),
            Some(_) => {
                // The half width decreases with alpha.
                let (mut low, mut high) = (0.0_f64, 1.0_f64);
                for _ in 0..40 {
                    let alpha = 0.5 * (low + high);
                    if self.half_width(alpha) > distance { low = alpha } else { high = alpha }
                }
                high
            }
        }
    }

    /// Returns the one-sided p-value of the hypothesis that the mean is at most `null`.
    fn p_above(&self, null: f64) -> f64 {
        let half = 0.5 * self.two_sided_p(null);
        if self.mean > null { half } else { 1.0 - half }
    }

    /// Returns the p-value of the hypothesis that the mean is not within the margin (two one-sided tests, Schuirmann
    /// 1987).
    pub(super) fn p_equivalent(&self, margin: f64) -> f64 {
        let mirrored = Self { mean: -self.mean, ..*self };
        self.p_above(-margin).max(mirrored.p_above(-margin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: [f64; 6] = [0.31, -0.12, 0.55, 0.20, 0.44, 0.05];

    fn column(values: &[f64]) -> Vec<Vec<f64>> {
        values.iter().map(|&value| vec![value]).collect()
    }

    fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-8, "{actual} is not {expected}");
    }

    /// ```python
    /// r = scipy.stats.ttest_1samp(x, 0); r.confidence_interval(.95)
    /// scipy.stats.ttest_1samp(x, .1, alternative="greater")
    /// statsmodels.stats.weightstats.DescrStatsW(x).ttost_mean(-.6, .6)
    /// ```
    #[test]
    fn without_images_the_estimate_matches_students_t() {
        let estimate = Estimate::of(&column(&SEEDS)).unwrap();
        assert_close(estimate.mean, 0.238_333_333_333_333_3);
        let [low, high] = estimate.interval(0.05);
        assert_close(low, -0.022_249_516_938_675_135);
        assert_close(high, 0.498_916_183_605_341_73);
        assert_close(estimate.two_sided_p(0.0), 0.065_470_924_549_892_06);
        assert_close(estimate.two_sided_p(0.1), 0.230_576_808_860_690_8);
        assert_close(estimate.p_above(0.1), 0.115_288_404_430_345_4);
        assert_close(estimate.p_above(0.3), 1.0 - 0.5 * estimate.two_sided_p(0.3));
        assert_close(estimate.p_equivalent(0.6), 0.008_041_000_349_900_006);
    }

    /// The mean squares are those of statsmodels, 19.620840, 0.344370 and 0.122923:
    ///
    /// ```python
    /// statsmodels.api.stats.anova_lm(ols("y ~ C(seed) + C(image)", table).fit())
    /// ```
    ///
    /// With the parts s1 and s2 of the variance, the half width is
    ///
    /// ```python
    /// q = lambda df: scipy.stats.t.ppf(.975, df)
    /// howe = numpy.hypot(q(3) * s1**.5, q(4) * s2**.5)
    /// satterthwaite = q((s1 + s2)**2 / (s1**2 / 3 + s2**2 / 4)) * (s1 + s2)**.5
    /// weight = (s1 / (s1 + s2))**(2 / 3)
    /// weight * howe + (1 - weight) * satterthwaite
    /// ```
    ///
    /// and p is the root that `scipy.optimize.brentq` finds.
    #[test]
    fn seeds_and_images_both_widen_the_interval() {
        let table: [[f64; 5]; 4] = [
            [2.81, 2.0, 0.93, 1.84, 1.41],
            [-3.1, -2.78, -3.42, -2.74, -2.7],
            [0.13, 0.32, -0.13, 0.47, -0.17],
            [-0.85, -0.51, -1.0, -0.76, -1.07],
        ];
        let estimate = Estimate::of(&table.map(Vec::from)).unwrap();
        assert_close(estimate.variation().seeds.powi(2) / 4.0, 0.981_042);
        assert_close(estimate.variation().images.powi(2), 0.011_072_333_333_333_332);
        let [low, high] = estimate.interval(0.05);
        assert_close(low, -3.631_384_266_292_937_6);
        assert_close(high, 2.699_384_266_292_938);
        assert_close(estimate.two_sided_p(0.0), 0.671_698_548_689_477_1);
        // One end of the interval of level 1 - p is 0.
        assert_close(estimate.interval(estimate.two_sided_p(0.0))[1], 0.0);
    }

    #[test]
    fn one_seed_has_no_estimate_and_equal_seeds_have_an_interval_of_width_0() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[vec![1.0, 2.0]]), None);
        let equal = Estimate::of(&vec![vec![0.5]; 8]).unwrap();
        assert_eq!((equal.interval(0.05), equal.two_sided_p(0.5), equal.two_sided_p(0.0)), ([0.5, 0.5], 1.0, 0.0));
        let equal = Estimate::of(&vec![vec![0.25, 0.75]; 8]).unwrap();
        assert!(equal.interval(0.05)[0] < 0.0 && equal.two_sided_p(0.0) > 0.2, "the two images differ: {equal:?}");
    }
}
