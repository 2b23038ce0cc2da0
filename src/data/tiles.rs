//! Splits canvases of any size into overlapping square tiles of one size, and blends the tiles back together.
//!
//! Where tiles overlap, their values are averaged, with weights that increase from a tile's edge inwards. The weights
//! at a position sum to 1, so tiles that agree are reproduced exactly. Where they differ, they fade into each other,
//! without visible seams.

use std::f64::consts::FRAC_PI_2;
use std::ops::Range;

/// The positions of the tiles on a canvas of `(height, width, 3)` values, and their weights. Tiles are numbered row by
/// row.
pub struct Tiling {
    size: usize,
    rows: Axis,
    columns: Axis,
}

/// The tiles along one axis.
struct Axis {
    length: usize,
    starts: Vec<usize>,
    /// For each tile, a weight per position; the weights at a position of the canvas sum to 1.
    weights: Vec<Vec<f64>>,
}

impl Tiling {
    /// Creates tiles of `size`×`size` that overlap by at least `overlap` and start at multiples of `unit`, which must
    /// divide height, width, `size` and `overlap`. No side of the canvas may be shorter than a tile, and `overlap` must
    /// be less than `size`.
    pub fn new(height: usize, width: usize, size: usize, overlap: usize, unit: usize) -> Self {
        let axis = |length| Axis::new(length, size, overlap, unit);
        Self { size, rows: axis(height), columns: axis(width) }
    }

