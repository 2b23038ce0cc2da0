//! softmax(q kᵀ / √d) v of one image, a head at a time, and its gradients, without ever having all weights at once.
//!
//! Weights exist in tiles that the first-level cache holds, and every product fills whole vectors however narrow a head:
//! forward a lane is a query, whose maximum and sum go on from tile to tile (Milakov and Gimelshein 2018); backward a
//! lane is a key, and weights are made again from the maxima and sums (Dao et al. 2022, algorithm 4).

use super::gemm::{Gemm, Init, Left, Panels, gemm};
use super::simd::{Level, PANEL, exp, kernel};
use super::view::View;

/// One image's queries, keys and values.
#[derive(Clone, Copy)]
pub struct Attention {
    pub q: View,
    pub k: View,
    pub v: View,
    pub heads: usize,
    /// [`moments_len`] numbers that the backward pass takes over: by head the queries' highest scores, then the
    /// reciprocals of their sums.
    pub moments: *mut f32,
    /// [`scratch_len`] numbers.
    pub scratch: *mut f32,
}

/// Queries and keys of a tile: whole panels.
const QUERIES: usize = 64;
const KEYS: usize = 64;

pub fn moments_len(queries: usize, heads: usize) -> usize {
    2 * heads * queries
}

/// Scratch of one image, whose heads have `[d, c]` channels in queries and values.
pub fn scratch_len(queries: usize, [d, c]: [usize; 2], training: bool) -> usize {
    let forward = QUERIES * (KEYS + d + c + 2);
    let backward = 2 * KEYS * (QUERIES + d + c) + queries;
    if training { forward.max(backward) } else { forward }
}

/// A gradient's view, and whether to add to what it holds.
pub type Target = Option<(View, bool)>;

/// The channels of one head.
pub fn slice(view: &View, heads: usize, head: usize) -> View {
    let channels = view.channels() / heads;
    view.slice(head * channels, channels)
}

/// Parts of `len` pixels, one after the other: their first and their number.
fn parts(count: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).step_by(len).map(move |first| (first, len.min(count - first)))
}

/// # Safety
///
/// The views are of one image each, of fitting shapes; `y` overlaps none of them.
pub unsafe fn forward(level: Level, a: &Attention, y: &View) {
    for head in 0..a.heads {
        let [q, k, v, y] = [&a.q, &a.k, &a.v, y].map(|view| slice(view, a.heads, head));
        for (first, count) in parts(q.rows(), QUERIES) {
            // SAFETY: the caller's, passed on.
            unsafe {
                let highest = a.moments.add(2 * head * q.rows() + first);
                let tile = [q.pixels(first, count), y.pixels(first, count)];
                queries_forward(level, tile, [&k, &v], [highest, highest.add(q.rows())], a.scratch);
            }
        }
    }
}

/// The outputs and the moments of a tile's queries.
unsafe fn queries_forward(
    level: Level,
    [q, y]: [View; 2],
    [k, v]: [&View; 2],
    moments: [*mut f32; 2],
    scratch: *mut f32,
) {
    let (d, c, lanes) = (q.channels(), y.channels(), q.rows().next_multiple_of(PANEL));
    // SAFETY: the caller's, passed on; the scratch holds the parts.
    unsafe {
        let weights = scratch;
        let queries = weights.add(KEYS * lanes);
        let sums = queries.add(d * lanes);
        let highest = sums.add(c * lanes);
        let total = highest.add(lanes);
        pack_transposed(&q, 1.0 / (d as f32).sqrt(), queries);
        std::slice::from_raw_parts_mut(sums, c * lanes).fill(0.0);
        std::slice::from_raw_parts_mut(highest, lanes).fill(f32::NEG_INFINITY);
        std::slice::from_raw_parts_mut(total, lanes).fill(0.0);
        for (first, count) in parts(k.rows(), KEYS) {
            let (k, v) = (k.pixels(first, count), v.pixels(first, count));
            let scores = Gemm {
                m: count,
                n: lanes,
                k: d,
                a: k.left(),
                b: Panels::packed(queries, d),
                c: Panels::rows(weights, lanes),
                init: Init::Zero,
            };
            gemm(level, &scores);
            weigh(level, &Weighing { weights, keys: count, lanes, highest, total, sums, channels: c });
            let output = Gemm {
                m: c,
                n: lanes,
                k: count,
                a: v.left().transposed(),
                b: Panels::rows(weights, lanes),
                c: Panels::rows(sums, lanes),
                init: Init::Accumulate,
            };
            gemm(level, &output);
        }
        for row in 0..q.rows() {
            let factor = 1.0 / *total.add(row);
            *moments[0].add(row) = *highest.add(row);
            *moments[1].add(row) = factor;
            for channel in 0..c {
                *y.at.add(row * y.stride + channel) = *sums.add(channel * lanes + row) * factor;
            }
        }
    }
}

