//! Where a value lies: the images of one task, at one stride from pixel to pixel.

use super::gemm::{Left, Panels};
use crate::nn::graph::Shape;

/// `images` values of one shape in an arena; the pixels of all of them lie `stride` numbers apart, so a slice of the
/// channels of a wider value is a view as well.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub at: *mut f32,
    pub stride: usize,
    pub images: usize,
    pub shape: Shape,
}

impl View {
    pub fn channels(&self) -> usize {
        self.shape.channels
    }

    /// Pixels of all images.
    pub fn rows(&self) -> usize {
        self.images * self.shape.positions()
    }

    /// The view of one image.
    pub fn image(&self, i: usize) -> View {
        debug_assert!(i < self.images);
        // SAFETY: inside the same view.
        View { at: unsafe { self.at.add(i * self.shape.positions() * self.stride) }, images: 1, ..*self }
    }

    /// `count` pixels from `first`, in a line.
    pub fn pixels(&self, first: usize, count: usize) -> View {
        debug_assert!(first + count <= self.rows());
        let shape = Shape::new(1, count, self.channels());
        // SAFETY: inside the same view.
        View { at: unsafe { self.at.add(first * self.stride) }, images: 1, shape, ..*self }
    }

    /// `count` channels from `first`.
    pub fn slice(&self, first: usize, count: usize) -> View {
        debug_assert!(first + count <= self.channels());
        // SAFETY: inside the same view.
        View { at: unsafe { self.at.add(first) }, shape: Shape { channels: count, ..self.shape }, ..*self }
    }

    /// Its pixels as the rows of a product's first factor.
    pub fn left(&self) -> Left {
        Left::rows(self.at, self.stride)
    }

    /// Its pixels as the rows of a product's second factor or of its result.
    pub fn right(&self) -> Panels {
        Panels::rows(self.at, self.stride)
    }
}
