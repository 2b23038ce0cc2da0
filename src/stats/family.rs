//! Correction for multiple claims and for multiple looks at the data.

use statrs::distribution::{ContinuousCDF, Normal};

/// The claims that share an error rate: those of a pipeline file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family {
    /// The number of claims, answered here or elsewhere.
    pub claims: usize,
    /// The probability of any false finding in the family, and of any false equivalence.
    pub alpha: f64,
}

impl Family {
    /// Returns the level at which the first claim of the family is tested.
    pub fn level(self) -> f64 {
        self.alpha / self.claims.max(1) as f64
    }

    /// Returns Holm's adjusted p-values (Holm 1979): rejecting those that are at most `alpha` keeps the probability of
    /// any false finding in the family at most `alpha`. In ascending order, the i-th of m values is multiplied by m − i
    /// (counting from 0), then made non-decreasing and at most 1.
    ///
    /// Claims that are answered elsewhere count as larger than all of `p`, which is conservative.
    pub fn holm(self, p: &[f64]) -> Vec<f64> {
        let claims = self.claims.max(p.len());
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
        let mut adjusted = vec![0.0; p.len()];
        let mut highest = 0.0_f64;
        for (rank, index) in order.into_iter().enumerate() {
            highest = highest.max((claims - rank) as f64 * p[index]).min(1.0);
            adjusted[index] = highest;
        }
        adjusted
    }
}

/// Returns the significance level of one of several looks at a growing study, such that all looks together have the
/// level `alpha`. `seeds` of the `planned` number of seeds are finished.
///
/// Looks are planned at equal distances. Each spends what O'Brien and Fleming's spending function (Lan & DeMets 1983)
/// allows since the look before: 2 − 2Φ(z/√t) after the fraction t of the study, with z the quantile of alpha/2. Adding
/// these levels up ignores that looks share seeds, so the study is slightly conservative. Between two looks, and after
/// the last, nothing is spent: the level is 0.
pub fn level_of_look(seeds: usize, planned: usize, looks: usize, alpha: f64) -> f64 {
    let spent = |look: usize| match look {
        0 => 0.0,
        _ if look == looks => alpha,
        _ => {
            let z = Normal::standard().inverse_cdf(1.0 - alpha / 2.0);
            let share = seeds_at(look, planned, looks) as f64 / planned as f64;
            2.0 * Normal::standard().sf(z / share.sqrt())
        }
    };
    let look = (1..=looks).find(|&look| seeds_at(look, planned, looks) == seeds);
    look.map_or(0.0, |look| spent(look) - spent(look - 1))
}

/// Returns the number of seeds at a look, counted from 1.
pub fn seeds_at(look: usize, planned: usize, looks: usize) -> usize {
    (look * planned).div_ceil(looks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_FILE: Family = Family { claims: 0, alpha: 0.05 };

    /// R: `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")`, and the same with two values of 1 appended.
    #[test]
    fn adjusted_p_values_match_r() {
        let p = [0.01, 0.04, 0.03, 0.005];
        for (claims, expected) in [(4, [0.03, 0.06, 0.06, 0.02]), (6, [0.05, 0.12, 0.12, 0.03])] {
            let adjusted = Family { claims, ..ONE_FILE }.holm(&p);
            for (p, expected) in adjusted.iter().zip(expected) {
                assert!((p - expected).abs() < 1e-15, "{claims}: {adjusted:?}");
            }
        }
        assert_eq!(ONE_FILE.holm(&[0.5, 0.9, 0.7]), [1.0; 3]);
        assert_eq!(ONE_FILE.holm(&[0.02]), [0.02]);
        assert!(ONE_FILE.holm(&[]).is_empty());
    }

    /// ```python
    /// z = scipy.stats.norm.ppf(.975); spent = lambda t: 2 * scipy.stats.norm.sf(z / math.sqrt(t))
    /// [spent(4/12), spent(8/12) - spent(4/12), .05 - spent(8/12)]
    /// ```
    #[test]
    fn looks_spend_the_level_as_o_brien_and_fleming_do() {
        let levels = [4, 8, 12].map(|seeds| level_of_look(seeds, 12, 3, 0.05));
        for (level, expected) in levels.iter().zip([0.000_686_894_868, 0.015_687_771_582, 0.033_625_333_55]) {
            assert!((level - expected).abs() < 1e-9, "{levels:?}");
        }
        assert!((levels.iter().sum::<f64>() - 0.05).abs() < 1e-12);
        assert_eq!([3, 5, 11, 13].map(|seeds| level_of_look(seeds, 12, 3, 0.05)), [0.0; 4]);
        assert_eq!(level_of_look(8, 8, 1, 0.05), 0.05);
        assert_eq!([1, 2, 3].map(|look| seeds_at(look, 10, 3)), [4, 7, 10]);
    }
}
