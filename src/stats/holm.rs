//! Several claims at once.

/// The p of each claim so corrected that a bound α on them bounds the chance of any false finding (Holm 1979): in order
/// of size the i-th of m times m - i, none below the one before it, at most 1.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![0.0; p.len()];
    let mut least = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        least = least.max((p.len() - rank) as f64 * p[index]).min(1.0);
        corrected[index] = least;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R: `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")`.
    #[test]
    fn corrections_are_those_of_r() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (p, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((p - expected).abs() < 1e-15, "{corrected:?}");
        }
        assert_eq!(holm(&[0.5, 0.9, 0.7]), [1.0; 3]);
        assert_eq!(holm(&[0.02]), [0.02]);
        assert!(holm(&[]).is_empty());
    }
}