/// A tile of scores, `(keys, lanes)`, and what its queries have so far.
struct Weighing {
    weights: *mut f32,
    keys: usize,
    lanes: usize,
    highest: *mut f32,
    total: *mut f32,
    /// The outputs before they are divided by the totals, `(channels, lanes)`.
    sums: *mut f32,
    channels: usize,
}

kernel! {
    /// Turns scores into weights relative to the highest score so far, and scales what was summed up to it.
    ///
    /// # Safety
    ///
    /// The lists have the lengths that [`Weighing`] names.
    unsafe fn weigh<S>(w: &Weighing) {
        let mut lane = 0;
        while lane < w.lanes {
            let scores = w.weights.add(lane);
            let before = S::load(w.highest.add(lane));
            let mut highest = [before; 4];
            for key in 0..w.keys {
                highest[key % 4] = S::max(highest[key % 4], S::load(scores.add(key * w.lanes)));
            }
            let highest = S::max(S::max(highest[0], highest[1]), S::max(highest[2], highest[3]));
            let kept = exp::<S>(S::sub(before, highest));
            let mut total = S::mul(S::load(w.total.add(lane)), kept);
            for key in 0..w.keys {
                let at = scores.add(key * w.lanes);
                let weight = exp::<S>(S::sub(S::load(at), highest));
                S::store(at, weight);
                total = S::add(total, weight);
            }
            S::store(w.highest.add(lane), highest);
            S::store(w.total.add(lane), total);
            for channel in 0..w.channels {
                let at = w.sums.add(channel * w.lanes + lane);
                S::store(at, S::mul(S::load(at), kept));
            }
            lane += S::LANES;
        }
    }
}

/// # Safety
///
/// As [`forward`], which has left `y` and the moments; the targets have the shapes of q, k and v, and overlap nothing but
/// each other.
pub unsafe fn backward(level: Level, a: &Attention, y: &View, dy: &View, targets: [Target; 3]) {
    for head in 0..a.heads {
        let [q, k, v, y, dy] = [&a.q, &a.k, &a.v, y, dy].map(|view| slice(view, a.heads, head));
        let [dq, dk, dv] = targets.map(|t| t.map(|(view, accumulate)| (slice(&view, a.heads, head), accumulate)));
        // SAFETY: the caller's, passed on; the scratch holds the parts.
        unsafe {
            let highest = a.moments.add(2 * head * q.rows());
            let pulls = a.scratch.add(2 * KEYS * (QUERIES + q.channels() + v.channels()));
            row_products(level, &y, &dy, pulls);
            let head = Head { q, dy, highest, factors: highest.add(q.rows()), pulls, scratch: a.scratch };
            for (first, count) in parts(k.rows(), KEYS) {
                let part = |target: Target| target.map(|(view, accumulate)| (view.pixels(first, count), accumulate));
                let dq = dq.map(|(view, accumulate)| (view, accumulate || first > 0));
                let (k, v) = (k.pixels(first, count), v.pixels(first, count));
                keys_backward(level, &head, [&k, &v], [dq, part(dk), part(dv)]);
            }
        }
    }
}

/// What all tiles of a head share backward.
struct Head {
    q: View,
    dy: View,
    highest: *const f32,
    factors: *const f32,
    /// By query Σ y dy, which is the mean under its weights of the weights' gradients.
    pulls: *const f32,
    scratch: *mut f32,
}

