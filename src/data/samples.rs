//! Several super-resolved versions of each image, as safetensors: one u8 tensor `samples`, `(count, samples, height,
//! width, 3)`, and strings in the header.

use anyhow::{Context, ensure};

use super::Images;
use super::byte_tensor::{self, Metadata};
use crate::config::DiffusionParams;

/// The name of the tensor.
const TENSOR: &str = "samples";

/// The metadata key for the diffusion parameters of the model that drew the samples, as JSON.
const DIFFUSION: &str = "diffusion";

/// K 8-bit RGB samples of each of N images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// The number of images, N.
    pub count: usize,
    /// The number of samples per image, K.
    pub samples: usize,
    pub height: usize,
    pub width: usize,
    /// The values, `(count, samples, height, width, 3)`.
    pixels: Vec<u8>,
}

impl Samples {
    /// Creates samples. Panics unless `pixels` has `3 · count · samples · height · width` values.
    pub fn new(count: usize, samples: usize, height: usize, width: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), 3 * count * samples * height * width);
        Self { count, samples, height, width, pixels }
    }

    /// Returns the samples of image `i`, `(samples, height, width, 3)`.
    pub fn of_image(&self, i: usize) -> &[u8] {
        let len = 3 * self.samples * self.height * self.width;
        &self.pixels[i * len..][..len]
    }

    /// Returns the first sample of each image in `range`.
    pub fn first(&self, range: std::ops::Range<usize>) -> Images {
        self.each(range, |samples, len| samples[..len].to_vec())
    }

    /// Returns one image per index in `range`, computed by `make` from that image's samples and the length of one
    /// sample.
    pub fn each(&self, range: std::ops::Range<usize>, make: impl Fn(&[u8], usize) -> Vec<u8>) -> Images {
        let len = 3 * self.height * self.width;
        let pixels = range.clone().flat_map(|i| make(self.of_image(i), len)).collect();
        Images::new(range.len(), self.height, self.width, pixels)
    }

    /// Serialises the samples. The bytes depend only on pixels and metadata.
    pub fn to_safetensors(&self, metadata: &Metadata) -> Vec<u8> {
        let tensor = serde_json::json!({
            "dtype": "U8",
            "shape": [self.count, self.samples, self.height, self.width, 3],
            "data_offsets": [0, self.pixels.len()],
        });
        byte_tensor::write(&serde_json::json!({ "__metadata__": metadata, TENSOR: tensor }), &self.pixels)
    }

    /// Reads a file from [`to_safetensors`](Self::to_safetensors) or from any other writer of the format.
    ///
    /// Fails if the bytes are not safetensors, or lack a u8 tensor `samples` of shape `(count, samples, height, width,
    /// 3)` with at least one sample.
    pub fn from_safetensors(bytes: &[u8]) -> anyhow::Result<(Self, Metadata)> {
        const AXES: &str = "(count, samples, height, width, 3)";
        let (shape, pixels, metadata) = byte_tensor::read(bytes, TENSOR, AXES)?;
        let [count, samples, height, width, channels] = shape;
        ensure!(channels == 3, "expected tensor `{TENSOR}` to have shape {AXES}, found {shape:?}");
        ensure!(samples > 0, "tensor `{TENSOR}` contains no samples of its {count} images");
        Ok((Self::new(count, samples, height, width, pixels.to_vec()), metadata))
    }
}

/// Returns the metadata of samples from a model with these diffusion parameters.
pub fn samples_metadata(diffusion: &DiffusionParams) -> Metadata {
    let json = serde_json::to_string(diffusion).expect("the parameters are serialisable as JSON");
    Metadata::from([(DIFFUSION.to_string(), json)])
}

/// Returns the diffusion parameters of the model that drew the samples, from their metadata; None if another program
/// wrote the file without them.
pub fn samples_diffusion(metadata: &Metadata) -> anyhow::Result<Option<DiffusionParams>> {
    let read = |json: &String| serde_json::from_str(json).context("reading `diffusion` in the samples' header");
    metadata.get(DIFFUSION).map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> Samples {
        Samples::new(3, 2, 1, 2, (0..36).collect())
    }

    #[test]
    fn samples_and_metadata_round_trip() {
        let metadata: Metadata = (0..20).map(|i| (format!("key {i}"), format!("\"{i}\" é\n"))).collect();
        let bytes = counting().to_safetensors(&metadata);
        assert_eq!(Samples::from_safetensors(&bytes).unwrap(), (counting(), metadata.clone()));
        assert_eq!(bytes, counting().to_safetensors(&metadata));
        assert_eq!((bytes.len() - 36) % 8, 0);
    }

    #[test]
    fn diffusion_parameters_round_trip() {
        let diffusion = DiffusionParams { residual_scale: Some(1.0 / 3.0), timesteps: 7, ..Default::default() };
        assert_eq!(samples_diffusion(&samples_metadata(&diffusion)).unwrap(), Some(diffusion));
        assert_eq!(samples_diffusion(&Metadata::new()).unwrap(), None);
        let other = Metadata::from([(DIFFUSION.to_string(), "{\"timesteps\": \"many\"}".to_string())]);
        assert!(samples_diffusion(&other).is_err());
    }

    #[test]
    fn samples_are_grouped_by_image() {
        assert_eq!(counting().of_image(1), (12..24).collect::<Vec<u8>>());
        let first = counting().first(1..3);
        assert_eq!(first, Images::new(2, 1, 2, vec![12, 13, 14, 15, 16, 17, 24, 25, 26, 27, 28, 29]));
    }

    #[test]
    fn invalid_files_are_refused() {
        let images = Images::new(1, 1, 1, vec![1, 2, 3]).to_safetensors(&Metadata::new());
        assert!(Samples::from_safetensors(&images).unwrap_err().to_string().contains("it has: images"));
        assert!(Samples::from_safetensors(b"").is_err());
        let none = Samples::new(4, 0, 2, 2, vec![]).to_safetensors(&Metadata::new());
        assert!(Samples::from_safetensors(&none).unwrap_err().to_string().contains("contains no samples"));
    }
}
