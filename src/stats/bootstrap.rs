//! Bootstrap confidence intervals for the size of an effect.

use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::{ALPHA, mean};
use crate::random::{Purpose, stream};

/// Returns a 95 % confidence interval of the mean of `differences`, which has one row per seed and one column per
/// image, from a bootstrap over both: each resample draws seeds and images with replacement. Returns `None` for fewer
/// than two seeds.
///
/// All seeds of a resample use the same images, just as all seeds share the test images: an image's effect on an arm is
/// the same under every seed, and drawing images per seed would average it out. With a single column there are no
/// images to resample, and only seeds are drawn.
///
/// Percentile intervals from few units are too narrow. The percentiles are therefore expanded such that the interval is
/// exact for normally distributed differences (Hesterberg 2015, the "expanded percentile interval"): the tails are
/// Φ(-t·√(n/(n-1))), where t is the quantile of Student's distribution with n - 1 degrees of freedom.
///
/// Panics unless the rows have the same length and are not empty.
pub fn interval(differences: &[Vec<f64>], resamples: usize) -> Option<[f64; 2]> {
    let (seeds, images) = (differences.len(), differences.first()?.len());
    assert!(images > 0 && differences.iter().all(|row| row.len() == images));
    if seeds < 2 {
        return None;
    }
    let resample = |index: usize| {
        let mut draws = stream(0, Purpose::Bootstrap, 0, index as u64);
        let drawn: Vec<usize> = (0..seeds).map(|_| draws.below(seeds)).collect();
        if images == 1 {
            return drawn.iter().map(|&seed| differences[seed][0]).sum::<f64>() / seeds as f64;
        }
        let mut counts = vec![0.0; images];
        (0..images).for_each(|_| counts[draws.below(images)] += 1.0);
        let of_seed = |&seed: &usize| differences[seed].iter().zip(&counts).map(|(d, c)| d * c).sum::<f64>();
        drawn.iter().map(of_seed).sum::<f64>() / (seeds * images) as f64
    };
    let mut means: Vec<f64> = (0..resamples).into_par_iter().map(resample).collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = tail(seeds);
    Some([quantile(&means, tail), quantile(&means, 1.0 - tail)])
}

/// Returns the fraction of resamples beyond each end of the interval.
fn tail(seeds: usize) -> f64 {
    let n = seeds as f64;
    let student = StudentsT::new(0.0, 1.0, n - 1.0).expect("two seeds leave a degree of freedom");
    let t = student.inverse_cdf(1.0 - ALPHA / 2.0);
    Normal::standard().sf(t * (n / (n - 1.0)).sqrt())
}

/// Returns a quantile of sorted values, with linear interpolation.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + part * (sorted[above] - sorted[below])
}

/// Returns the mean over seeds and images.
pub fn effect(differences: &[Vec<f64>]) -> f64 {
    mean(&differences.iter().map(|row| mean(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// t = scipy.stats.t.ppf(.975, n - 1) * np.sqrt(n / (n - 1)); scipy.stats.norm.sf(t)
    /// ```
    #[test]
    fn tails_match_scipy() {
        for (n, expected) in [(6, 0.002_431_803_164_611_6), (8, 0.005_737_520_517_029_9), (12, 0.010_756_614_916_552_5)]
        {
            assert!((tail(n) - expected).abs() < 1e-9, "{n}: {}", tail(n));
        }
    }

    #[test]
    fn quantiles_are_interpolated_linearly() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.0), 1.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0);
    }

    #[test]
    fn one_seed_has_no_interval_and_equal_seeds_have_an_empty_one() {
        assert_eq!(interval(&[], 10), None);
        assert_eq!(interval(&[vec![1.0, 2.0]], 10), None);
        assert_eq!(interval(&vec![vec![0.5]; 8], 100), Some([0.5, 0.5]));
    }

    /// Disagreement between images widens the interval, even if the seeds agree.
    #[test]
    fn disagreement_between_images_widens_the_interval() {
        let agreeing = |spread: f64| -> Vec<Vec<f64>> {
            let row = |seed: usize| (0..20).map(|i| 0.1 * seed as f64 + spread * (i as f64 - 9.5)).collect();
            (0..8).map(row).collect()
        };
        let width = |differences: &[Vec<f64>]| interval(differences, 2000).map(|[low, high]| high - low).unwrap();
        assert!(width(&agreeing(1.0)) > 5.0 * width(&agreeing(0.0)));
        assert_eq!(interval(&agreeing(1.0), 500), interval(&agreeing(1.0), 500));
    }
}
