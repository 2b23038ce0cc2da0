//! The space in which the diffusion process runs, and the network's input.
//!
//! Images are in [-1, 1]. With target `image`, the clean value is the image itself. With `residual`, it is the
//! difference between the image and the enlarged low-resolution image, scaled to about the range of an image.

use crate::config::{DiffusionParams, Target};

/// The conversion between images and clean values, given the enlarged low-resolution image `up`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetSpace {
    /// Clean value = (image − offset · up) · scale.
    offset: f64,
    scale: f64,
}

impl TargetSpace {
    /// Creates the conversion. Panics if the target is the residual and `params.residual_scale` is missing.
    pub fn new(params: &DiffusionParams) -> Self {
        match params.target {
            Target::Image => Self { offset: 0.0, scale: 1.0 },
            Target::Residual => {
                let scale = params.residual_scale.expect("the residual's scale is measured before training");
                Self { offset: 1.0, scale }
            }
        }
    }

    /// Converts an image value to a clean value.
    pub fn encode(self, image: f64, up: f64) -> f64 {
        (image - self.offset * up) * self.scale
    }

    /// Converts a clean value to an image value.
    pub fn decode(self, clean: f64, up: f64) -> f64 {
        clean / self.scale + self.offset * up
    }

    /// Clamps a clean value to the range that corresponds to images in [-1, 1].
    pub fn clamp(self, clean: f64, up: f64) -> f64 {
        clean.clamp(self.encode(-1.0, up), self.encode(1.0, up))
    }
}

/// Returns the network's input: for each pixel, the channels of the noisy image, then those of the enlarged
/// low-resolution image.
pub fn interleave(noisy: impl Iterator<Item = f32>, up: &[f32]) -> Vec<f32> {
    let mut noisy = noisy;
    let mut input = Vec::with_capacity(2 * up.len());
    for up in up.chunks_exact(3) {
        input.extend(noisy.by_ref().take(3));
        input.extend(up);
    }
    input
}

/// Maps values from [0, 255] to [-1, 1].
pub fn normalize(value: impl Into<f64>) -> f64 {
    value.into() / 127.5 - 1.0
}

/// Maps values from [-1, 1] to [0, 255], without rounding or clamping; the inverse of [`normalize`].
pub fn denormalize(value: f64) -> f64 {
    (value + 1.0) * 127.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_inverts_encoding() {
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
    fn every_byte_survives_normalisation() {
        assert!((0..=255).all(|v| (denormalize(normalize(v)) - v as f64).abs() < 1e-12));
    }

    #[test]
    fn channels_are_interleaved_per_pixel() {
        let up = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
        let input = interleave((0..6).map(|v| v as f32), &up);
        assert_eq!(input, [0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 3.0, 4.0, 5.0, 13.0, 14.0, 15.0]);
    }
}
