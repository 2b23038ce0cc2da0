//! The constants of the time embedding and the position encoding.

use super::Shape;

/// The ratio of the longest to the shortest wavelength of [`sinusoid_frequencies`].
const TIME_WAVELENGTH_RATIO: f64 = 10_000.0;
/// The ratio of the longest to the shortest wavelength of [`position_encoding`].
const POSITION_WAVELENGTH_RATIO: f64 = 100.0;

/// Returns the angular frequencies of the time embedding for times in `[0, 1)`: 1000 · 10000^(−i / n) for i < n =
/// `channels / 2` (Ho et al. 2020, after Vaswani et al. 2017, section 3.5).
pub fn sinusoid_frequencies(channels: usize) -> Vec<f32> {
    frequencies(channels / 2, TIME_WAVELENGTH_RATIO).map(|w| (1000.0 * w) as f32).collect()
}

/// Returns the position encoding of a feature map, `(H, W, C)`, whose positions are `spacing` pixels apart.
///
/// The channels are sines and cosines of the vertical, then of the horizontal coordinate of each position's centre, in
/// pixels of the full image, so that feature maps of all resolutions share one encoding. The n = ⌈C / 4⌉ frequencies
/// are 100^(−i / n) for i < n.
pub fn position_encoding(shape: Shape, spacing: usize) -> Vec<f32> {
    let n = shape.channels.div_ceil(4);
    let encode = |count: usize| -> Vec<f32> {
        let centres = (0..count).map(|i| (i as f64 + 0.5) * spacing as f64);
        centres
            .flat_map(|x| {
                frequencies(n, POSITION_WAVELENGTH_RATIO)
                    .map(move |w| w * x)
                    .flat_map(|a| [a.sin() as f32, a.cos() as f32])
            })
            .collect()
    };
    let (rows, columns) = (encode(shape.height), encode(shape.width));
    let at = |y: usize, x: usize, c: usize| match (c / n, c % n) {
        (0, i) => rows[2 * (y * n + i)],
        (1, i) => rows[2 * (y * n + i) + 1],
        (2, i) => columns[2 * (x * n + i)],
        (_, i) => columns[2 * (x * n + i) + 1],
    };
    let (h, w, c) = (shape.height, shape.width, shape.channels);
    (0..h).flat_map(|y| (0..w).flat_map(move |x| (0..c).map(move |c| (y, x, c)))).map(|(y, x, c)| at(y, x, c)).collect()
}

fn frequencies(n: usize, ratio: f64) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| ratio.powf(-(i as f64) / n as f64))
}
