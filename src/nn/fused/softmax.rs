//! softmax along rows that are padded to whole panels, and its gradient.

use super::simd::{PANEL, exp, kernel};

kernel! {
    /// Rows of softmax(scale · row), in place; `n` columns of rows padded to whole panels, the padding left zero.
    ///
    /// # Safety
    ///
    /// As many rows may be written.
    pub unsafe fn softmax<S>(rows: *mut f32, count: usize, n: usize, scale: f32) {
        for row in 0..count {
            let row = rows.add(row * n.next_multiple_of(PANEL));
            let mut highest = f32::NEG_INFINITY;
            for i in 0..n {
                highest = if *row.add(i) > highest { *row.add(i) } else { highest };
            }
            let mut sums = [0.0f32; PANEL];
            let mut at = 0;
            while at < n {
                let mut lane = 0;
                while lane < PANEL {
                    let mask = S::mask(n.saturating_sub(at + lane));
                    let x = row.add(at + lane);
                    let e = exp::<S>(S::mul(S::sub(S::load(x), S::splat(highest)), S::splat(scale)));
                    S::store(x, S::splat(0.0));
                    S::store_masked(x, mask, e);
                    let sum = sums.as_mut_ptr().add(lane);
                    S::store(sum, S::add(S::load(sum), S::load(x)));
                    lane += S::LANES;
                }
                at += PANEL;
            }
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
    /// The gradient of the scores, scale · w (g − Σ w g), over the weights' gradient g.
    ///
    /// # Safety
    ///
    /// As [`softmax`]; the gradients' padding holds numbers, and the weights' zeros.
    pub unsafe fn softmax_backward<S>(weights: *const f32, gradients: *mut f32, count: usize, n: usize, scale: f32) {
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
