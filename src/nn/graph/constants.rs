//! Numbers that are known before any image: frequencies of times and of places.

use super::Shape;

/// The longest wave of [`sinusoid_frequencies`] over the shortest, in steps of a process of 1000.
const LONGEST_TIME: f64 = 10_000.0;
/// The same of [`position_encoding`], in pixels.
const LONGEST_PLACE: f64 = 100.0;

/// What a time in `[0, 1)` is multiplied by before its sines and cosines: for `channels / 2` frequencies, 1000 times
/// 10000^(−i / n), i < n (Ho et al. 2020, after Vaswani et al. 2017, section 3.5).
pub fn sinusoid_frequencies(channels: usize) -> Vec<f32> {
    waves(channels / 2, LONGEST_TIME).map(|w| (1000.0 * w) as f32).collect()
}

/// A map's places, `(H, W, C)`: sines and cosines of the row, then of the column of each position's centre, in pixels of
/// the whole image, `cell` of them a position. With n = ⌈C / 4⌉ frequencies 100^(−i / n); maps of different resolutions
/// have one language.
pub fn position_encoding(shape: Shape, cell: usize) -> Vec<f32> {
    let n = shape.channels.div_ceil(4);
    let line = |count: usize| -> Vec<f32> {
        let centres = (0..count).map(|i| (i as f64 + 0.5) * cell as f64);
        centres
            .flat_map(|x| waves(n, LONGEST_PLACE).map(move |w| w * x).flat_map(|a| [a.sin() as f32, a.cos() as f32]))
            .collect()
    };
    let (rows, columns) = (line(shape.height), line(shape.width));
    let at = |y: usize, x: usize, c: usize| match (c / n, c % n) {
        (0, i) => rows[2 * (y * n + i)],
        (1, i) => rows[2 * (y * n + i) + 1],
        (2, i) => columns[2 * (x * n + i)],
        (_, i) => columns[2 * (x * n + i) + 1],
    };
    let (h, w, c) = (shape.height, shape.width, shape.channels);
    (0..h).flat_map(|y| (0..w).flat_map(move |x| (0..c).map(move |c| (y, x, c)))).map(|(y, x, c)| at(y, x, c)).collect()
}

fn waves(n: usize, longest: f64) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| longest.powf(-(i as f64) / n as f64))
}
