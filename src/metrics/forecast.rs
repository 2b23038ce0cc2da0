//! Proper scores and calibration of K samples as a forecast of the image.
//!
//! A perfect posterior sampler has a PSNR 3 dB below that of the conditional mean, so the PSNR of single samples does
//! not rank samplers. These scores do: in expectation, each is minimal for samples of the true distribution.

use rayon::prelude::*;

use super::patch_corners;
use crate::data::{Images, Samples};

/// The side of the patches of [`energy_score`], in pixels.
const ENERGY_PATCH: usize = 8;

/// The scores of all samples of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    pub crps: f64,
    /// `None` if the image is smaller than a patch.
    pub energy_score: Option<f64>,
    pub errors: Errors,
}

/// Computes the scores of the images in `range`, in parallel, in image order.
///
/// # Panics
/// Panics if the size of `samples` does not match `truth`.
pub fn forecasts(truth: &Images, samples: &Samples, range: std::ops::Range<usize>) -> Vec<Forecast> {
    let one = |i: usize| {
        let (truth, samples, (height, width)) = (truth.image(i), samples.of_image(i), (truth.height, truth.width));
        Forecast {
            crps: crps(truth, samples),
            energy_score: energy_score(truth, samples, height, width),
            errors: errors(truth, samples),
        }
    };
    range.into_par_iter().map(one).collect()
}

/// Returns the continuous ranked probability score of `samples`, K images of the size of `truth`, in 8-bit levels: the
/// mean over the values of E|X − y| − ½ E|X − X'|.
///
/// The second expectation is over pairs of different samples ("fair", Ferro 2014), so that the score does not depend on
/// K. A single sample is a deterministic forecast, whose score is the absolute error.
///
/// # Panics
/// Panics unless `samples` holds at least one image and only whole images.
pub fn crps(truth: &[u8], samples: &[u8]) -> f64 {
    let count = count(truth, samples);
    let (mut errors, mut pairs) = (0_u64, 0_i64);
    let mut values = vec![0; count];
    for (i, &y) in truth.iter().enumerate() {
        values.iter_mut().zip(samples[i..].iter().step_by(truth.len())).for_each(|(v, &x)| *v = x);
        errors += values.iter().map(|&x| u64::from(x.abs_diff(y))).sum::<u64>();
        // In sorted order, the k-th value is the greater one in k pairs and the smaller one in the others.
        values.sort_unstable();
        pairs +=
            (values.iter().enumerate()).map(|(k, &x)| (2 * k as i64 + 1 - count as i64) * i64::from(x)).sum::<i64>();
    }
    // Exact up to here: integers far below 2⁵³.
    let spread = if count > 1 { pairs as f64 / (count * (count - 1)) as f64 } else { 0.0 };
    (errors as f64 / count as f64 - spread) / truth.len() as f64
}

/// Returns the energy score of `samples`, K images of `(height, width, 3)`, in 8-bit levels: the mean over 8×8 patches
/// of E‖X − y‖ − ½ E‖X − X'‖ (Gneiting and Raftery 2007, eq. 22). Pairs and a single sample are handled as in [`crps`].
///
/// ‖·‖ is the root mean square of a patch's values. Unlike [`crps`], the score depends on whether the pixels of a
/// sample are consistent with each other. Patches do not overlap; partial patches at the right and bottom edges are
/// ignored. Returns `None` for images smaller than a patch.
///
/// # Panics
/// Panics unless `samples` holds at least one image of the size of `truth` and only whole images.
pub fn energy_score(truth: &[u8], samples: &[u8], height: usize, width: usize) -> Option<f64> {
    assert_eq!(truth.len(), 3 * height * width);
    let count = count(truth, samples);
    let images: Vec<&[u8]> = samples.chunks_exact(truth.len()).collect();
    let (mut sum, mut patches) = (0.0, 0);
    for corner in patch_corners(height, width, ENERGY_PATCH, ENERGY_PATCH) {
        let distance = |a: &[u8], b: &[u8]| {
            let row = |row: usize| {
                let at = 3 * (corner + row * width)..3 * (corner + row * width + ENERGY_PATCH);
                a[at.clone()].iter().zip(&b[at]).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>()
            };
            f64::from((0..ENERGY_PATCH).map(row).sum::<u32>()).sqrt()
        };
        let error: f64 = images.iter().map(|image| distance(image, truth)).sum();
        let pairs: f64 =
            (1..count).flat_map(|k| (0..k).map(move |l| (k, l))).map(|(k, l)| distance(images[k], images[l])).sum();
        let spread = if count > 1 { pairs / (count * (count - 1)) as f64 } else { 0.0 };
        sum += error / count as f64 - spread;
        patches += 1;
    }
    let values = (3 * ENERGY_PATCH * ENERGY_PATCH) as f64;
    (patches > 0).then(|| sum / f64::from(patches) / values.sqrt())
}

/// Mean squared errors of one image, in squared 8-bit levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// Of single samples: the mean over the samples.
    pub of_sample: f64,
    /// Of the mean of the samples, not rounded.
    pub of_mean: f64,
}

/// Returns the mean squared errors of the samples of one image and of their mean.
///
/// # Panics
/// Panics unless `samples` holds at least one image of the size of `truth` and only whole images.
pub fn errors(truth: &[u8], samples: &[u8]) -> Errors {
    let count = count(truth, samples);
    let (mut each, mut mean) = (0_u64, 0_u64);
    for (i, &y) in truth.iter().enumerate() {
        let mut sum = 0;
        for &x in samples[i..].iter().step_by(truth.len()) {
            sum += u64::from(x);
            each += u64::from(x.abs_diff(y)).pow(2);
        }
        mean += sum.abs_diff(count as u64 * u64::from(y)).pow(2);
    }
    let values = truth.len() as f64;
    Errors {
        of_sample: each as f64 / (count as f64 * values),
        of_mean: mean as f64 / ((count * count) as f64 * values),
    }
}

