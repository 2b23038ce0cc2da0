//! softmax(q kᵀ / √d) v of one image, a head at a time, and its gradients; the weights are recomputed backward.

use super::gemm::{Gemm, Init, gemm};
use super::simd::{Level, PANEL, exp, kernel};
use super::view::View;

/// One image's queries, keys and values.
#[derive(Clone, Copy)]
pub struct Attention {
    pub q: View,
    pub k: View,
    pub v: View,
    pub heads: usize,
    /// [`scratch_len`] numbers.
    pub scratch: *mut f32,
}

/// Queries that the forward pass weighs at a time: what it keeps then grows with the image, not with its square.
const QUERIES: usize = 96;

/// Scratch of one image: forward the weights of a block of queries, in training two whole matrices of them; and keys or
/// values transposed.
pub fn scratch_len(queries: usize, keys: usize, channels: [usize; 2], training: bool) -> usize {
    let columns = keys.next_multiple_of(PANEL);
    let rows = if training { 2 * queries } else { queries.min(QUERIES) };
    columns * (rows + channels[0].max(channels[1]))
}

/// # Safety
///
/// The views are of one image each, of fitting shapes; `y` overlaps none of them.
pub unsafe fn forward(level: Level, a: &Attention, y: &View) {
    let mut first = 0;
    while first < y.rows() {
        let count = QUERIES.min(y.rows() - first);
        let part = Attention { q: a.q.pixels(first, count), ..*a };
        let y = y.pixels(first, count);
        for head in 0..a.heads {
            // SAFETY: the caller's, passed on; the keys' transpose lies behind the block's weights.
            unsafe {
                let weights = attention_weights(level, &part, head, count * columns(a));
                let (v, y) = (slice(&a.v, a.heads, head), slice(&y, a.heads, head));
                let product = Gemm {
                    m: count,
                    n: y.channels(),
                    k: v.rows(),
                    a: weights,
                    a_row: columns(a),
                    a_column: 1,
                    b: v.at,
                    b_row: v.stride,
                    b_panel: PANEL,
                    c: y.at,
                    c_row: y.stride,
                    c_panel: PANEL,
                    init: Init::Zero,
                };
                gemm(level, &product);
            }
        }
        first += count;
    }
}

/// A gradient's view, and whether to add to what it holds.
pub type Target = Option<(View, bool)>;

/// # Safety
///
/// As [`forward`]; the targets have the shapes of q, k and v, and overlap nothing but each other.
pub unsafe fn backward(level: Level, a: &Attention, dy: &View, [dq, dk, dv]: [Target; 3]) {
    let keys = a.k.rows();
    for head in 0..a.heads {
        let part = |view: &View| slice(view, a.heads, head);
        let (q, k, v, dy) = (part(&a.q), part(&a.k), part(&a.v), part(dy));
        // SAFETY: the caller's, passed on; the scratch holds two matrices and a transpose.
        unsafe {
            let weights = attention_weights(level, a, head, 2 * q.rows() * columns(a));
            let d_weights = weights.add(q.rows() * columns(a));
            let transposed = d_weights.add(q.rows() * columns(a));
            pack_transposed(&v, transposed);
            let rows_by_keys = Gemm {
                m: q.rows(),
                n: columns(a),
                k: v.channels(),
                a: dy.at,
                a_row: dy.stride,
                a_column: 1,
                b: transposed,
                b_row: PANEL,
                b_panel: PANEL * v.channels(),
                c: d_weights,
                c_row: columns(a),
                c_panel: PANEL,
                init: Init::Zero,
            };
            gemm(level, &rows_by_keys);
            let scale = 1.0 / (q.channels() as f32).sqrt();
            softmax_backward(level, weights, d_weights, q.rows(), keys, scale);
            if let Some((dq, accumulate)) = dq {
                let dq = part(&dq);
                gemm(
                    level,
                    &Gemm {
                        m: q.rows(),
                        n: q.channels(),
                        k: keys,
                        a: d_weights,
                        a_row: columns(a),
                        a_column: 1,
                        b: k.at,
                        b_row: k.stride,
                        b_panel: PANEL,
                        c: dq.at,
                        c_row: dq.stride,
                        c_panel: PANEL,
                        init: init(accumulate),
                    },
                );
            }
            if let Some((dk, accumulate)) = dk {
                let dk = part(&dk);
                gemm(
                    level,
                    &Gemm {
                        m: keys,
                        n: q.channels(),
                        k: q.rows(),
                        a: d_weights,
                        a_row: 1,
                        a_column: columns(a),
                        b: q.at,
                        b_row: q.stride,
                        b_panel: PANEL,
                        c: dk.at,
                        c_row: dk.stride,
                        c_panel: PANEL,
                        init: init(accumulate),
                    },
                );
            }
            if let Some((dv, accumulate)) = dv {
                let dv = part(&dv);
                gemm(
                    level,
                    &Gemm {
                        m: keys,
                        n: dv.channels(),
                        k: q.rows(),
                        a: weights,
                        a_row: 1,
                        a_column: columns(a),
                        b: dy.at,
                        b_row: dy.stride,
                        b_panel: PANEL,
                        c: dv.at,
                        c_row: dv.stride,
                        c_panel: PANEL,
                        init: init(accumulate),
                    },
                );
            }
        }
    }
}

/// Whether a product adds to what its target holds.
pub fn init(accumulate: bool) -> Init {
    if accumulate { Init::Accumulate } else { Init::Zero }
}

fn columns(a: &Attention) -> usize {
    a.k.rows().next_multiple_of(PANEL)
}

/// The channels of one head.
pub fn slice(view: &View, heads: usize, head: usize) -> View {
    let channels = view.channels() / heads;
    view.slice(head * channels, channels)
}

/// softmax(q kᵀ / √d) of one head, at the start of the scratch, rows padded to whole panels; the keys' transpose is made
/// at `free` in the scratch.
unsafe fn attention_weights(level: Level, a: &Attention, head: usize, free: usize) -> *mut f32 {
    let (q, k) = (slice(&a.q, a.heads, head), slice(&a.k, a.heads, head));
    // SAFETY: the caller's, passed on.
    unsafe {
        let transposed = a.scratch.add(free);
        pack_transposed(&k, transposed);
        let scores = Gemm {
            m: q.rows(),
            n: columns(a),
            k: q.channels(),
            a: q.at,
            a_row: q.stride,
            a_column: 1,
            b: transposed,
            b_row: PANEL,
            b_panel: PANEL * q.channels(),
            c: a.scratch,
            c_row: columns(a),
            c_panel: PANEL,
            init: Init::Zero,
        };
        gemm(level, &scores);
        softmax(level, a.scratch, q.rows(), k.rows(), 1.0 / (q.channels() as f32).sqrt());
    }
    a.scratch
}

/// The transpose of a view's matrix in panels, `(rows / 16, channels, 16)`, zeros where there is no row.
///
/// # Safety
///
/// The view may be read and as much be written.
pub unsafe fn pack_transposed(x: &View, to: *mut f32) {
    for row in 0..x.rows().next_multiple_of(PANEL) {
        for c in 0..x.channels() {
            // SAFETY: the caller's, passed on.
            unsafe {
                let value = if row < x.rows() { *x.at.add(row * x.stride + c) } else { 0.0 };
                *to.add((row / PANEL * x.channels() + c) * PANEL + row % PANEL) = value;
            }
        }
    }
}

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
