//! Generates 32×32 images that are natural enough to learn super-resolution from: shapes with sharp edges, textures,
//! and long-range structure (wallpapers, mirror symmetry, an object repeated in distant corners).
//!
//! Every image is a function of (seed, split, index). The code uses only IEEE operations that round exactly, and no
//! sines or exponentials, so the bytes are identical on every machine.
//!
//! - `shape`: signed distances, and folds of the plane that repeat them;
//! - `paint`: colours and textures;
//! - `compose`: the shapes of a random scene;
//! - `scene`: rendering.

mod compose;
mod paint;
mod scene;
mod shape;

use std::ops::Range;

use rayon::prelude::*;

use super::{Images, Split};
use crate::random::{Purpose, stream};

/// The height and width of every image.
pub const SIDE: usize = 32;

/// Generates the first `count` images of a split.
pub fn generate(seed: u64, split: Split, count: usize) -> Images {
    generate_range(seed, split, 0..count)
}

/// Generates the images of a split whose indices are in `range`.
pub fn generate_range(seed: u64, split: Split, range: Range<usize>) -> Images {
    let mut pixels = vec![0; range.len() * SIDE * SIDE * 3];
    pixels.par_chunks_exact_mut(SIDE * SIDE * 3).zip(range.clone()).for_each(|(image, index)| {
        let mut rng = stream(seed, Purpose::Synthetic, split as u64, index as u64);
        compose::scene(&mut rng).render(image);
    });
    Images::new(range.len(), SIDE, SIDE, pixels)
}

#[cfg(test)]
mod tests;