impl Errors {
    /// Returns the unbiased estimate of the squared error of the mean of infinitely many samples, from K ≥ 2 of them.
    ///
    /// With b² that error and s² the variance of the samples, single samples have an expected error of b² + s² and the
    /// mean of K samples one of b² + s²/K. The estimate can be negative.
    pub fn of_infinite_mean(self, samples: usize) -> f64 {
        let k = samples as f64;
        (k * self.of_mean - self.of_sample) / (k - 1.0)
    }

    /// Returns the unbiased estimate of the variance of the samples, from K ≥ 2 of them.
    pub fn variance(self, samples: usize) -> f64 {
        let k = samples as f64;
        (self.of_sample - self.of_mean) * k / (k - 1.0)
    }
}

/// Returns the calibration of the samples: their variance divided by the squared error of their mean, both as if there
/// were infinitely many samples, so that it does not depend on their number. If the truth is another sample, both are
/// equal. 1 is calibrated; below 1 the samples vary too little, above 1 too much. Returns `None` for fewer than two
/// samples or if the error is not positive.
pub fn calibration(errors: &[Errors], samples: usize) -> Option<f64> {
    if samples < 2 {
        return None;
    }
    let error: f64 = errors.iter().map(|errors| errors.of_infinite_mean(samples)).sum();
    let variance: f64 = errors.iter().map(|errors| errors.variance(samples)).sum();
    (error > 0.0).then(|| variance / error)
}

/// Returns the number of samples.
fn count(truth: &[u8], samples: &[u8]) -> usize {
    assert!(!truth.is_empty() && !samples.is_empty() && samples.len().is_multiple_of(truth.len()));
    samples.len() / truth.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::images::to_u8;
    use crate::metrics::tests::{assert_near, evaluation};
    use crate::random::{Purpose, Stream, stream};

    #[test]
    fn scores_match_scipy_and_numpy() {
        let f = evaluation();
        for i in 0..f.hr.count {
            let (truth, samples) = (f.hr.image(i), f.samples.of_image(i));
            assert_near(crps(truth, samples), f.numbers("crps")[i], 1e-10);
            assert_near(energy_score(truth, samples, f.hr.height, f.hr.width).unwrap(), f.numbers("energy")[i], 1e-10);
            assert_near(errors(truth, samples).of_sample, f.numbers("mse_each")[i], 1e-9);
            assert_near(errors(truth, samples).of_mean, f.numbers("mse_mean")[i], 1e-9);
        }
    }

    fn draw(noise: &mut Stream, sigma: f64) -> u8 {
        to_u8(128.0 + sigma * noise.normal())
    }

    /// The expected score of a Gaussian forecast and a truth drawn from it: E|X − y| − ½ E|X − X'| = σ/√π (Gneiting and
    /// Raftery 2007, eq. 21, in expectation) for any K.
    #[test]
    fn crps_of_a_gaussian_matches_the_closed_form_for_every_number_of_samples() {
        let mut noise = stream(1, Purpose::Synthetic, 0, 0);
        let (sigma, values) = (20.0, 100_000);
        for count in [2, 3, 8] {
            let truth: Vec<u8> = (0..values).map(|_| draw(&mut noise, sigma)).collect();
            let samples: Vec<u8> = (0..values * count).map(|_| draw(&mut noise, sigma)).collect();
            // Five standard errors of about σ/√values.
            assert_near(crps(&truth, &samples), sigma / std::f64::consts::PI.sqrt(), 0.3);
        }
    }

    #[test]
    fn proper_scores_prefer_the_true_spread() {
        let mut noise = stream(2, Purpose::Synthetic, 0, 0);
        let side = 64;
        let truth: Vec<u8> = (0..3 * side * side).map(|_| draw(&mut noise, 20.0)).collect();
        let mut scores = |sigma: f64| {
            let samples: Vec<u8> = (0..4 * truth.len()).map(|_| draw(&mut noise, sigma)).collect();
            let calibration = calibration(&[errors(&truth, &samples)], 4).unwrap();
            (crps(&truth, &samples), energy_score(&truth, &samples, side, side).unwrap(), calibration)
        };
        let [narrow, right, wide] = [5.0, 20.0, 40.0].map(&mut scores);
        assert!(right.0 < narrow.0 && right.0 < wide.0, "{narrow:?} {right:?} {wide:?}");
        assert!(right.1 < narrow.1 && right.1 < wide.1, "{narrow:?} {right:?} {wide:?}");
        assert!(narrow.2 < 0.8 && (right.2 - 1.0).abs() < 0.03 && wide.2 > 1.2, "{narrow:?} {right:?} {wide:?}");
    }

    #[test]
    fn one_sample_is_a_deterministic_forecast() {
        let (truth, sample) = ([10; 3 * 8 * 9], [13; 3 * 8 * 9]);
        assert_eq!(crps(&truth, &sample), 3.0);
        assert_near(energy_score(&truth, &sample, 8, 9).unwrap(), 3.0, 1e-12);
        assert_eq!(energy_score(&truth[..3 * 63], &sample[..3 * 63], 7, 9), None);
        assert_eq!(calibration(&[errors(&truth, &sample)], 1), None);
        assert_eq!(calibration(&[errors(&truth, &truth)], 2), None);
    }
}
