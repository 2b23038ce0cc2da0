//! Images: CIFAR-10, generated ones, resampling. Knows files and pixels, not stages.

/// 8-bit RGB images of one size, channels-last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    pub count: usize,
    pub height: usize,
    pub width: usize,
    /// `(count, height, width, 3)`
    pub pixels: Vec<u8>,
}

impl Images {
    /// Panics unless there are `3 · count · height · width` pixels values.
    pub fn new(count: usize, height: usize, width: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), 3 * count * height * width);
        Self { count, height, width, pixels }
    }

    /// The pixels of image `i`, `(height, width, 3)`.
    pub fn image(&self, i: usize) -> &[u8] {
        let len = 3 * self.height * self.width;
        &self.pixels[i * len..][..len]
    }
}
