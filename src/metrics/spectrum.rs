//! Power of images by spatial frequency.

use std::f64::consts::PI;

use rayon::prelude::*;

use crate::data::Images;

/// The mean power of a set of images in rings of the frequency plane; ring r has r cycles along the longer side.
///
/// The mean is over images, channels and all frequencies within half a cycle of the ring. For each channel, the mean
/// under a Hann window is subtracted and the window is applied: without it, the discontinuity at the edges would fill
/// the high frequencies. The power of each ring is at least that of the noise from rounding to 8 bits (variance 1/12),
/// so that the decibels of smooth images are meaningful.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// The power of each ring, from ring 0 to half a cycle per pixel.
    rings: Vec<f64>,
}

impl Spectrum {
    /// Computes the spectrum, in parallel over the images; sums are in image order.
    pub fn of(images: &Images) -> Self {
        let transform = Transform::new(images.height, images.width);
        let each: Vec<Vec<f64>> = (0..images.count).into_par_iter().map(|i| transform.power(images.image(i))).collect();
        let size = images.height.max(images.width);
        let mut sums = vec![(0.0, 0_usize); size / 2 + 1];
        for (at, &ring) in transform.rings.iter().enumerate() {
            if let Some((sum, count)) = sums.get_mut(ring) {
                *sum += each.iter().map(|power| power[at]).sum::<f64>();
                *count += 3 * images.count;
            }
        }
        let rounding = transform.window_energy() / 12.0;
        Self { rings: sums.into_iter().map(|(sum, count)| (sum / count as f64).max(rounding)).collect() }
    }

    /// Returns the power of each ring in dB, from ring 0 (what remains of the mean) to half a cycle per pixel.
    pub fn decibels(&self) -> Vec<f64> {
        self.rings.iter().map(|power| 10.0 * power.log10()).collect()
    }

    /// Returns the root mean square difference between two spectra in dB, over the rings above the Nyquist frequency of
    /// images `scale` times smaller. These are the frequencies that super-resolution has to generate.
    ///
    /// Returns `None` if there is no such ring.
    ///
    /// # Panics
    /// Panics if the images of the sets differ in size.
    pub(super) fn distance(&self, other: &Self, scale: usize) -> Option<f64> {
        assert_eq!(self.rings.len(), other.rings.len());
        let size = 2 * (self.rings.len() - 1);
        let above = size / (2 * scale) + 1;
        let pairs = self.rings.iter().zip(&other.rings).skip(above);
        let squares: Vec<f64> = pairs.map(|(a, b)| (10.0 * (a / b).log10()).powi(2)).collect();
        let mean = squares.iter().sum::<f64>() / squares.len() as f64;
        (!squares.is_empty()).then(|| mean.sqrt())
    }
}

/// A discrete Fourier transform for one image size, computed as direct sums. It gives the same result on every
/// processor, and for 32×32 images a fast transform would save little time.
struct Transform {
    height: usize,
    width: usize,
    /// Hann windows of length `height` and `width`.
    windows: [Vec<f64>; 2],
    /// cos and -sin of 2π k / n for k in 0..n.
    waves: [Vec<(f64, f64)>; 2],
    /// The ring of each frequency, `(height, width)`.
    rings: Vec<usize>,
}

impl Transform {
    fn new(height: usize, width: usize) -> Self {
        let hann = |n: usize| (0..n).map(|i| 0.5 - 0.5 * (2.0 * PI * (i as f64 + 0.5) / n as f64).cos()).collect();
        let waves = |n: usize| {
            let angle = |k: usize| 2.0 * PI * k as f64 / n as f64;
            (0..n).map(|k| (angle(k).cos(), -angle(k).sin())).collect()
        };
        let size = height.max(width) as f64;
        let cycles = |k: usize, n: usize| k.min(n - k) as f64 / n as f64;
        let ring = |y: usize, x: usize| (cycles(y, height).hypot(cycles(x, width)) * size + 0.5).floor() as usize;
        let rings = (0..height).flat_map(|y| (0..width).map(move |x| ring(y, x))).collect();
        Self { height, width, windows: [hann(height), hann(width)], waves: [waves(height), waves(width)], rings }
    }

