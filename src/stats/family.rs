//! Correction for multiple testing.

/// A set of hypotheses that share an error rate, such as the claims of a pipeline file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family {
    /// The number of claims, including those that other comparisons answer.
    pub claims: usize,
    /// The maximum probability of any false finding in the family, and separately of any false equivalence.
    pub alpha: f64,
}

impl Family {
    /// Returns the level at which the smallest p-value of the family is tested.
    pub fn level(self) -> f64 {
        self.alpha / self.claims.max(1) as f64
    }

    /// Returns Holm's adjusted p-values (Holm 1979): rejecting those that are at most `alpha` keeps the probability of
    /// any false finding in the family at most `alpha`. In ascending order, the i-th of m values is multiplied by m − i
    /// (counting from 0), then made non-decreasing and at most 1.
    ///
    /// The p-values of claims that other comparisons answer count as larger than all of `p`, which is conservative.
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
}
