//! Matrix products in register tiles: several rows by one or more panels of [`PANEL`] columns.
//!
//! Each element of the result is one chain of fused multiply-adds over k in order. So its bits depend neither on the
//! size of the tiles nor on the vector width.

use super::simd::{PANEL, Simd, kernel};

/// The initial values of the sums.
#[derive(Clone, Copy)]
pub enum SumInit {
    Zero,
    /// The current values of `c`.
    Accumulate,
    /// One number per column.
    Bias(*const f32),
}

impl SumInit {
    /// Returns `Accumulate` or `Zero`.
    pub(in crate::nn) fn accumulating(accumulate: bool) -> Self {
        if accumulate { SumInit::Accumulate } else { SumInit::Zero }
    }
}

/// The left factor of a product, read number by number: element (i, j) is `at[i · row + j · column]`.
#[derive(Clone, Copy)]
pub struct Left {
    at: *const f32,
    row: usize,
    column: usize,
}

impl Left {
    /// Creates a matrix whose rows are `stride` numbers apart.
    pub fn rows(at: *const f32, stride: usize) -> Self {
        Self { at, row: stride, column: 1 }
    }

    /// Returns the transpose.
    pub(in crate::nn) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }
}

/// A matrix in panels of [`PANEL`] columns: element (i, j) is `at[j / 16 · panel + i · row + j % 16]`.
#[derive(Clone, Copy)]
pub struct Panels {
    at: *mut f32,
    row: usize,
    panel: usize,
}

impl Panels {
    /// Creates a matrix whose rows are `stride` numbers apart.
    pub fn rows(at: *mut f32, stride: usize) -> Self {
        Self { at, row: stride, panel: PANEL }
    }

    /// Creates a matrix that is stored panel by panel, with `rows` rows each.
    pub fn packed(at: *const f32, rows: usize) -> Self {
        Self { at: at.cast_mut(), row: PANEL, panel: PANEL * rows }
    }
}

/// The product C (+)= A · B, where A is `m × k` and B is `k × n`. Only `n` columns are accessed.
#[derive(Clone, Copy)]
pub struct Gemm {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Left,
    pub b: Panels,
    pub c: Panels,
    pub init: SumInit,
}

kernel! {
    /// Computes a product.
    ///
    /// # Safety
    ///
    /// A and B are valid for reads, C is valid for reads and writes and overlaps neither A nor B.
    pub(in crate::nn) unsafe fn gemm<S>(g: &Gemm) { product::<S>(g) }
}

/// Computes a product, like [`gemm`], inside another kernel.
///
/// # Safety
///
/// As for [`gemm`], and the instruction set of `S` is enabled.
#[inline(always)]
pub unsafe fn product<S: Simd>(g: &Gemm) {
    // SAFETY: upheld by the caller; a tile stays within the matrices.
    unsafe {
        let panels = g.n / PANEL;
        let mut p = 0;
        if S::LANES == PANEL {
            while panels - p >= 4 {
                columns::<S, 4, false>(g, p, 0);
                p += 4;
            }
            while panels - p >= 2 {
                columns::<S, 2, false>(g, p, 0);
                p += 2;
            }
        }
        while p < panels {
            match S::LANES {
                16 => columns::<S, 1, false>(g, p, 0),
                8 => columns::<S, 2, false>(g, p, 0),
                _ => columns::<S, 4, false>(g, p, 0),
            }
            p += 1;
        }
        let rest = g.n % PANEL;
        if rest > 0 {
            match rest.div_ceil(S::LANES) {
                1 => columns::<S, 1, true>(g, p, rest),
                2 => columns::<S, 2, true>(g, p, rest),
                _ => columns::<S, 4, true>(g, p, rest),
            }
        }
    }
}

