//! Group-sequential studies: claims are tested before all seeds are trained.

use statrs::distribution::{ContinuousCDF, Normal};

/// A study with a planned number of seeds whose claims are tested at several looks; it may stop at any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    /// The number of seeds of the whole study.
    pub seeds: usize,
    /// The number of looks; the last one is at all seeds.
    pub looks: usize,
}

impl Looks {
    /// Returns the numbers of seeds of the looks, in ascending order and evenly spaced.
    pub fn at(self) -> Vec<usize> {
        let looks = self.looks.clamp(1, self.seeds.max(1));
        (1..=looks).map(|look| (self.seeds * look).div_ceil(looks)).collect()
    }

    /// Returns the share of `alpha` for the look at `n` seeds, or `None` if none is planned there.
    ///
    /// The shares are the increments of the spending function 2 − 2Φ(z/√t) of Lan & DeMets (1983), where t is the
    /// fraction of the planned seeds and z the normal quantile of 1 − alpha/2. It resembles the boundary of O'Brien &
    /// Fleming: the shares of early looks are much smaller than those of late ones. The shares add up to `alpha`, so
    /// the probability of a false finding at any look is at most `alpha` however the looks depend on one another
    /// (Bonferroni). For a family of claims, see [`answer`](super::answer).
    pub fn alpha(self, n: usize, alpha: f64) -> Option<f64> {
        let at = self.at();
        let look = at.iter().position(|&planned| planned == n)?;
        let before = if look == 0 { 0.0 } else { self.spent(at[look - 1], alpha) };
        Some(self.spent(n, alpha) - before)
    }

    /// Returns the part of `alpha` that is spent up to and including the look at `n` seeds.
    fn spent(self, n: usize, alpha: f64) -> f64 {
        let normal = Normal::standard();
        let share = n as f64 / self.seeds as f64;
        2.0 * normal.sf(normal.inverse_cdf(1.0 - alpha / 2.0) / share.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_evenly_spaced_and_end_with_all_seeds() {
        assert_eq!(Looks { seeds: 12, looks: 3 }.at(), [4, 8, 12]);
        assert_eq!(Looks { seeds: 10, looks: 3 }.at(), [4, 7, 10]);
        assert_eq!(Looks { seeds: 6, looks: 1 }.at(), [6]);
        assert_eq!(Looks { seeds: 3, looks: 9 }.at(), [1, 2, 3]);
    }

    /// ```python
    /// 2 - 2 * scipy.stats.norm.cdf(scipy.stats.norm.ppf(.975) / numpy.sqrt(t))
    /// ```
    #[test]
    fn the_shares_are_those_of_the_spending_function() {
        let looks = Looks { seeds: 12, looks: 3 };
        for (n, expected) in [(4, 0.000_686_7), (8, 0.016_373_8 - 0.000_686_7), (12, 0.05 - 0.016_373_8)] {
            let share = looks.alpha(n, 0.05).unwrap();
            assert!((share - expected).abs() < 1e-6, "{n}: {share}");
        }
        assert_eq!(looks.alpha(6, 0.05), None);
        for (seeds, looks) in [(12, 3), (20, 5), (7, 2)] {
            let looks = Looks { seeds, looks };
            let sum: f64 = looks.at().into_iter().map(|n| looks.alpha(n, 0.05).unwrap()).sum();
            assert!((sum - 0.05).abs() < 1e-9, "{sum}");
        }
    }
}
