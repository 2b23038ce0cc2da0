//! Scores of super-resolved images.

use anyhow::ensure;
use rayon::prelude::*;

use super::{finite_psnr, psnr, psnr_y, ssim, ssim_y};
use crate::config::Degradation;
use crate::data::Images;
use crate::data::images::to_u8;
use crate::data::resample::degrade;

/// The scores of one super-resolved image. All are finite; see [`finite_psnr`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// PSNR in dB against the high-resolution image.
    pub psnr: f64,
    /// PSNR of the luma in dB; `None` if nothing is left after cropping.
    pub psnr_y: Option<f64>,
    /// `None` if the image is smaller than the window.
    pub ssim: Option<f64>,
    /// SSIM of the cropped luma; `None` if the crop is smaller than the window.
    pub ssim_y: Option<f64>,
    /// PSNR in dB between the degraded super-resolved image and the low-resolution image.
    pub consistency_psnr: f64,
}

/// Scores every image of `sr` against `hr` and, degraded, against `lr`; parallel, in image order.
///
/// # Errors
/// Fails if counts or sizes do not match, or `hr` cannot be degraded by `scale`.
pub fn score(
    hr: &Images,
    lr: &Images,
    sr: &Images,
    scale: usize,
    degradation: impl Into<Degradation>,
) -> anyhow::Result<Vec<Scores>> {
    let size = |i: &Images| (i.count, i.height, i.width);
    ensure!(
        size(sr) == size(hr),
        "{} super-resolved images of {}×{} do not match {} high-resolution ones of {}×{}",
        sr.count,
        sr.height,
        sr.width,
        hr.count,
        hr.height,
        hr.width
    );
    let down = degrade(sr, scale, degradation)?;
    ensure!(
        size(&down) == size(lr),
        "{} low-resolution images of {}×{} are not {} images of {}×{} made {scale} times smaller",
        lr.count,
        lr.height,
        lr.width,
        hr.count,
        hr.height,
        hr.width
    );
    let (height, width) = (hr.height, hr.width);
    let score_image = |i: usize| {
        let (hr, lr, sr, down) = (hr.image(i), lr.image(i), sr.image(i), down.image(i));
        Scores {
            psnr: finite_psnr(psnr(hr, sr), hr.len()),
            psnr_y: psnr_y(hr, sr, height, width, scale).map(|v| finite_psnr(v, hr.len())),
            ssim: ssim(hr, sr, height, width),
            ssim_y: ssim_y(hr, sr, height, width, scale),
            consistency_psnr: finite_psnr(psnr(lr, down), lr.len()),
        }
    };
    // Results are collected in order and images are independent: the result is bit-identical for any number of threads.
    Ok((0..hr.count).into_par_iter().map(score_image).collect())
}

/// Returns the mean of the images of `len` values in `samples`, rounded to 8 bits.
///
/// # Panics
/// Panics unless `samples` holds at least one image and only whole images.
pub fn mean_image(samples: &[u8], len: usize) -> Vec<u8> {
    assert!(len > 0 && !samples.is_empty() && samples.len().is_multiple_of(len));
    let count = samples.len() / len;
    let mean = |i: usize| {
        let sum: u64 = samples[i..].iter().step_by(len).map(|&v| u64::from(v)).sum();
        to_u8(sum as f64 / count as f64)
    };
    (0..len).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DegradeMethod;
    use crate::metrics::tests::{assert_near, fixture};

    #[test]
    fn a_mean_is_rounded_once() {
        // 1/2 rounds to even; 5/3; 3.
        assert_eq!(mean_image(&[0, 1, 1, 2], 2), [0, 2]);
        assert_eq!(mean_image(&[1, 0, 3, 2, 3, 3, 2, 9, 3], 3), [2, 4, 3]);
        assert_eq!(mean_image(&[4, 200], 2), [4, 200]);
    }

    #[test]
    fn every_image_has_its_own_scores() {
        let f = fixture();
        let lr = degrade(&f.a, 4, DegradeMethod::Area).unwrap();
        let scores = score(&f.a, &lr, &f.b, 4, DegradeMethod::Area).unwrap();
        let down = degrade(&f.b, 4, DegradeMethod::Area).unwrap();
        for (i, s) in scores.iter().enumerate() {
            assert_near(s.psnr, f.psnr[i], 1e-9);
            assert_near(s.psnr_y.unwrap(), f.psnr_y[i], 1e-9);
            assert_near(s.ssim.unwrap(), f.ssim[i], 1e-6);
            assert_eq!(s.consistency_psnr, psnr(lr.image(i), down.image(i)));
        }
        // Equal images have a finite score: 10·log₁₀(255²·3·8·8), as if one value of the 8×8 image differed by one.
        let perfect = score(&f.a, &lr, &f.a, 4, DegradeMethod::Area).unwrap();
        assert_near(perfect[0].consistency_psnr, 10.0 * (65025.0_f64 * 192.0).log10(), 1e-9);
    }

    #[test]
    fn mismatched_sizes_are_reported() {
        let f = fixture();
        let message = |lr: &Images, sr: &Images| score(&f.a, lr, sr, 4, DegradeMethod::Area).unwrap_err().to_string();
        let lr = degrade(&f.a, 4, DegradeMethod::Area).unwrap();
        assert!(message(&lr, &lr).contains("super-resolved images of 8×8 do not match"));
        assert!(message(&f.a, &f.b).contains("made 4 times smaller"));
    }
}
