//! Images in memory and as safetensors: one u8 tensor `images`, `(count, height, width, 3)`, with strings in the
//! header.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::byte_tensor::{self, Metadata};

use crate::config::{Degradation, DegradeMethod};

/// 8-bit RGB images of one size, channels-last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    pub count: usize,
    pub height: usize,
    pub width: usize,
    /// The values, `(count, height, width, 3)`.
    pub pixels: Vec<u8>,
}

/// Rounds a value to 8 bits: half to even, as in NumPy and PyTorch, and clamped to 0..=255. Used for all conversions to
/// 8 bits: of generated, shrunk, enlarged and sampled images, and of means of samples.
///
/// `value` must not be NaN, which the cast would turn into 0. `Denoiser::pixels` checks a network's output before
/// calling this.
pub fn to_u8(value: f64) -> u8 {
    debug_assert!(!value.is_nan(), "a pixel is NaN");
    value.round_ties_even().clamp(0.0, 255.0) as u8
}

/// The name of the tensor.
const TENSOR: &str = "images";

/// The metadata keys of low-resolution images.
const SCALE: &str = "scale";
const METHOD: &str = "method";
const SIGMA: &str = "sigma";

impl Images {
    /// Creates images. Panics unless `pixels` has `3 · count · height · width` values.
    pub fn new(count: usize, height: usize, width: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), 3 * count * height * width);
        Self { count, height, width, pixels }
    }

    /// Returns the number of bytes per image.
    pub fn image_len(&self) -> usize {
        3 * self.height * self.width
    }

    /// Returns the pixels of image `i`, `(height, width, 3)`.
    pub fn image(&self, i: usize) -> &[u8] {
        let len = self.image_len();
        &self.pixels[i * len..][..len]
    }

    /// Returns a copy of the images in `range`. Panics if the range is out of bounds.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let len = self.image_len();
        let pixels = self.pixels[range.start * len..range.end * len].to_vec();
        Self::new(range.len(), self.height, self.width, pixels)
    }

    /// Serialises the images. The bytes depend only on pixels and metadata.
    pub fn to_safetensors(&self, metadata: &Metadata) -> Vec<u8> {
        #[derive(Serialize)]
        struct Header<'a> {
            #[serde(rename = "__metadata__", skip_serializing_if = "BTreeMap::is_empty")]
            metadata: &'a Metadata,
            images: Tensor,
        }
        #[derive(Serialize)]
        struct Tensor {
            dtype: &'static str,
            shape: [usize; 4],
            data_offsets: [usize; 2],
        }
        let images = Tensor {
            dtype: "U8",
            shape: [self.count, self.height, self.width, 3],
            data_offsets: [0, self.pixels.len()],
        };
        byte_tensor::write(&Header { metadata, images }, &self.pixels)
    }

    /// Reads a file from [`to_safetensors`](Self::to_safetensors) or from any other writer of the format.
    ///
    /// Fails if the bytes are not safetensors, or lack a u8 tensor `images` of shape `(count, height, width, 3)`.
    pub fn from_safetensors(bytes: &[u8]) -> anyhow::Result<(Self, Metadata)> {
        const AXES: &str = "(count, height, width, 3)";
        let (shape, pixels, metadata) = byte_tensor::read(bytes, TENSOR, AXES)?;
        let [count, height, width, channels] = shape;
        ensure!(channels == 3, "expected tensor `{TENSOR}` to have shape {AXES}, found {shape:?}");
        ensure!(height > 0 && width > 0, "tensor `{TENSOR}` has shape {shape:?}, but images must not be empty");
        Ok((Self::new(count, height, width, pixels.to_vec()), metadata))
    }
}

/// Returns the metadata of images that were downscaled by `scale`.
pub fn lr_metadata(scale: usize, degradation: impl Into<Degradation>) -> Metadata {
    let Degradation { method, sigma } = degradation.into();
    let name = serde_json::to_value(method).expect("a unit variant is a string");
    let name = name.as_str().unwrap_or_default().to_string();
    let mut metadata = BTreeMap::from([(SCALE.to_string(), scale.to_string()), (METHOD.to_string(), name)]);
    if method == DegradeMethod::Blur {
        metadata.insert(SIGMA.to_string(), sigma.to_string());
    }
    metadata
}

