//! Interactive attention maps: the weights for a query position that the reader selects.

use anyhow::Result;
use serde::Serialize;

use super::pictures::{map, rgb, uri};
use crate::data::Images;

/// The attention weights of one layer of an arm on some test images.
#[derive(Debug)]
pub struct Attention {
    pub arm: String,
    pub layer: String,
    /// The test images.
    pub hr: Images,
    /// Per image, `(queries, keys)`; both are square maps.
    pub weights: Vec<Vec<f64>>,
    pub queries: usize,
    pub keys: usize,
    /// The width of the layer's own query map; larger than that of `maps` if weights were averaged over blocks.
    pub side: usize,
}

/// The data of the template.
#[derive(Debug, Serialize)]
pub(super) struct AttentionMaps {
    arm: String,
    layer: String,
    /// The widths of the query map and of the key map.
    queries: usize,
    keys: usize,
    /// The width of the layer's own query map.
    side: usize,
    /// The side of the images in pixels.
    size: usize,
    images: Vec<ImageMaps>,
}

#[derive(Debug, Serialize)]
struct ImageMaps {
    image: String,
    /// The attention maps of all queries, tiled in the layout of the queries.
    maps: String,
}

impl AttentionMaps {
    /// The number of selectable positions per row.
    pub(super) fn positions(&self) -> usize {
        self.queries
    }
}

impl Attention {
    /// Returns `None` if the maps are not square.
    pub(super) fn maps(&self) -> Result<Option<AttentionMaps>> {
        let [queries, keys] = [self.queries, self.keys].map(usize::isqrt);
        if queries * queries != self.queries || keys * keys != self.keys || self.hr.height != self.hr.width {
            return Ok(None);
        }
        let image_maps = |(i, weights): (usize, &Vec<f64>)| -> Result<ImageMaps> {
            Ok(ImageMaps {
                image: uri(&rgb(self.hr.image(i), self.hr.width)?),
                maps: uri(&map(&side_by_side(weights, queries, keys), queries * keys, 1.0)?),
            })
        };
        Ok(Some(AttentionMaps {
            arm: self.arm.clone(),
            layer: self.layer.clone(),
            queries,
            keys,
            side: self.side,
            size: self.hr.width,
            images: self.weights.iter().enumerate().map(image_maps).collect::<Result<_>>()?,
        }))
    }
}

/// Tiles the `keys`×`keys` maps of `queries`×`queries` positions; each is scaled to a maximum of one.
fn side_by_side(weights: &[f64], queries: usize, keys: usize) -> Vec<f64> {
    let side = queries * keys;
    let mut all = vec![0.0; side * side];
    for (query, row) in weights.chunks_exact(keys * keys).enumerate() {
        let most = row.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let corner = query / queries * keys * side + query % queries * keys;
        for (key, weight) in row.iter().enumerate() {
            all[corner + key / keys * side + key % keys] = weight / most;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

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
            side: queries.isqrt(),
        }
    }

    #[test]
    fn the_map_of_each_position_is_at_that_position() {
        let maps = attention(16, 16).maps().unwrap().unwrap();
        let png = STANDARD.decode(maps.images[0].maps.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let png = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(png.dimensions(), (16, 16));
        let light = |x: u32, y: u32| png.get_pixel(x, y).0.iter().map(|&v| u32::from(v)).sum::<u32>();
        for (x, y) in (0..4).flat_map(|y| (0..4).map(move |x| (x, y))) {
            // A position attends mostly to itself.
            let brightest = (0..16).max_by_key(|key| light(4 * x + key % 4, 4 * y + key / 4)).unwrap();
            assert_eq!(brightest, 4 * y + x);
        }
    }

    #[test]
    fn maps_that_are_not_square_are_not_shown() {
        assert!(attention(12, 16).maps().unwrap().is_none());
    }
}