    /// Returns the power of white noise with variance 1 at each frequency.
    fn window_energy(&self) -> f64 {
        self.windows.iter().map(|window| window.iter().map(|w| w * w).sum::<f64>()).product()
    }

    /// Returns the squared magnitudes of an image's frequencies, `(height, width)`, summed over the channels.
    fn power(&self, image: &[u8]) -> Vec<f64> {
        let (height, width) = (self.height, self.width);
        let window = |i: usize| self.windows[0][i / width] * self.windows[1][i % width];
        let total: f64 = (0..height * width).map(window).sum();
        let mut power = vec![0.0; height * width];
        for channel in 0..3 {
            let value = |i: usize| f64::from(image[3 * i + channel]);
            let mean = (0..height * width).map(|i| window(i) * value(i)).sum::<f64>() / total;
            let plane: Vec<f64> = (0..height * width).map(|i| window(i) * (value(i) - mean)).collect();
            // The transform of a real signal at -k is the conjugate of that at k, so half of the columns suffice.
            let half = width / 2 + 1;
            let mut rows = vec![(0.0, 0.0); height * half];
            for (row, out) in plane.chunks_exact(width).zip(rows.chunks_exact_mut(half)) {
                for (k, out) in out.iter_mut().enumerate() {
                    let mut phase = 0;
                    for v in row {
                        let (cos, sin) = self.waves[1][phase];
                        *out = (out.0 + v * cos, out.1 + v * sin);
                        phase = next(phase, k, width);
                    }
                }
            }
            for k in 0..height {
                let mut sums = vec![(0.0, 0.0); half];
                let mut phase = 0;
                for row in rows.chunks_exact(half) {
                    let (cos, sin) = self.waves[0][phase];
                    for (sum, (re, im)) in sums.iter_mut().zip(row) {
                        *sum = (sum.0 + re * cos - im * sin, sum.1 + re * sin + im * cos);
                    }
                    phase = next(phase, k, height);
                }
                for (x, (re, im)) in sums.into_iter().enumerate() {
                    let square = re * re + im * im;
                    power[k * width + x] += square;
                    if x > 0 && 2 * x < width {
                        power[(height - k) % height * width + width - x] += square;
                    }
                }
            }
        }
        power
    }
}

/// Returns `phase + k` modulo `n`; both are below `n`.
fn next(phase: usize, k: usize, n: usize) -> usize {
    let sum = phase + k;
    if sum >= n { sum - n } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::{assert_near, evaluation};
    use crate::random::{Purpose, stream};

    #[test]
    fn the_distance_matches_numpy() {
        let f = evaluation();
        let samples = f.samples.first(0..f.samples.count);
        let (a, b) = (Spectrum::of(&samples), Spectrum::of(&f.hr));
        for (scale, expected) in [2, 4].into_iter().zip(f.numbers("spectrum")) {
            assert_near(a.distance(&b, scale).unwrap(), expected, 1e-9);
        }
        assert_eq!(a.distance(&a, 4), Some(0.0));
    }

    /// Halving every deviation from the mean quarters the power: 10·log₁₀ 4 dB at every frequency.
    #[test]
    fn halving_the_contrast_is_a_distance_of_six_decibels() {
        let image = |low: u8, high: u8| {
            let of = |i: usize| if i * i % 7 < 3 { low } else { high };
            Images::new(1, 16, 16, (0..3 * 256).map(of).collect())
        };
        let (full, half) = (Spectrum::of(&image(60, 180)), Spectrum::of(&image(90, 150)));
        assert_near(full.distance(&half, 4).unwrap(), 10.0 * 4.0_f64.log10(), 1e-9);
    }

    #[test]
    fn white_noise_has_its_variance_at_every_frequency_and_flat_images_have_that_of_rounding() {
        let mut noise = stream(5, Purpose::Synthetic, 0, 0);
        // Uniform over 0..=255: variance (256² - 1)/12.
        let pixels = (0..64 * 3 * 256).map(|_| noise.below(256) as u8).collect();
        let white = Spectrum::of(&Images::new(64, 16, 16, pixels));
        let flat = Spectrum::of(&Images::new(2, 16, 16, vec![9; 2 * 3 * 256]));
        assert_near(white.distance(&flat, 2).unwrap(), 10.0 * 65535.0_f64.log10(), 0.5);
        assert_eq!(white.distance(&flat, 1), None);
    }
}
