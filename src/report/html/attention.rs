//! What layers of attention look at, for a pixel that the reader chooses.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::pictures::{map, rgb, uri};
use crate::data::Images;

/// Of one arm: a layer's weights on some test images.
#[derive(Debug)]
pub struct Attention {
    pub arm: String,
    pub layer: String,
    /// The test images.
    pub hr: Images,
    /// By image, `(queries, keys)`; both are square maps of the image.
    pub weights: Vec<Vec<f64>>,
    pub queries: usize,
    pub keys: usize,
}

/// As the page shows it.
#[derive(Debug, Serialize)]
pub struct Looks {
    arm: String,
    layer: String,
    /// Positions in a row of the map that asks, and of the one that is looked at.
    queries: usize,
    keys: usize,
    /// Side of the images, in pixels.
    size: usize,
    images: Vec<Look>,
}

#[derive(Debug, Serialize)]
struct Look {
    image: String,
    /// A byte a weight, the largest of each query 255; base64.
    weights: String,
    /// What the position in the middle looks at, for a page without scripts.
    middle: String,
}

impl Attention {
    /// None where the maps are no squares.
    pub fn shown(&self) -> Result<Option<Looks>> {
        let [queries, keys] = [self.queries, self.keys].map(usize::isqrt);
        if queries * queries != self.queries || keys * keys != self.keys || self.hr.height != self.hr.width {
            return Ok(None);
        }
        let look = |(i, weights): (usize, &Vec<f64>)| -> Result<Look> {
            let levels = levels(weights, self.keys);
            let middle = (queries / 2 * queries + queries / 2) * self.keys;
            let middle: Vec<f64> = levels[middle..][..self.keys].iter().map(|&v| f64::from(v)).collect();
            Ok(Look {
                image: uri(&rgb(self.hr.image(i), self.hr.width)?),
                weights: STANDARD.encode(&levels),
                middle: uri(&map(&middle, keys, 255.0)?),
            })
        };
        Ok(Some(Looks {
            arm: self.arm.clone(),
            layer: self.layer.clone(),
            queries,
            keys,
            size: self.hr.width,
            images: self.weights.iter().enumerate().map(look).collect::<Result<_>>()?,
        }))
    }
}

fn levels(weights: &[f64], keys: usize) -> Vec<u8> {
    let of_row = |row: &[f64]| {
        let most = row.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        row.iter().map(move |w| (255.0 * w / most).round() as u8).collect::<Vec<u8>>()
    };
    weights.chunks_exact(keys).flat_map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention(queries: usize, keys: usize) -> Attention {
        let weights = (0..queries * keys).map(|i| if i % keys == i / keys { 0.5 } else { 0.5 / (keys - 1) as f64 });
        Attention {
            arm: "attention".into(),
            layer: "attention".into(),
            hr: Images::new(1, 8, 8, vec![7; 192]),
            weights: vec![weights.collect()],
            queries,
            keys,
        }
    }

    #[test]
    fn every_query_has_its_weights_and_the_middle_one_a_picture() {
        let looks = attention(16, 16).shown().unwrap().unwrap();
        let bytes = STANDARD.decode(&looks.images[0].weights).unwrap();
        assert_eq!((bytes.len(), bytes[17], bytes[16]), (256, 255, 17));
        let png = STANDARD.decode(looks.images[0].middle.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let png = image::load_from_memory(&png).unwrap().to_rgb8();
        // Third column of the third row: it looks at itself.
        let brightest = png.enumerate_pixels().max_by_key(|(.., p)| p.0.iter().map(|&v| u32::from(v)).sum::<u32>());
        assert_eq!((png.width(), brightest.map(|(x, y, _)| (x, y))), (4, Some((2, 2))));
    }

    #[test]
    fn maps_that_are_no_squares_are_not_shown() {
        assert!(attention(12, 16).shown().unwrap().is_none());
    }
}