/// The gradients of a tile's keys and values, and their part of the queries'.
unsafe fn keys_backward(level: Level, h: &Head, [k, v]: [&View; 2], [dq, dk, dv]: [Target; 3]) {
    let (d, c, lanes) = (k.channels(), v.channels(), k.rows().next_multiple_of(PANEL));
    let scale = 1.0 / (d as f32).sqrt();
    // SAFETY: the caller's, passed on; the scratch holds the parts.
    unsafe {
        let weights = h.scratch;
        let d_weights = weights.add(QUERIES * lanes);
        let keys = d_weights.add(QUERIES * lanes);
        let values = keys.add(d * lanes);
        let d_keys = values.add(c * lanes);
        let d_values = d_keys.add(d * lanes);
        pack_transposed(k, scale, keys);
        pack_transposed(v, 1.0, values);
        for (first, count) in parts(h.q.rows(), QUERIES) {
            let (q, dy) = (h.q.pixels(first, count), h.dy.pixels(first, count));
            let tile = |m, a, k, b, c| Gemm { m, n: lanes, k, a, b, c: Panels::rows(c, lanes), init: Init::Zero };
            gemm(level, &tile(count, q.left(), d, Panels::packed(keys, d), weights));
            gemm(level, &tile(count, dy.left(), c, Panels::packed(values, c), d_weights));
            let of = |list: *const f32| list.add(first);
            let lists = [of(h.highest), of(h.factors), of(h.pulls)];
            weigh_backward(level, weights, d_weights, count, lanes, lists, scale);
            if let Some((dq, accumulate)) = dq {
                let product = Gemm {
                    m: count,
                    n: d,
                    k: k.rows(),
                    a: Left::rows(d_weights, lanes),
                    b: k.right(),
                    c: dq.pixels(first, count).right(),
                    init: Init::adding(accumulate),
                };
                gemm(level, &product);
            }
            let init = Init::adding(first > 0);
            let over_queries = |m, a, b, c| Gemm { init, ..tile(m, a, count, Panels::rows(b, lanes), c) };
            gemm(level, &over_queries(d, q.left().transposed(), d_weights, d_keys));
            gemm(level, &over_queries(c, dy.left().transposed(), weights, d_values));
        }
        for (target, sums) in [(dk, d_keys), (dv, d_values)] {
            if let Some((to, accumulate)) = target {
                unpack_transposed(sums, lanes, &to, accumulate);
            }
        }
    }
}

kernel! {
    /// Scores to weights w, and gradients g of weights to those of the products of queries and keys, scale · w (g − pull);
    /// `lists` are the rows' highest scores, factors and pulls.
    ///
    /// # Safety
    ///
    /// Both tiles have `rows` rows of `lanes` numbers, and the lists as many.
    unsafe fn weigh_backward<S>(
        weights: *mut f32,
        gradients: *mut f32,
        rows: usize,
        lanes: usize,
        lists: [*const f32; 3],
        scale: f32,
    ) {
        for row in 0..rows {
            let [highest, factor, pull] = lists.map(|list| S::splat(*list.add(row)));
            let mut lane = row * lanes;
            while lane < (row + 1) * lanes {
                let (w, g) = (weights.add(lane), gradients.add(lane));
                let weight = S::mul(exp::<S>(S::sub(S::load(w), highest)), factor);
                S::store(w, weight);
                S::store(g, S::mul(S::mul(weight, S::sub(S::load(g), pull)), S::splat(scale)));
                lane += S::LANES;
            }
        }
    }
}

kernel! {
    /// Σ over the channels of a · b, by row.
    ///
    /// # Safety
    ///
    /// Two views of one shape; as many sums may be written as they have rows.
    unsafe fn row_products<S>(a: &View, b: &View, sums: *mut f32) {
        for row in 0..a.rows() {
            let (a_row, b_row) = (a.at.add(row * a.stride), b.at.add(row * b.stride));
            let mut lanes = [0.0f32; PANEL];
            let mut i = 0;
            while i < a.channels() {
                let mask = S::mask(a.channels() - i);
                let sum = lanes.as_mut_ptr().add(i % PANEL);
                let product = (S::load_masked(a_row.add(i), mask), S::load_masked(b_row.add(i), mask));
                S::store(sum, S::fma(product.0, product.1, S::load(sum)));
                i += S::LANES;
            }
            *sums.add(row) = lanes.iter().sum::<f32>();
        }
    }
}

/// The transpose of a view's matrix times a factor, in panels, `(rows / 16, channels, 16)`, zeros where there is no row.
///
/// # Safety
///
/// The view may be read and as much be written.
pub unsafe fn pack_transposed(x: &View, factor: f32, to: *mut f32) {
    for row in 0..x.rows().next_multiple_of(PANEL) {
        for c in 0..x.channels() {
            // SAFETY: the caller's, passed on.
            unsafe {
                let value = if row < x.rows() { factor * *x.at.add(row * x.stride + c) } else { 0.0 };
                *to.add((row / PANEL * x.channels() + c) * PANEL + row % PANEL) = value;
            }
        }
    }
}

/// The transpose of a matrix whose rows are `stride` numbers apart, in place of a view's pixels or added to them.
///
/// # Safety
///
/// The matrix has a row a channel and a column a pixel.
pub unsafe fn unpack_transposed(from: *const f32, stride: usize, x: &View, accumulate: bool) {
    for row in 0..x.rows() {
        for c in 0..x.channels() {
            // SAFETY: the caller's, passed on.
            unsafe {
                let to = x.at.add(row * x.stride + c);
                let value = *from.add(c * stride + row);
                *to = if accumulate { *to + value } else { value };
            }
        }
    }
}
