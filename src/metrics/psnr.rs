//! Peak signal-to-noise ratio.

use super::luma::luma;

/// Returns the peak signal-to-noise ratio in dB over all three channels, 10·log₁₀(255²/MSE); +∞ for equal images.
///
/// # Panics
/// Panics if the images differ in size.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    // Exact: integers far below 2⁵³.
    let squares: u64 = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    decibels(squares as f64 / a.len() as f64)
}

/// Returns the PSNR in dB of the luma without the outer `crop` pixels; `None` if nothing is left. Papers crop by the
/// scale.
///
/// # Panics
/// Panics unless both images are `(height, width, 3)`.
pub fn psnr_y(a: &[u8], b: &[u8], height: usize, width: usize, crop: usize) -> Option<f64> {
    let (a, ..) = luma(a, height, width, crop)?;
    let (b, ..) = luma(b, height, width, crop)?;
    let squares: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    Some(decibels(squares / a.len() as f64))
}

/// Returns `psnr`, capped at the PSNR of two images of `values` values that differ by one level in one value: 83.0 dB
/// for 3·32·32 values.
///
/// Files and means use this finite value for equal images, whose PSNR is infinite; otherwise one perfect image makes
/// the mean infinite. No [`psnr`] of unequal images exceeds it, but a [`psnr_y`] can.
pub fn finite_psnr(psnr: f64, values: usize) -> f64 {
    psnr.min(decibels(1.0 / values as f64))
}

fn decibels(mse: f64) -> f64 {
    10.0 * (255.0 * 255.0 / mse).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::{assert_near, evaluation, fixture};

    #[test]
    fn psnr_matches_numpy() {
        let f = fixture();
        for i in 0..f.a.count {
            assert_near(psnr(f.a.image(i), f.b.image(i)), f.psnr[i], 1e-9);
            let y = psnr_y(f.a.image(i), f.b.image(i), f.a.height, f.a.width, 4).unwrap();
            assert_near(y, f.psnr_y[i], 1e-9);
        }
        // Non-square images and a different crop.
        let f = evaluation();
        let first = f.samples.first(0..f.samples.count);
        for (i, expected) in f.numbers("psnr_y").into_iter().enumerate() {
            assert_near(psnr_y(f.hr.image(i), first.image(i), f.hr.height, f.hr.width, 2).unwrap(), expected, 1e-9);
        }
    }

    #[test]
    fn psnr_matches_scikit_image() {
        let f = evaluation();
        let samples = f.samples.first(0..f.samples.count);
        for (i, expected) in f.numbers("psnr").into_iter().enumerate() {
            assert_near(psnr(f.hr.image(i), samples.image(i)), expected, 1e-9);
        }
    }

    #[test]
    fn a_difference_of_one_level_everywhere_is_48_decibels() {
        // 20·log₁₀(255)
        assert_near(psnr(&[7; 300], &[8; 300]), 48.130_803_608_679_1, 1e-12);
        assert_eq!(psnr(&[0; 300], &[255; 300]), 0.0);
    }

    #[test]
    fn luma_weighs_green_most_and_ignores_the_border() {
        let black = vec![0; 3 * 10 * 10];
        let with = |channel: usize, y: usize, x: usize| {
            let mut image = black.clone();
            image[3 * (y * 10 + x) + channel] = 255;
            psnr_y(&black, &image, 10, 10, 4).unwrap()
        };
        // One of the 2×2 pixels left after cropping is off by 128.553.
        assert_near(with(1, 4, 5), 10.0 * (255.0_f64.powi(2) / (128.553_f64.powi(2) / 4.0)).log10(), 1e-9);
        assert!(with(1, 4, 4) < with(0, 4, 4) && with(0, 4, 4) < with(2, 4, 4));
        assert_eq!(with(1, 3, 5), f64::INFINITY);
        assert_eq!(psnr_y(&black[..3 * 80], &black[..3 * 80], 8, 10, 4), None);
    }

    #[test]
    fn the_psnr_of_equal_images_is_infinite_and_capped_at_that_of_one_level_in_one_value() {
        let a = [9; 48];
        assert_eq!(psnr(&a, &a), f64::INFINITY);
        let mut b = a;
        b[5] = 10;
        assert_eq!(finite_psnr(f64::INFINITY, 48), psnr(&a, &b));
        assert_eq!(finite_psnr(20.5, 48), 20.5);
    }
}