/// Returns the scale of low-resolution images from their metadata.
pub fn lr_scale(metadata: &Metadata) -> anyhow::Result<usize> {
    let scale =
        metadata.get(SCALE).context("the images' header has no `scale`; is this the output of a degrade stage?")?;
    match scale.parse() {
        Ok(scale) if scale > 0 => Ok(scale),
        _ => bail!("expected `scale` in the images' header to be a positive integer, found `{scale}`"),
    }
}

/// Returns the degradation of low-resolution images from their metadata.
pub fn lr_degradation(metadata: &Metadata) -> anyhow::Result<Degradation> {
    let method =
        metadata.get(METHOD).context("the images' header has no `method`; is this the output of a degrade stage?")?;
    let sigma = metadata.get(SIGMA).map(|sigma| sigma.parse()).transpose();
    Ok(Degradation {
        method: serde_json::from_value(serde_json::Value::String(method.clone()))
            .with_context(|| format!("unknown `method` in the images' header: `{method}`"))?,
        sigma: sigma.context("`sigma` in the images' header is not a number")?.unwrap_or(Degradation::DEFAULT_SIGMA),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(count: usize) -> Images {
        Images::new(count, 2, 3, (0..count * 18).map(|i| i as u8).collect())
    }

    #[test]
    fn images_and_metadata_round_trip() {
        let metadata: Metadata = (0..20).map(|i| (format!("key {i}"), format!("\"{i}\" é\n"))).collect();
        for images in [counting(4), counting(0)] {
            let bytes = images.to_safetensors(&metadata);
            assert_eq!(Images::from_safetensors(&bytes).unwrap(), (images, metadata.clone()));
        }
    }

    #[test]
    fn values_are_rounded_half_to_even_and_clamped() {
        let given = [-300.0, -0.6, 0.5, 1.5, 2.5, 254.5, 255.5, 300.0, f64::INFINITY];
        assert_eq!(given.map(to_u8), [0, 0, 0, 2, 2, 254, 255, 255, 255]);
    }

    /// The layout in the format's specification, written out.
    #[test]
    fn bytes_are_pinned() {
        let images = Images::new(1, 1, 1, vec![7, 8, 9]);
        let metadata = lr_metadata(4, DegradeMethod::Area);
        let header = br#"{"__metadata__":{"method":"area","scale":"4"},"images":{"dtype":"U8","shape":[1,1,1,3],"data_offsets":[0,3]}}"#;
        let mut expected = 112u64.to_le_bytes().to_vec();
        expected.extend(header);
        expected.resize(8 + 112, b' ');
        expected.extend([7, 8, 9]);
        let text = String::from_utf8_lossy(&images.to_safetensors(&metadata)).into_owned();
        assert_eq!(text, String::from_utf8_lossy(&expected));
    }

    #[test]
    fn scale_and_method_round_trip() {
        for method in [DegradeMethod::Area, DegradeMethod::Bicubic, DegradeMethod::Bilinear, DegradeMethod::Blur] {
            let metadata = lr_metadata(8, method);
            assert_eq!(lr_scale(&metadata).unwrap(), 8);
            assert_eq!(lr_degradation(&metadata).unwrap(), method.into());
        }
        assert!(lr_scale(&Metadata::new()).is_err());
        assert!(lr_scale(&Metadata::from([("scale".into(), "0".into())])).is_err());
    }

    #[test]
    fn invalid_files_are_refused() {
        let good = counting(2).to_safetensors(&Metadata::new());
        assert!(Images::from_safetensors(&good[..good.len() - 1]).is_err());
        assert!(Images::from_safetensors(b"").is_err());
        assert!(Images::from_safetensors(&[0xff; 64]).is_err());
        let error = |from: &str, to: &str| {
            let text = |t: &str| t.as_bytes().to_vec();
            let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            let mut bytes = good.clone();
            bytes.splice(at..at + from.len(), text(to));
            Images::from_safetensors(&bytes).unwrap_err().to_string()
        };
        assert!(error("\"images\"", "\"imagen\"").contains("it has: imagen"));
        assert!(error("[2,2,3,3]", "[2,2,9,1]").contains("(count, height, width, 3)"));
        assert!(error("\"U8\"", "\"I8\"").contains("`images` to be U8"));
    }
}
