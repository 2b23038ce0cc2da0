//! Colours and textures.

use super::shape::{Point, direction, rotate};
use crate::random::Stream;

/// Red, green and blue, from 0 to 255.
pub(super) type Color = [f64; 3];

/// Typical colours of skies, plants, earth, skin, metals and paints.
const PALETTE: [Color; 24] = [
    [134.0, 168.0, 205.0],
    [176.0, 200.0, 220.0],
    [92.0, 120.0, 158.0],
    [60.0, 84.0, 112.0],
    [86.0, 108.0, 58.0],
    [122.0, 140.0, 84.0],
    [52.0, 68.0, 40.0],
    [160.0, 164.0, 110.0],
    [146.0, 112.0, 78.0],
    [104.0, 76.0, 52.0],
    [188.0, 158.0, 120.0],
    [214.0, 190.0, 156.0],
    [70.0, 54.0, 44.0],
    [222.0, 178.0, 150.0],
    [236.0, 232.0, 224.0],
    [196.0, 194.0, 190.0],
    [140.0, 138.0, 136.0],
    [88.0, 88.0, 90.0],
    [38.0, 38.0, 42.0],
    [168.0, 52.0, 44.0],
    [204.0, 128.0, 48.0],
    [214.0, 184.0, 82.0],
    [58.0, 72.0, 140.0],
    [112.0, 74.0, 104.0],
];

/// Returns a random colour of the palette with random brightness.
pub(super) fn color(rng: &mut Stream) -> Color {
    let base = PALETTE[rng.below(PALETTE.len())];
    let light = rng.between(0.8, 1.15);
    base.map(|v| (v * light + rng.between(-12.0, 12.0)).clamp(8.0, 248.0))
}

/// Returns a random colour that contrasts with `other`.
pub(super) fn contrasting(other: Color, rng: &mut Stream) -> Color {
    let is_far = |c: &Color| c.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<f64>() > 150.0;
    let mut candidate = color(rng);
    for _ in 0..8 {
        if is_far(&candidate) {
            break;
        }
        candidate = color(rng);
    }
    candidate
}

/// The colour of a surface.
#[derive(Debug, Clone)]
pub(super) struct Paint {
    pub(super) base: Color,
    /// The change of brightness per pixel in x and y, as if the surface were lit from the side.
    slope: Point,
    texture: Texture,
    /// Half the difference between the texture's extremes.
    contrast: f64,
}

#[derive(Debug, Clone)]
enum Texture {
    Plain,
    /// Waves with a `period` in pixels along `along`. A `sharpness` of 1 gives a smooth wave; larger values approach
    /// bars.
    Waves {
        along: Point,
        period: f64,
        sharpness: f64,
    },
    Checks {
        along: Point,
        period: f64,
    },
    /// Value noise with two octaves and features of `size` pixels.
    Noise {
        size: f64,
        key: u64,
    },
}

impl Texture {
    /// Returns a random texture.
    fn random(rng: &mut Stream) -> Self {
        match rng.below(4) {
            0 => Self::Waves { along: direction(rng), period: rng.between(5.0, 14.0), sharpness: 1.0 },
            1 => Self::Waves { along: direction(rng), period: rng.between(8.0, 16.0), sharpness: 4.0 },
            2 => Self::Checks { along: direction(rng), period: rng.between(12.0, 22.0) },
            _ => Self::Noise { size: rng.between(4.0, 10.0), key: rng.next_u64() },
        }
    }

    /// Returns the texture at a point, in [-1, 1].
    fn value(&self, p: Point) -> f64 {
        match self {
            Self::Plain => 0.0,
            Self::Waves { along, period, sharpness } => {
                (wave(rotate(p, *along)[0] / period) * sharpness).clamp(-1.0, 1.0)
            }
            Self::Checks { along, period } => {
                let q = rotate(p, *along);
                let bar = |v: f64| (wave(v / period) * 4.0).clamp(-1.0, 1.0);
                bar(q[0]) * bar(q[1])
            }
            Self::Noise { size, key } => {
                let at = |size: f64, key: u64| noise([p[0] / size, p[1] / size], key);
                (at(*size, *key) * 2.0 + at(size / 2.0, !key)) / 3.0
            }
        }
    }
}

impl Paint {
    /// Returns a paint with the colour `base`, lit from the side, with little or no texture.
    pub(super) fn plain(base: Color, rng: &mut Stream) -> Self {
        let slope = [rng.between(-1.2, 1.2), rng.between(-1.2, 1.2)];
        let texture = if rng.coin() { Texture::Plain } else { Texture::Noise { size: 4.0, key: rng.next_u64() } };
        Self { base, slope, texture, contrast: rng.between(3.0, 8.0) }
    }

    /// Returns a paint with the colour `base`, lit from the side, with a random texture.
    pub(super) fn textured(base: Color, rng: &mut Stream) -> Self {
        Self { texture: Texture::random(rng), contrast: rng.between(10.0, 30.0), ..Self::plain(base, rng) }
    }

    /// Returns the colour at a point.
    pub(super) fn at(&self, p: Point) -> Color {
        let shade = self.slope[0] * p[0] + self.slope[1] * p[1] + self.contrast * self.texture.value(p);
        self.base.map(|v| v + shade)
    }
}

/// Returns a smooth wave of period 1 and range [-1, 1]. It is cubic instead of a cosine, so that the arithmetic is
/// exact.
fn wave(phase: f64) -> f64 {
    let t = (2.0 * (phase - phase.floor()) - 1.0).abs();
    2.0 * smooth(t) - 1.0
}

/// Returns the smoothstep polynomial.
fn smooth(t: f64) -> f64 {
    t * t * (3.0 - 2.0 * t)
}

/// Returns value noise: random numbers in [-1, 1] at integer coordinates, interpolated smoothly.
fn noise(p: Point, key: u64) -> f64 {
    let floor = p.map(f64::floor);
    let t = [smooth(p[0] - floor[0]), smooth(p[1] - floor[1])];
    let corner = |dx: i64, dy: i64| lattice(floor[0] as i64 + dx, floor[1] as i64 + dy, key);
    let row = |dy: i64| corner(0, dy) * (1.0 - t[0]) + corner(1, dy) * t[0];
    row(0) * (1.0 - t[1]) + row(1) * t[1]
}

/// Returns a random number in [-1, 1) for a lattice point: the finaliser of SplitMix64 (Steele et al. 2014) applied to
/// a mix of the arguments.
fn lattice(x: i64, y: i64, key: u64) -> f64 {
    let mut z = key ^ (x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (y as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}
