//! Correction for multiple claims.

/// Returns Holm's adjusted p-values (Holm 1979): rejecting those below α keeps the probability of any false finding
/// below α. In ascending order, the i-th of m values is multiplied by m − i (counting from 0), then made non-decreasing
/// and at most 1.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![0.0; p.len()];
    let mut highest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        highest = highest.max((p.len() - rank) as f64 * p[index]).min(1.0);
        corrected[index] = highest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R: `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")`.
    #[test]
    fn corrections_match_r() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (p, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((p - expected).abs() < 1e-15, "{corrected:?}");
        }
        assert_eq!(holm(&[0.5, 0.9, 0.7]), [1.0; 3]);
        assert_eq!(holm(&[0.02]), [0.02]);
        assert!(holm(&[]).is_empty());
    }
}
