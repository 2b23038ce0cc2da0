//! Colours of plots.

/// An RGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Color(pub(super) [u8; 3]);

impl Color {
    /// Mixes the colour with white: 1 keeps the colour, 0 gives white. The result is opaque, so that crossing lines do
    /// not darken.
    pub(super) fn tint(self, strength: f64) -> Self {
        Self(self.0.map(|v| (255.0 - strength * (255.0 - f64::from(v))).round() as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tint_of_strength_0_is_white() {
        assert_eq!(Color([0, 100, 255]).tint(1.0), Color([0, 100, 255]));
        assert_eq!(Color([0, 100, 255]).tint(0.0), Color([255; 3]));
    }
}
