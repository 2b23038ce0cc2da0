//! Several super-resolved versions of each image: safetensors with one u8 tensor `samples`, `(count, samples, height,
//! width, 3)`, and strings in the header.

use anyhow::{Context, ensure};

use super::Images;
use super::byte_tensor::{self, Metadata};
use crate::config::DiffusionParams;

/// Name of the tensor.
const TENSOR: &str = "samples";

/// What the metadata says: how the model that drew them learned, as JSON.
const DIFFUSION: &str = "diffusion";

/// K 8-bit RGB samples of each of N images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// Images N.
    pub count: usize,
    /// Samples K an image.
    pub samples: usize,
    pub height: usize,
    pub width: usize,
    /// `(count, samples, height, width, 3)`
    pub pixels: Vec<u8>,
}

impl Samples {
    /// Panics unless `pixels` are `3 · count · samples · height · width`.
    pub fn new(count: usize, samples: usize, height: usize, width: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), 3 * count * samples * height * width);
        Self { count, samples, height, width, pixels }
    }

    /// The samples of image `i`, `(samples, height, width, 3)`.
    pub fn of_image(&self, i: usize) -> &[u8] {
        let len = 3 * self.samples * self.height * self.width;
        &self.pixels[i * len..][..len]
    }

    /// The first sample of images `range`.
    pub fn first(&self, range: std::ops::Range<usize>) -> Images {
        self.each(range, |samples, len| samples[..len].to_vec())
    }

    /// One image made of the samples of each in `range`; `make` gets them with the length of one.
    pub fn each(&self, range: std::ops::Range<usize>, make: impl Fn(&[u8], usize) -> Vec<u8>) -> Images {
        let len = 3 * self.height * self.width;
        let pixels = range.clone().flat_map(|i| make(self.of_image(i), len)).collect();
        Images::new(range.len(), self.height, self.width, pixels)
    }

    /// The file's bytes, a function of pixels and metadata alone.
    pub fn to_safetensors(&self, metadata: &Metadata) -> Vec<u8> {
        let tensor = serde_json::json!({
            "dtype": "U8",
            "shape": [self.count, self.samples, self.height, self.width, 3],
            "data_offsets": [0, self.pixels.len()],
        });
        byte_tensor::write(&serde_json::json!({ "__metadata__": metadata, TENSOR: tensor }), &self.pixels)
    }

    /// Reads what [`to_safetensors`](Self::to_safetensors) or any other writer of the format wrote.
    ///
    /// Fails where the bytes are not safetensors, or lack a u8 tensor `samples` of shape `(count, samples, height,
    /// width, 3)` with at least one sample.
    pub fn from_safetensors(bytes: &[u8]) -> anyhow::Result<(Self, Metadata)> {
        const AXES: &str = "(count, samples, height, width, 3)";
        let (shape, pixels, metadata) = byte_tensor::read(bytes, TENSOR, AXES)?;
        let [count, samples, height, width, channels] = shape;
        ensure!(channels == 3, "tensor `{TENSOR}` has shape {shape:?}; samples are {AXES}");
        ensure!(samples > 0, "tensor `{TENSOR}` holds no sample of its {count} images");
        Ok((Self::new(count, samples, height, width, pixels.to_vec()), metadata))
    }
}

/// The metadata of samples of a model that learned as `diffusion` says.
pub fn samples_metadata(diffusion: &DiffusionParams) -> Metadata {
    let json = serde_json::to_string(diffusion).expect("parameters have names for keys");
    Metadata::from([(DIFFUSION.to_string(), json)])
}

/// How the model learned that drew the samples, from their metadata; none where another program made them and does not
/// say.
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
    fn samples_and_metadata_come_back() {
        let metadata: Metadata = (0..20).map(|i| (format!("key {i}"), format!("\"{i}\" é\n"))).collect();
        let bytes = counting().to_safetensors(&metadata);
        assert_eq!(Samples::from_safetensors(&bytes).unwrap(), (counting(), metadata.clone()));
        assert_eq!(bytes, counting().to_safetensors(&metadata));
        assert_eq!((bytes.len() - 36) % 8, 0);
    }

    #[test]
    fn how_the_model_learned_is_read_back() {
        let diffusion = DiffusionParams { residual_scale: Some(1.0 / 3.0), timesteps: 7, ..Default::default() };
        assert_eq!(samples_diffusion(&samples_metadata(&diffusion)).unwrap(), Some(diffusion));
        assert_eq!(samples_diffusion(&Metadata::new()).unwrap(), None);
        let other = Metadata::from([(DIFFUSION.to_string(), "{\"timesteps\": \"many\"}".to_string())]);
        assert!(samples_diffusion(&other).is_err());
    }

    #[test]
    fn samples_are_within_their_image() {
        assert_eq!(counting().of_image(1), (12..24).collect::<Vec<u8>>());
        let first = counting().first(1..3);
        assert_eq!(first, Images::new(2, 1, 2, vec![12, 13, 14, 15, 16, 17, 24, 25, 26, 27, 28, 29]));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let images = Images::new(1, 1, 1, vec![1, 2, 3]).to_safetensors(&Metadata::new());
        assert!(Samples::from_safetensors(&images).unwrap_err().to_string().contains("it has: images"));
        assert!(Samples::from_safetensors(b"").is_err());
        let none = Samples::new(4, 0, 2, 2, vec![]).to_safetensors(&Metadata::new());
        assert!(Samples::from_safetensors(&none).unwrap_err().to_string().contains("no sample"));
    }
}
