//! Renders scenes.

use super::SIDE;
use super::paint::{Color, Paint};
use super::shape::{Fold, Point, Shape};
use crate::data::images::to_u8;

/// Layers on a background, the last on top. Coordinates are in pixels from the image's centre, x to the right, y
/// downwards.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) ground: Paint,
    pub(super) layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) shape: Shape,
    pub(super) fold: Fold,
    pub(super) paint: Paint,
}

/// The number of samples per pixel along each axis.
const SAMPLES: usize = 2;
/// The width over which an edge fades, in pixels: that of a sample, so that edges are smooth but no wider than a pixel.
const FADE: f64 = 1.0 / SAMPLES as f64;

impl Scene {
    /// Returns the mean of the samples in the pixel around `p`.
    fn color(&self, p: Point) -> Color {
        let mut samples = [self.ground.at(p); SAMPLES * SAMPLES];
        for layer in &self.layers {
            let (distance, local) = layer.fold.nearest(&layer.shape, p);
            // Every sample is within 1 of `p`, and a signed distance changes at most as fast as the position.
            if distance > 1.0 {
                continue;
            }
            // Textures are coarse, so one value per pixel is enough; edges need every sample.
            let paint = layer.paint.at(local);
            for (i, sample) in samples.iter_mut().enumerate() {
                let at = |i: usize| (i as f64 + 0.5) / SAMPLES as f64 - 0.5;
                let point = [p[0] + at(i % SAMPLES), p[1] + at(i / SAMPLES)];
                let distance = if distance < -1.0 { distance } else { layer.fold.nearest(&layer.shape, point).0 };
                let cover = (0.5 - distance / FADE).clamp(0.0, 1.0);
                sample.iter_mut().zip(paint).for_each(|(below, above)| *below += cover * (above - *below));
            }
        }
        let mean = |c: usize| samples.iter().map(|s| s[c].clamp(0.0, 255.0)).sum::<f64>() / samples.len() as f64;
        [mean(0), mean(1), mean(2)]
    }

    /// Renders the scene to `image`, `(SIDE, SIDE, 3)`.
    pub(super) fn render(&self, image: &mut [u8]) {
        let at = |pixel: usize| pixel as f64 + 0.5 - SIDE as f64 / 2.0;
        for (i, pixel) in image.chunks_exact_mut(3).enumerate() {
            let color = self.color([at(i % SIDE), at(i / SIDE)]);
            pixel.iter_mut().zip(color).for_each(|(out, v)| *out = to_u8(v));
        }
    }
}
