//! Structural similarity.

use super::luma::luma;

/// The side of the Gaussian window in pixels: σ = 1.5, truncated at 3.5 σ.
const SSIM_WINDOW: usize = 2 * RADIUS + 1;
const RADIUS: usize = 5;
const SIGMA: f64 = 1.5;

/// Returns the structural similarity (Wang et al. 2004) of two images of at least 11×11 pixels, in [-1, 1]; `None` for
/// smaller images.
///
/// Uses an 11×11 Gaussian window with σ 1.5, K₁ = 0.01, K₂ = 0.03 and population covariances. The mean is over the
/// pixels whose window lies within the image, then over the three channels. This matches scikit-image's
/// `structural_similarity` with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
/// channel_axis=-1`.
///
/// # Panics
/// Panics unless both images are `(height, width, 3)`.
pub fn ssim(a: &[u8], b: &[u8], height: usize, width: usize) -> Option<f64> {
    assert!(a.len() == 3 * height * width && b.len() == a.len());
    if height < SSIM_WINDOW || width < SSIM_WINDOW {
        return None;
    }
    let channel = |image: &[u8], channel: usize| -> Vec<f64> {
        image[channel..].iter().step_by(3).map(|&v| f64::from(v)).collect()
    };
    let sum = (0..3).fold(0.0, |sum, c| add_pixels(sum, &channel(a, c), &channel(b, c), height, width));
    let pixels = (height - 2 * RADIUS) * (width - 2 * RADIUS);
    Some(sum / (3 * pixels) as f64)
}

/// Returns the [`ssim`] of the luma without the outer `crop` pixels, with a data range of 255; `None` if fewer than
/// 11×11 pixels are left. Papers crop as many pixels as the scale.
///
/// # Panics
/// Panics unless both images are `(height, width, 3)`.
pub fn ssim_y(a: &[u8], b: &[u8], height: usize, width: usize, crop: usize) -> Option<f64> {
    let (a, inner_height, inner_width) = luma(a, height, width, crop)?;
    let (b, ..) = luma(b, height, width, crop)?;
    if inner_height < SSIM_WINDOW || inner_width < SSIM_WINDOW {
        return None;
    }
    let pixels = (inner_height - 2 * RADIUS) * (inner_width - 2 * RADIUS);
    Some(add_pixels(0.0, &a, &b, inner_height, inner_width) / pixels as f64)
}

/// Returns `sum` plus the structural similarities of all pixels whose window lies within the plane.
fn add_pixels(sum: f64, a: &[f64], b: &[f64], height: usize, width: usize) -> f64 {
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let window = gaussian();
    let moment = |f: &dyn Fn(f64, f64) -> f64| {
        let plane: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
        filter(&plane, height, width, &window)
    };
    let (mean_a, mean_b) = (moment(&|a, _| a), moment(&|_, b| b));
    let (square_a, square_b, product) = (moment(&|a, _| a * a), moment(&|_, b| b * b), moment(&|a, b| a * b));
    let similarity = |i: usize| {
        let (ma, mb) = (mean_a[i], mean_b[i]);
        let (variance_a, variance_b, covariance) = (square_a[i] - ma * ma, square_b[i] - mb * mb, product[i] - ma * mb);
        (2.0 * ma * mb + C1) * (2.0 * covariance + C2) / ((ma * ma + mb * mb + C1) * (variance_a + variance_b + C2))
    };
    (0..mean_a.len()).map(similarity).fold(sum, |sum, value| sum + value)
}

/// Returns the weights of the Gaussian window, which sum to 1.
fn gaussian() -> [f64; SSIM_WINDOW] {
    let mut window = [0.0; SSIM_WINDOW];
    for (i, w) in window.iter_mut().enumerate() {
        *w = (-0.5 * ((i as f64 - RADIUS as f64) / SIGMA).powi(2)).exp();
    }
    let sum: f64 = window.iter().sum();
    window.map(|w| w / sum)
}

/// Filters rows, then columns, only where the window fits: `(height - 10, width - 10)`.
fn filter(plane: &[f64], height: usize, width: usize, window: &[f64; SSIM_WINDOW]) -> Vec<f64> {
    let inner = width - 2 * RADIUS;
    let mut rows = Vec::with_capacity(height * inner);
    for row in plane.chunks_exact(width) {
        rows.extend(row.windows(SSIM_WINDOW).map(|v| v.iter().zip(window).map(|(v, w)| v * w).sum::<f64>()));
    }
    let mut out = vec![0.0; (height - 2 * RADIUS) * inner];
    for (y, out) in out.chunks_exact_mut(inner).enumerate() {
        for (row, w) in rows[y * inner..].chunks_exact(inner).zip(window) {
            out.iter_mut().zip(row).for_each(|(o, v)| *o += v * w);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::{assert_near, evaluation, fixture};

    #[test]
    fn ssim_matches_scikit_image() {
        let f = fixture();
        for i in 0..f.a.count {
            let s = ssim(f.a.image(i), f.b.image(i), f.a.height, f.a.width).unwrap();
            assert_near(s, f.ssim[i], 1e-9);
        }
        // Non-square images.
        let f = evaluation();
        for (i, expected) in f.numbers("ssim_y").into_iter().enumerate() {
            let first = f.samples.first(0..f.samples.count);
            assert_near(ssim_y(f.hr.image(i), first.image(i), f.hr.height, f.hr.width, 2).unwrap(), expected, 1e-9);
        }
        let samples = f.samples.first(0..f.samples.count);
        for (i, expected) in f.numbers("ssim").into_iter().enumerate() {
            let s = ssim(f.hr.image(i), samples.image(i), f.hr.height, f.hr.width).unwrap();
            assert_near(s, expected, 1e-9);
        }
    }

    #[test]
    fn the_ssim_of_flat_images_compares_their_means() {
        // Without variance, (2ab + C1)/(a² + b² + C1) remains.
        let (a, b, c1) = (100.0_f64, 150.0, 2.55_f64.powi(2));
        let s = ssim(&[100; 3 * 11 * 13], &[150; 3 * 11 * 13], 11, 13).unwrap();
        assert_near(s, (2.0 * a * b + c1) / (a * a + b * b + c1), 1e-9);
    }

    #[test]
    fn ssim_is_one_for_equal_images_symmetric_and_undefined_below_the_window_size() {
        let f = fixture();
        let (a, b) = (f.a.image(0), f.b.image(0));
        assert_near(ssim(a, a, 32, 32).unwrap(), 1.0, 1e-12);
        assert_eq!(ssim(a, b, 32, 32), ssim(b, a, 32, 32));
        assert_eq!(ssim(&[0; 330], &[0; 330], 10, 11), None);
        assert_eq!((ssim_y(a, b, 32, 32, 11), ssim_y(a, b, 32, 32, 16)), (None, None));
    }
}
