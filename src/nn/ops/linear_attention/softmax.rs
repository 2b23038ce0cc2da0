//! Softmax along rows that are padded to whole panels, and its gradient.

use crate::nn::fused::simd::{PANEL, Simd, exp, kernel};

/// The maximum number of vectors per panel.
const VECTORS: usize = 4;

/// Returns a vector for the columns from `first` on: 1 for those before column `n`, 0 for the others.
#[inline(always)]
unsafe fn valid_lanes<S: Simd>(n: usize, first: usize) -> S::V {
    const ONES: [f32; PANEL] = [1.0; PANEL];
    // SAFETY: no vector is wider than a panel.
    unsafe { S::load_masked(ONES.as_ptr(), S::mask(n.saturating_sub(first))) }
}

/// Returns the numbers in the vectors of a panel.
#[inline(always)]
unsafe fn lanes<S: Simd>(vectors: [S::V; VECTORS]) -> [f32; PANEL] {
    let mut lanes = [0.0; PANEL];
    for v in 0..PANEL / S::LANES {
        // SAFETY: a panel contains this many vectors.
        unsafe { S::store(lanes.as_mut_ptr().add(v * S::LANES), vectors[v]) };
    }
    lanes
}

kernel! {
    /// Replaces each row by softmax(scale · row). Rows have `n` columns and are padded to whole panels; the padding is
    /// set to zero.
    ///
    /// # Safety
    ///
    /// `rows` is valid for reading and writing `count` padded rows.
    pub(super) unsafe fn softmax<S>(rows: *mut f32, count: usize, n: usize, scale: f32) {
        let one = S::splat(1.0);
        for row in 0..count {
            let row = rows.add(row * n.next_multiple_of(PANEL));
            let vectors = PANEL / S::LANES;
            let mut max = [S::splat(f32::NEG_INFINITY); VECTORS];
            let mut at = 0;
            while at < n {
                for v in 0..vectors {
                    let first = at + v * S::LANES;
                    let x = S::load(row.add(first));
                    max[v] = S::max(max[v], S::if_equal(valid_lanes::<S>(n, first), one, x, max[v]));
                }
                at += PANEL;
            }
            let max = S::splat(lanes::<S>(max).into_iter().fold(f32::NEG_INFINITY, f32::max));
            let mut sums = [S::splat(0.0); VECTORS];
            let mut at = 0;
            while at < n {
                for v in 0..vectors {
                    let x = row.add(at + v * S::LANES);
                    let e = exp::<S>(S::mul(S::sub(S::load(x), max), S::splat(scale)));
                    let e = S::mul(e, valid_lanes::<S>(n, at + v * S::LANES));
                    S::store(x, e);
                    sums[v] = S::add(sums[v], e);
                }
                at += PANEL;
            }
            let sums = lanes::<S>(sums);
            let factor = S::splat(1.0 / sums.iter().sum::<f32>());
            let mut at = 0;
            while at < n {
                let x = row.add(at);
                S::store(x, S::mul(S::load(x), factor));
                at += S::LANES;
            }
        }
    }
}

kernel! {
    /// Replaces the gradients g of the weights w by the gradients of the scores, scale · w (g − Σ w g).
    ///
    /// # Safety
    ///
    /// As for [`softmax`]; the padding is finite in the gradients and zero in the weights.
    pub(super) unsafe fn softmax_backward<S>(weights: *const f32, gradients: *mut f32, count: usize, n: usize, scale: f32) {
        let columns = n.next_multiple_of(PANEL);
        for row in 0..count {
            let (w, g) = (weights.add(row * columns), gradients.add(row * columns));
            let mut sums = [0.0f32; PANEL];
            let mut at = 0;
            while at < columns {
                let sum = sums.as_mut_ptr().add(at % PANEL);
                S::store(sum, S::fma(S::load(w.add(at)), S::load(g.add(at)), S::load(sum)));
                at += S::LANES;
            }
            let mean = S::splat(sums.iter().sum::<f32>());
            let mut at = 0;
            while at < columns {
                let d = S::mul(S::load(w.add(at)), S::sub(S::load(g.add(at)), mean));
                S::store(g.add(at), S::mul(d, S::splat(scale)));
                at += S::LANES;
            }
        }
    }
}
