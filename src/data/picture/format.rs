//! The file formats of pictures.

/// A file format for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Png,
    /// Does not support transparency.
    Jpeg,
    /// Always written losslessly.
    WebP,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
        }
    }

    /// Returns the maximum width and height in pixels.
    pub fn max_side(self) -> usize {
        match self {
            Self::Png => i32::MAX as usize,
            Self::Jpeg => 65_535,
            Self::WebP => 16_383,
        }
    }

    /// Whether the format can store greyscale pixels.
    pub(super) fn has_grey(self) -> bool {
        self != Self::WebP
    }

    /// Returns the format for a file name extension.
    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_derived_from_the_extension() {
        assert_eq!(["png", "JPG", "jpeg", "webp"].map(|e| Format::from_extension(e).is_some()), [true; 4]);
        assert_eq!(Format::from_extension("tiff"), None);
    }
}
