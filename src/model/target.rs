//! What stands for an image in the noise process, and what the network is shown beside it.
//!
//! Images are in [-1, 1]. With target `image` the clean value is the image's; with `residual` it is what the enlarged
//! low-resolution image lacks, times a scale that makes it about as large as an image.

use crate::config::{DiffusionParams, Target};

/// The translation between images and clean values, given the enlarged low-resolution image `up`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetSpace {
    /// Clean value = (image − offset · up) · scale.
    offset: f64,
    scale: f64,
}

impl TargetSpace {
    /// `params.residual_scale` must be there where the target is the residual.
    pub fn new(params: &DiffusionParams) -> Self {
        match params.target {
            Target::Image => Self { offset: 0.0, scale: 1.0 },
            Target::Residual => {
                let scale = params.residual_scale.expect("the residual's scale was measured before training");
                Self { offset: 1.0, scale }
            }
        }
    }

    /// The clean value of an image's.
    pub fn encode(self, image: f64, up: f64) -> f64 {
        (image - self.offset * up) * self.scale
    }

    /// The image's value of a clean one.
    pub fn decode(self, clean: f64, up: f64) -> f64 {
        clean / self.scale + self.offset * up
    }

    /// The clean value nearest to `clean` that stands for an image within [-1, 1].
    pub fn clamp(self, clean: f64, up: f64) -> f64 {
        clean.clamp(self.encode(-1.0, up), self.encode(1.0, up))
    }
}

/// Pixel by pixel, the noisy image's channels and then those of the enlarged low-resolution image.
pub fn interleave(noisy: impl Iterator<Item = f32>, up: &[f32]) -> Vec<f32> {
    let mut noisy = noisy;
    let mut input = Vec::with_capacity(2 * up.len());
    for up in up.chunks_exact(3) {
        input.extend(noisy.by_ref().take(3));
        input.extend(up);
    }
    input
}

/// An 8-bit value in [-1, 1].
pub fn normalize(value: impl Into<f64>) -> f64 {
    value.into() / 127.5 - 1.0
}

/// The grey level of a value in [-1, 1], 0 to 255; nothing is rounded or clamped.
pub fn denormalize(value: f64) -> f64 {
    (value + 1.0) * 127.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let residual = DiffusionParams { residual_scale: Some(4.0), ..Default::default() };
        let image = DiffusionParams { target: Target::Image, ..Default::default() };
        for (params, clean) in [(residual, 4.0 * (0.3 - 0.1)), (image, 0.3)] {
            let space = TargetSpace::new(&params);
            assert!((space.encode(0.3, 0.1) - clean).abs() < 1e-12);
            assert!((space.decode(clean, 0.1) - 0.3).abs() < 1e-12);
            assert!((space.decode(space.clamp(100.0, 0.1), 0.1) - 1.0).abs() < 1e-12);
            assert!((space.decode(space.clamp(-100.0, 0.1), 0.1) + 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn every_byte_survives_the_way_to_the_network_and_back() {
        assert!((0..=255).all(|v| (denormalize(normalize(v)) - v as f64).abs() < 1e-12));
    }

    #[test]
    fn channels_interleave_by_pixel() {
        let up = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
        let input = interleave((0..6).map(|v| v as f32), &up);
        assert_eq!(input, [0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 3.0, 4.0, 5.0, 13.0, 14.0, 15.0]);
    }
}
