//! Quality metrics of super-resolved images, computed in f64 from 8-bit pixels; only `patches` stores intermediate values
//! as f32. Each metric is a pure function of the images.
//!
//! - `psnr`, `ssim`: the similarity to the real image; `scores` also measures consistency with the low-resolution
//!   image.
//! - `forecast`: how well several samples predict the distribution of the image.
//! - `spectrum`, `patches`: distances between two sets of images as distributions, without pairing their images.
//!   Two sets of real images have a distance above 0. The distance between the `halves` of the real images is the
//!   floor and is reported with the distances; `distances` computes both.
//!
//! Images are `(height, width, 3)` slices of u8, as returned by [`Images::image`](crate::data::Images::image). The
//! `comparison` module averages and plots the values.

mod distances;
mod forecast;
mod luma;
mod patches;
mod psnr;
mod scores;
mod spectrum;
mod ssim;

use crate::data::Images;

pub use distances::{Distances, Population};
pub use forecast::{Errors, Forecast, calibration, crps, energy_score, errors, forecasts};
use patches::{Projections, directions};
pub use psnr::{finite_psnr, psnr, psnr_y};
pub use scores::{Scores, mean_image, score};
pub use spectrum::Spectrum;
pub use ssim::{ssim, ssim_y};

/// Splits the images by even and odd index into two equal halves. If their number is odd, the last one is left out.
fn halves(images: &Images) -> (Images, Images) {
    let half = |parity: usize| {
        let pixels = (0..images.count / 2).flat_map(|i| images.image(2 * i + parity)).copied().collect();
        Images::new(images.count / 2, images.height, images.width, pixels)
    };
    (half(0), half(1))
}

/// Returns the index of the first pixel of each `side`×`side` patch that fits into the image, row by row. Neighbouring
/// patches are `stride` pixels apart.
fn patch_corners(height: usize, width: usize, side: usize, stride: usize) -> impl Iterator<Item = usize> {
    let starts = move |length: usize| (0..(length + 1).saturating_sub(side)).step_by(stride);
    starts(height).flat_map(move |y| starts(width).map(move |x| y * width + x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Samples;

    /// The images and expected values of `tests/fixtures/make_metrics.py`.
    pub struct Evaluation {
        pub hr: Images,
        pub samples: Samples,
        file: Vec<u8>,
    }

    impl Evaluation {
        /// Returns the values of an f64 tensor.
        pub fn numbers(&self, name: &str) -> Vec<f64> {
            let file = safetensors::SafeTensors::deserialize(&self.file).unwrap();
            let tensor = file.tensor(name).unwrap();
            assert_eq!(tensor.dtype(), safetensors::Dtype::F64);
            tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        }
    }

    pub fn evaluation() -> Evaluation {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics.safetensors");
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("reading {path}: {e}"));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (hr, samples) = (file.tensor("hr").unwrap(), file.tensor("samples").unwrap());
        let &[count, height, width, 3] = hr.shape() else { panic!("{:?}", hr.shape()) };
        let hr = Images::new(count, height, width, hr.data().to_vec());
        let samples = Samples::new(count, samples.shape()[1], height, width, samples.data().to_vec());
        Evaluation { hr, samples, file: bytes }
    }

    #[test]
    fn halves_are_even_and_odd() {
        let images = Images::new(5, 1, 1, (0..15).collect());
        let (even, odd) = halves(&images);
        assert_eq!((even.pixels, odd.pixels), (vec![0, 1, 2, 6, 7, 8], vec![3, 4, 5, 9, 10, 11]));
    }

    #[test]
    fn patches_lie_within_the_image() {
        let corners = |height, width, side, stride| patch_corners(height, width, side, stride).collect::<Vec<_>>();
        assert_eq!(corners(5, 6, 3, 2), [0, 2, 12, 14]);
        assert_eq!(corners(8, 8, 8, 8), [0]);
        assert!(corners(7, 8, 8, 8).is_empty());
    }

    /// Two sets of images with their metrics as computed by NumPy and scikit-image.
    pub struct Fixture {
        pub a: Images,
        pub b: Images,
        pub psnr: Vec<f64>,
        pub psnr_y: Vec<f64>,
        pub ssim: Vec<f64>,
    }

    pub fn fixture() -> Fixture {
        let path = std::env::var_os("SRPIPE_FIXTURES")
            .unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fixtures.safetensors").into());
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let images = |name: &str| {
            let tensor = file.tensor(name).unwrap();
            let &[count, height, width, 3] = tensor.shape() else { panic!("{name}: {:?}", tensor.shape()) };
            Images::new(count, height, width, tensor.data().to_vec())
        };
        let numbers = |name: &str| {
            let tensor = file.tensor(name).unwrap();
            assert_eq!(tensor.dtype(), safetensors::Dtype::F64);
            tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        };
        Fixture {
            a: images("metric.a"),
            b: images("metric.b"),
            psnr: numbers("metric.psnr"),
            psnr_y: numbers("metric.psnr_y"),
            ssim: numbers("metric.ssim"),
        }
    }

    #[track_caller]
    pub fn assert_near(value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() <= tolerance, "{value} is not within {tolerance} of {expected}");
    }
}