    /// Returns the number of tiles.
    pub fn count(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// Returns the values of some tiles, `(tiles, size, size, 3)`.
    pub fn cut(&self, canvas: &[f64], tiles: Range<usize>) -> Vec<f64> {
        let mut values = Vec::with_capacity(tiles.len() * 3 * self.size * self.size);
        for tile in tiles {
            let (top, left) = (self.rows.starts[self.row(tile)], self.columns.starts[self.column(tile)]);
            for y in top..top + self.size {
                values.extend(&canvas[3 * (y * self.columns.length + left)..][..3 * self.size]);
            }
        }
        values
    }

    /// Adds the weighted values of some tiles, in the layout of [`cut`](Self::cut), to the canvas, which must be 0
    /// before the first tile is added.
    pub fn blend(&self, canvas: &mut [f64], tiles: Range<usize>, values: &[f64]) {
        for (tile, values) in tiles.zip(values.chunks_exact(3 * self.size * self.size)) {
            let (row, column) = (self.row(tile), self.column(tile));
            let (top, left) = (self.rows.starts[row], self.columns.starts[column]);
            for (y, values) in values.chunks_exact(3 * self.size).enumerate() {
                let canvas = &mut canvas[3 * ((top + y) * self.columns.length + left)..][..3 * self.size];
                let pixels = canvas.chunks_exact_mut(3).zip(values.chunks_exact(3));
                for ((canvas, values), column_weight) in pixels.zip(&self.columns.weights[column]) {
                    let weight = self.rows.weights[row][y] * column_weight;
                    canvas.iter_mut().zip(values).for_each(|(canvas, value)| *canvas += weight * value);
                }
            }
        }
    }

    fn row(&self, tile: usize) -> usize {
        tile / self.columns.starts.len()
    }

    fn column(&self, tile: usize) -> usize {
        tile % self.columns.starts.len()
    }
}

impl Axis {
    fn new(length: usize, size: usize, overlap: usize, unit: usize) -> Self {
        assert!(length >= size && overlap < size, "{length} {size} {overlap}");
        assert!([length, size, overlap].iter().all(|n| n.is_multiple_of(unit)), "{length} {size} {overlap} {unit}");
        // Evenly spaced, so that the last tile ends at the edge and all overlaps are similar.
        let free = (length - size) / unit;
        let strides = free.div_ceil((size - overlap) / unit);
        let starts: Vec<usize> = (0..=strides).map(|i| unit * (i * free / strides.max(1))).collect();
        let mut weights: Vec<Vec<f64>> = (starts.iter().enumerate())
            .map(|(i, _)| (0..size).map(|at| weight(at, size, overlap, i == 0, i == strides)).collect())
            .collect();
        let mut sums = vec![0.0; length];
        for (start, weights) in starts.iter().zip(&weights) {
            sums[*start..].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        for (start, weights) in starts.iter().zip(&mut weights) {
            weights.iter_mut().zip(&sums[*start..]).for_each(|(weight, sum)| *weight /= sum);
        }
        Self { length, starts, weights }
    }
}

/// Returns the weight of a position in a tile: a squared sine across the overlap. The weights of two tiles that overlap
/// by exactly `overlap` add up to 1. There is no ramp at the edges of the canvas.
fn weight(at: usize, size: usize, overlap: usize, first: bool, last: bool) -> f64 {
    let ramp = |distance: usize| match distance < overlap {
        true => (FRAC_PI_2 * (distance as f64 + 0.5) / overlap as f64).sin().powi(2),
        false => 1.0,
    };
    let rise = if first { 1.0 } else { ramp(at) };
    let fall = if last { 1.0 } else { ramp(size - 1 - at) };
    rise * fall
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cuts a canvas into tiles and blends them back together.
    fn cut_and_blend(tiling: &Tiling, canvas: &[f64]) -> Vec<f64> {
        let mut blended = vec![0.0; canvas.len()];
        for tile in 0..tiling.count() {
            tiling.blend(&mut blended, tile..tile + 1, &tiling.cut(canvas, tile..tile + 1));
        }
        blended
    }

    proptest! {
        #[test]
        fn blending_the_tiles_of_a_canvas_reproduces_it(
            unit in 1usize..5, size in 2usize..9, extra in (0usize..30, 0usize..30), overlap in 0usize..8,
        ) {
            let overlap = overlap.min(size - 1);
            let (height, width) = (unit * (size + extra.0), unit * (size + extra.1));
            let tiling = Tiling::new(height, width, unit * size, unit * overlap, unit);
            let canvas: Vec<f64> = (0..3 * height * width).map(|i| (i * 7919 % 1013) as f64).collect();
            let blended = cut_and_blend(&tiling, &canvas);
            prop_assert!(canvas.iter().zip(&blended).all(|(a, b)| (a - b).abs() < 1e-9));
            for axis in [&tiling.rows, &tiling.columns] {
                prop_assert_eq!(axis.starts.last().copied(), Some(axis.length - tiling.size));
                for pair in axis.starts.windows(2) {
                    prop_assert!(pair[0] < pair[1] && pair[0] + tiling.size >= pair[1] + unit * overlap);
                }
            }
        }
    }

    #[test]
    fn a_single_tile_is_unchanged() {
        let tiling = Tiling::new(8, 8, 8, 4, 4);
        assert_eq!(tiling.count(), 1);
        let canvas: Vec<f64> = (0..192).map(f64::from).collect();
        assert_eq!(cut_and_blend(&tiling, &canvas), canvas);
    }

    #[test]
    fn several_tiles_can_be_cut_at_once() {
        let tiling = Tiling::new(8, 12, 8, 4, 4);
        let canvas: Vec<f64> = (0..288).map(f64::from).collect();
        let both = tiling.cut(&canvas, 0..2);
        assert_eq!(both, [tiling.cut(&canvas, 0..1), tiling.cut(&canvas, 1..2)].concat());
        let mut blended = vec![0.0; 288];
        tiling.blend(&mut blended, 0..2, &both);
        assert!(blended.iter().zip(&canvas).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    /// Returns the largest step between neighbouring columns when adjacent tiles have different constant values.
    fn largest_step(overlap: usize) -> f64 {
        let tiling = Tiling::new(16, 64, 16, overlap, 4);
        let mut canvas = vec![0.0; 3 * 16 * 64];
        for tile in 0..tiling.count() {
            tiling.blend(&mut canvas, tile..tile + 1, &[[0.0, 1.0][tile % 2]; 3 * 16 * 16]);
        }
        let row: Vec<f64> = canvas.iter().step_by(3).take(64).copied().collect();
        row.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn tiles_that_differ_fade_into_each_other() {
        assert_eq!(largest_step(0), 1.0, "without overlap there is a seam");
        // The maximum slope of a squared sine over 8: sin(π/8).
        assert!(largest_step(8) < 0.2, "{}", largest_step(8));
    }
}