/// Computes all rows of `V` vectors of columns, starting with panel `p`; with `TAIL`, only the first `rest` columns.
#[inline(always)]
unsafe fn columns<S: Simd, const V: usize, const TAIL: bool>(g: &Gemm, p: usize, rest: usize) {
    // A single vector of columns needs more rows, so that there are enough independent sums to hide the latency of an
    // addition.
    let max_rows = if V == 1 { 12 } else { 6 };
    let blocks = g.m.div_ceil(max_rows);
    let mut row = 0;
    for left in (1..=blocks).rev() {
        // Blocks of about equal size: a last block of one row would be bound by latency.
        let rows = (g.m - row).div_ceil(left);
        // SAFETY: upheld by the caller.
        unsafe {
            match rows {
                12 if V == 1 => tile::<S, 12, V, TAIL>(g, row, p, rest),
                11 if V == 1 => tile::<S, 11, V, TAIL>(g, row, p, rest),
                10 if V == 1 => tile::<S, 10, V, TAIL>(g, row, p, rest),
                9 if V == 1 => tile::<S, 9, V, TAIL>(g, row, p, rest),
                8 if V == 1 => tile::<S, 8, V, TAIL>(g, row, p, rest),
                7 if V == 1 => tile::<S, 7, V, TAIL>(g, row, p, rest),
                6 => tile::<S, 6, V, TAIL>(g, row, p, rest),
                5 => tile::<S, 5, V, TAIL>(g, row, p, rest),
                4 => tile::<S, 4, V, TAIL>(g, row, p, rest),
                3 => tile::<S, 3, V, TAIL>(g, row, p, rest),
                2 => tile::<S, 2, V, TAIL>(g, row, p, rest),
                _ => tile::<S, 1, V, TAIL>(g, row, p, rest),
            }
        }
        row += rows;
    }
}

/// Loads a vector; with `TAIL`, only the lanes in the mask.
#[inline(always)]
unsafe fn load<S: Simd, const TAIL: bool>(at: *const f32, mask: S::Mask) -> S::V {
    // SAFETY: upheld by the caller.
    unsafe { if TAIL { S::load_masked(at, mask) } else { S::load(at) } }
}

/// Computes `R` rows of `V` vectors, starting with row `row` and panel `p`.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const V: usize, const TAIL: bool>(g: &Gemm, row: usize, p: usize, rest: usize) {
    // SAFETY: upheld by the caller; masks keep a tail within its columns.
    unsafe {
        let per_panel = PANEL / S::LANES;
        let a = g.a.at.add(row * g.a.row);
        let b = g.b.at.add(p * g.b.panel);
        let c = g.c.at.add(row * g.c.row + p * g.c.panel);
        let mut mask = [S::mask(S::LANES); V];
        if TAIL {
            for (v, mask) in mask.iter_mut().enumerate() {
                *mask = S::mask(rest.saturating_sub(v * S::LANES));
            }
        }
        let mut sums = [[S::splat(0.0); V]; R];
        match g.init {
            SumInit::Zero => {}
            SumInit::Accumulate => {
                for r in 0..R {
                    for v in 0..V {
                        let at = c.add(r * g.c.row + v / per_panel * g.c.panel + v % per_panel * S::LANES);
                        sums[r][v] = load::<S, TAIL>(at, mask[v]);
                    }
                }
            }
            SumInit::Bias(bias) => {
                for v in 0..V {
                    let start = load::<S, TAIL>(bias.add(p * PANEL + v * S::LANES), mask[v]);
                    for sums in &mut sums {
                        sums[v] = start;
                    }
                }
            }
        }
        for k in 0..g.k {
            let b = b.add(k * g.b.row);
            let mut columns = [S::splat(0.0); V];
            for v in 0..V {
                let at = b.add(v / per_panel * g.b.panel + v % per_panel * S::LANES);
                columns[v] = load::<S, TAIL>(at, mask[v]);
            }
            for r in 0..R {
                let a = S::splat(*a.add(r * g.a.row + k * g.a.column));
                for v in 0..V {
                    sums[r][v] = S::fma(a, columns[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                let at = c.add(r * g.c.row + v / per_panel * g.c.panel + v % per_panel * S::LANES);
                if TAIL { S::store_masked(at, mask[v], sums[r][v]) } else { S::store(at, sums[r][v]) }
            }
        }
    }
}
