//! How good a super-resolved image is: numbers in f64 from 8-bit pixels, each a pure function of its images.
//!
//! Images are `(height, width, 3)` slices of u8, as [`Images::image`](crate::data::Images::image) gives them. What is
//! averaged, drawn or written down is decided above, in `report` and in the `compare` stage.

mod psnr;
mod scores;
mod ssim;

pub use psnr::{finite_psnr, psnr, psnr_y};
pub use scores::{Scores, mean_image, score};
pub use ssim::{SSIM_WINDOW, ssim};

#[cfg(test)]
mod tests {
    use crate::data::Images;

    /// Two sets of images, and their metrics as NumPy and scikit-image compute them.
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
