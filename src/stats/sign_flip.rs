//! The sign-flip test.

use crate::random::{Purpose, stream};

/// The maximum number of values for which all 2^n signs are enumerated.
const EXACT_MAX: usize = 20;
/// The number of random sign assignments for more values.
const DRAWS: u64 = 100_000;

/// Returns the two-sided p-value of the hypothesis that each difference is symmetric around 0, so that its sign is random:
/// the fraction of all 2^n assignments of signs whose sum is at least as far from 0 as the observed sum (Fisher 1935;
/// exact). Returns 1 if there are no differences.
///
/// For more than 20 differences, 100,000 random assignments are used, always the same ones, and the observed one is
/// counted among them.
pub(super) fn sign_flip(differences: &[f64]) -> f64 {
    let n = differences.len();
    let observed = differences.iter().sum::<f64>().abs();
    // Sums that differ only by rounding count as equal.
    let tolerance = 1e-12 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let is_as_far = |signs: u64| {
        let signed = differences.iter().enumerate().map(|(i, d)| if signs >> (i % 64) & 1 == 0 { *d } else { -d });
        signed.sum::<f64>().abs() >= observed - tolerance
    };
    match n {
        0 => 1.0,
        1..=EXACT_MAX => {
            // An assignment and its negation are equally far from 0, so the last sign can be fixed.
            let half = 1_u64 << (n - 1);
            (0..half).filter(|&signs| is_as_far(signs)).count() as f64 / half as f64
        }
        _ => {
            let drawn = |i: u64| {
                let mut signs = stream(0, Purpose::SignFlip, 0, i);
                let mut sum = 0.0;
                for d in differences {
                    sum += if signs.coin() { *d } else { -d };
                }
                sum.abs() >= observed - tolerance
            };
            (1 + (0..DRAWS).filter(|&i| drawn(i)).count()) as f64 / (1 + DRAWS) as f64
        }
    }
}

/// Returns the smallest p-value that [`sign_flip`] can return for `n` values.
pub(super) fn min_p(n: usize) -> f64 {
    match n {
        0 => 1.0,
        1..=EXACT_MAX => 0.5_f64.powi(n as i32 - 1),
        _ => 1.0 / (1 + DRAWS) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// scipy.stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    /// ```
    #[test]
    fn p_matches_scipy() {
        let x = [0.31, -0.12, 0.55, 0.20, 0.44, -0.05, 0.38, 0.27];
        assert_eq!(sign_flip(&x), 0.03125);
    }

    #[test]
    fn equal_signs_have_the_smallest_p() {
        for n in 1..=12 {
            let x: Vec<f64> = (1..=n).map(|i| 0.1 * i as f64).collect();
            assert_eq!(sign_flip(&x), min_p(n));
            assert_eq!(sign_flip(&x.iter().map(|v| -v).collect::<Vec<_>>()), min_p(n));
        }
    }

    #[test]
    fn no_difference_gives_p_1() {
        assert_eq!(sign_flip(&[]), 1.0);
        assert_eq!(sign_flip(&[0.0; 8]), 1.0);
        // 0.1 + 0.2 counts as 0.3, despite rounding.
        assert_eq!(sign_flip(&[0.1, 0.2, -0.3]), 1.0);
    }

    #[test]
    fn p_of_many_values_approximates_the_exact_p() {
        let x: Vec<f64> = (0..24).map(|i| ((i * 7 % 24) as f64 - 8.0) / 10.0).collect();
        let exact = (0..1_u64 << 23).filter(|signs| {
            let sum =
                |signs: u64| x.iter().enumerate().map(|(i, d)| if signs >> i & 1 == 0 { *d } else { -d }).sum::<f64>();
            sum(*signs).abs() >= sum(0).abs() - 1e-9
        });
        let exact = exact.count() as f64 / f64::from(1 << 23);
        // Five standard errors.
        assert!((sign_flip(&x) - exact).abs() < 5.0 * (exact / 1e5).sqrt(), "{} {exact}", sign_flip(&x));
        assert_eq!(sign_flip(&[1.0; 40]), min_p(40));
    }
}
