//! Strided views of the values of one task's images.

use super::gemm::{Left, Panels};
use crate::nn::graph::Shape;

/// The values of `images` images in an arena. Pixels are `stride` numbers apart, so a range of a value's channels is a
/// view as well.
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

    /// Returns the number of pixels of all images.
    pub fn rows(&self) -> usize {
        self.images * self.shape.positions()
    }

    /// Returns the view of one image.
    pub fn image(&self, i: usize) -> View {
        debug_assert!(i < self.images);
        // SAFETY: inside the same view.
        View { at: unsafe { self.at.add(i * self.shape.positions() * self.stride) }, images: 1, ..*self }
    }

    /// Returns `count` pixels from `first` on, as an image of height 1.
    pub fn pixels(&self, first: usize, count: usize) -> View {
        debug_assert!(first + count <= self.rows());
        let shape = Shape::new(1, count, self.channels());
        // SAFETY: inside the same view.
        View { at: unsafe { self.at.add(first * self.stride) }, images: 1, shape, ..*self }
    }

    /// Returns `count` channels from `first` on.
    pub fn slice(&self, first: usize, count: usize) -> View {
        debug_assert!(first + count <= self.channels());
        // SAFETY: inside the same view.
        View { at: unsafe { self.at.add(first) }, shape: Shape { channels: count, ..self.shape }, ..*self }
    }

    /// Returns the pixels as the rows of the left factor of a matrix product.
    pub fn left(&self) -> Left {
        Left::rows(self.at, self.stride)
    }

    /// Returns the pixels as the rows of the right factor, or of the result, of a matrix product.
    pub fn right(&self) -> Panels {
        Panels::rows(self.at, self.stride)
    }

    /// Returns the four pixels of the 2×2 window that corresponds to pixel `row` (counted over all images) of images of
    /// shape `small`, which are half as high and half as wide.
    ///
    /// # Safety
    ///
    /// The window is within the view.
    #[inline(always)]
    pub unsafe fn window(&self, small: Shape, row: usize) -> [*mut f32; 4] {
        let (image, rest) = (row / small.positions(), row % small.positions());
        let (r, c) = (2 * (rest / small.width), 2 * (rest % small.width));
        let first = (image * self.shape.height + r) * self.shape.width + c;
        // SAFETY: the window is within the view.
        unsafe {
            let at = self.at.add(first * self.stride);
            let below = at.add(self.shape.width * self.stride);
            [at, at.add(self.stride), below, below.add(self.stride)]
        }
    }
}
