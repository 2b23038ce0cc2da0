//! What a scene looks like, pixel by pixel.

use super::SIDE;
use super::paint::{Color, Paint};
use super::shape::{Fold, Point, Shape};

/// Layers upon a ground, the last on top. Coordinates are pixels from the image's centre, x to the right, y downwards.
#[derive(Debug, Clone)]
pub struct Scene {
    pub ground: Paint,
    pub layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
pub struct Layer {
    pub shape: Shape,
    pub fold: Fold,
    pub paint: Paint,
}

/// Samples a pixel along each axis.
const SAMPLES: usize = 2;
/// Over how many pixels a border fades: the width of a sample, so that borders are smooth but no wider than a pixel.
const FADE: f64 = 1.0 / SAMPLES as f64;

impl Scene {
    fn color(&self, p: Point) -> Color {
        let mut color = self.ground.at(p);
        for layer in &self.layers {
            let (distance, seen) = layer.fold.nearest(&layer.shape, p);
            let cover = (0.5 - distance / FADE).clamp(0.0, 1.0);
            if cover > 0.0 {
                let paint = layer.paint.at(seen);
                for c in 0..3 {
                    color[c] += cover * (paint[c] - color[c]);
                }
            }
        }
        color.map(|v| v.clamp(0.0, 255.0))
    }

    /// Fills `image`, `(SIDE, SIDE, 3)`.
    pub fn render(&self, image: &mut [u8]) {
        let at =
            |pixel: usize, sample: usize| pixel as f64 + (sample as f64 + 0.5) / SAMPLES as f64 - SIDE as f64 / 2.0;
        for (i, pixel) in image.chunks_exact_mut(3).enumerate() {
            let (y, x) = (i / SIDE, i % SIDE);
            let mut sum = [0.0; 3];
            for sample in 0..SAMPLES * SAMPLES {
                let color = self.color([at(x, sample % SAMPLES), at(y, sample / SAMPLES)]);
                sum.iter_mut().zip(color).for_each(|(sum, v)| *sum += v);
            }
            pixel.iter_mut().zip(sum).for_each(|(out, v)| *out = (v / (SAMPLES * SAMPLES) as f64).round() as u8);
        }
    }
}
