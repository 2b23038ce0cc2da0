//! Softmax attention, softmax(q kᵀ / √d) v, and its gradients, for one image and head by head. The full matrix of
//! weights is never stored.
//!
//! Weights are computed in tiles that fit into the first-level cache. All products use full vectors, even for narrow
//! heads. In the forward pass, each lane is a query, whose maximum and sum are updated from tile to tile (Milakov and
//! Gimelshein 2018). In the backward pass, each lane is a key, and the weights are recomputed from the maxima and sums
//! (Dao et al. 2022, algorithm 4).

use crate::nn::fused::gemm::{Gemm, Left, Panels, SumInit, gemm};
use crate::nn::fused::pass::{GradientTarget, StepContext};
use crate::nn::fused::simd::{Isa, PANEL, exp, kernel};
use crate::nn::fused::view::View;

/// The queries, keys and values of one image, and the memory for its attention.
#[derive(Clone, Copy)]
pub struct ImageAttention {
    pub q: View,
    pub k: View,
    pub v: View,
    pub heads: usize,
    /// [`moments_len`] numbers, written by the forward pass and read by the backward pass. For each head: the maximum
    /// score of each query, then the reciprocal of each query's sum.
    pub moments: *mut f32,
    /// [`scratch_len`] numbers.
    pub scratch: *mut f32,
}

/// The number of queries per tile, a multiple of a panel.
const QUERIES: usize = 64;
/// The number of keys per tile, a multiple of a panel.
const KEYS: usize = 64;

/// Returns the length of [`ImageAttention::moments`].
pub(super) fn moments_len(queries: usize, heads: usize) -> usize {
    2 * heads * queries
}

/// Returns the length of the scratch memory for one image whose heads have `[d, c]` channels in queries and values.
pub(super) fn scratch_len(queries: usize, [d, c]: [usize; 2], training: bool) -> usize {
    let forward = QUERIES * (KEYS + d + c + 2);
    let backward = 2 * KEYS * (QUERIES + d + c) + queries;
    if training { forward.max(backward) } else { forward }
}

/// Returns which gradients of q, k and v to compute, for one image.
pub(in crate::nn::ops) fn image_targets(step: &StepContext, image: usize) -> [GradientTarget; 3] {
    [0, 1, 2].map(|i| step.input_gradient(i).map(|(view, accumulate)| (view.image(image), accumulate)))
}

/// Returns the channels of one head.
pub(in crate::nn::ops) fn head_slice(view: &View, heads: usize, head: usize) -> View {
    let channels = view.channels() / heads;
    view.slice(head * channels, channels)
}

/// Splits `count` pixels into tiles of at most `len`; yields the first pixel and the length of each.
fn tiles(count: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).step_by(len).map(move |first| (first, len.min(count - first)))
}

/// Computes the output `y`.
///
/// # Safety
///
/// The views are of one image each, with matching shapes; `y` overlaps none of them.
pub(super) unsafe fn forward(isa: Isa, a: &ImageAttention, y: &View) {
    for head in 0..a.heads {
        let [q, k, v, y] = [&a.q, &a.k, &a.v, y].map(|view| head_slice(view, a.heads, head));
        for (first, count) in tiles(q.rows(), QUERIES) {
            // SAFETY: upheld by the caller.
            unsafe {
                let max = a.moments.add(2 * head * q.rows() + first);
                let tile = [q.pixels(first, count), y.pixels(first, count)];
                queries_forward(isa, tile, [&k, &v], [max, max.add(q.rows())], a.scratch);
            }
        }
    }
}

/// Computes the outputs and moments of a tile of queries.
unsafe fn queries_forward(isa: Isa, [q, y]: [View; 2], [k, v]: [&View; 2], moments: [*mut f32; 2], scratch: *mut f32) {
    let (d, c, lanes) = (q.channels(), y.channels(), q.rows().next_multiple_of(PANEL));
    // SAFETY: upheld by the caller; the scratch memory is large enough.
    unsafe {
        let weights = scratch;
        let queries = weights.add(KEYS * lanes);
        let sums = queries.add(d * lanes);
        let max = sums.add(c * lanes);
        let total = max.add(lanes);
        pack_transposed(&q, 1.0 / (d as f32).sqrt(), queries);
        std::slice::from_raw_parts_mut(sums, c * lanes).fill(0.0);
        std::slice::from_raw_parts_mut(max, lanes).fill(f32::NEG_INFINITY);
        std::slice::from_raw_parts_mut(total, lanes).fill(0.0);
        for (first, count) in tiles(k.rows(), KEYS) {
            let (k, v) = (k.pixels(first, count), v.pixels(first, count));
            let scores = Gemm {
                m: count,
                n: lanes,
                k: d,
                a: k.left(),
                b: Panels::packed(queries, d),
                c: Panels::rows(weights, lanes),
                init: SumInit::Zero,
            };
            gemm(isa, &scores);
            update_softmax(isa, &SoftmaxTile { weights, keys: count, lanes, max, total, sums, channels: c });
            let output = Gemm {
                m: c,
                n: lanes,
                k: count,
                a: v.left().transposed(),
                b: Panels::rows(weights, lanes),
                c: Panels::rows(sums, lanes),
                init: SumInit::Accumulate,
            };
            gemm(isa, &output);
        }
        for row in 0..q.rows() {
            let factor = 1.0 / *total.add(row);
            *moments[0].add(row) = *max.add(row);
            *moments[1].add(row) = factor;
            for channel in 0..c {
                *y.at.add(row * y.stride + channel) = *sums.add(channel * lanes + row) * factor;
            }
        }
    }
}

/// A tile of scores, `(keys, lanes)`, and the running state of its queries.
struct SoftmaxTile {
    weights: *mut f32,
    keys: usize,
    lanes: usize,
    max: *mut f32,
    total: *mut f32,
    /// The unnormalised outputs, `(channels, lanes)`.
    sums: *mut f32,
    channels: usize,
}

kernel! {
    /// Turns scores into weights relative to the maximum score so far, and rescales the running sums accordingly.
    ///
    /// # Safety
    ///
    /// The pointers are valid for the lengths given in [`SoftmaxTile`].
    unsafe fn update_softmax<S>(w: &SoftmaxTile) {
        let mut lane = 0;
        while lane < w.lanes {
            let scores = w.weights.add(lane);
            let before = S::load(w.max.add(lane));
            let mut max = [before; 4];
            for key in 0..w.keys {
                max[key % 4] = S::max(max[key % 4], S::load(scores.add(key * w.lanes)));
            }
            let max = S::max(S::max(max[0], max[1]), S::max(max[2], max[3]));
            let rescale = exp::<S>(S::sub(before, max));
            let mut total = S::mul(S::load(w.total.add(lane)), rescale);
            for key in 0..w.keys {
                let at = scores.add(key * w.lanes);
                let weight = exp::<S>(S::sub(S::load(at), max));
                S::store(at, weight);
                total = S::add(total, weight);
            }
            S::store(w.max.add(lane), max);
            S::store(w.total.add(lane), total);
            for channel in 0..w.channels {
                let at = w.sums.add(channel * w.lanes + lane);
                S::store(at, S::mul(S::load(at), rescale));
            }
            lane += S::LANES;
        }
    }
}

/// Computes the gradients of q, k and v.
///
/// # Safety
///
/// As for [`forward`], which has written `y` and the moments. The targets have the shapes of q, k and v, and overlap
/// nothing but each other.
pub(super) unsafe fn backward(isa: Isa, a: &ImageAttention, y: &View, dy: &View, targets: [GradientTarget; 3]) {
    for head in 0..a.heads {
        let [q, k, v, y, dy] = [&a.q, &a.k, &a.v, y, dy].map(|view| head_slice(view, a.heads, head));
        let [dq, dk, dv] = targets.map(|t| t.map(|(view, accumulate)| (head_slice(&view, a.heads, head), accumulate)));
        // SAFETY: upheld by the caller; the scratch memory is large enough.
        unsafe {
            let max = a.moments.add(2 * head * q.rows());
            let dots = a.scratch.add(2 * KEYS * (QUERIES + q.channels() + v.channels()));
            row_products(isa, &y, &dy, dots);
            let head = Head { q, dy, max, factors: max.add(q.rows()), dots, scratch: a.scratch };
            for (first, count) in tiles(k.rows(), KEYS) {
                let part =
                    |target: GradientTarget| target.map(|(view, accumulate)| (view.pixels(first, count), accumulate));
                let dq = dq.map(|(view, accumulate)| (view, accumulate || first > 0));
                let (k, v) = (k.pixels(first, count), v.pixels(first, count));
                keys_backward(isa, &head, [&k, &v], [dq, part(dk), part(dv)]);
            }
        }
    }
}

/// The inputs of the backward pass that all tiles of a head share.
struct Head {
    q: View,
    dy: View,
    max: *const f32,
    factors: *const f32,
    /// Σ y dy of each query, which equals the weighted mean of the gradients of its weights.
    dots: *const f32,
    scratch: *mut f32,
}

/// Computes the gradients of a tile of keys and values, and their contribution to the gradients of queries.
unsafe fn keys_backward(isa: Isa, h: &Head, [k, v]: [&View; 2], [dq, dk, dv]: [GradientTarget; 3]) {
    let (d, c, lanes) = (k.channels(), v.channels(), k.rows().next_multiple_of(PANEL));
    let scale = 1.0 / (d as f32).sqrt();
    // SAFETY: upheld by the caller; the scratch memory is large enough.
    unsafe {
        let weights = h.scratch;
        let d_weights = weights.add(QUERIES * lanes);
        let keys = d_weights.add(QUERIES * lanes);
        let values = keys.add(d * lanes);
        let d_keys = values.add(c * lanes);
        let d_values = d_keys.add(d * lanes);
        pack_transposed(k, scale, keys);
        pack_transposed(v, 1.0, values);
        for (first, count) in tiles(h.q.rows(), QUERIES) {
            let (q, dy) = (h.q.pixels(first, count), h.dy.pixels(first, count));
            let tile = |m, a, k, b, c| Gemm { m, n: lanes, k, a, b, c: Panels::rows(c, lanes), init: SumInit::Zero };
            gemm(isa, &tile(count, q.left(), d, Panels::packed(keys, d), weights));
            gemm(isa, &tile(count, dy.left(), c, Panels::packed(values, c), d_weights));
            let of = |list: *const f32| list.add(first);
            let lists = [of(h.max), of(h.factors), of(h.dots)];
            softmax_tile_backward(isa, weights, d_weights, count, lanes, lists, scale);
            if let Some((dq, accumulate)) = dq {
                let product = Gemm {
                    m: count,
                    n: d,
                    k: k.rows(),
                    a: Left::rows(d_weights, lanes),
                    b: k.right(),
                    c: dq.pixels(first, count).right(),
                    init: SumInit::accumulating(accumulate),
                };
                gemm(isa, &product);
            }
            let init = SumInit::accumulating(first > 0);
            let over_queries = |m, a, b, c| Gemm { init, ..tile(m, a, count, Panels::rows(b, lanes), c) };
            gemm(isa, &over_queries(d, q.left().transposed(), d_weights, d_keys));
            gemm(isa, &over_queries(c, dy.left().transposed(), weights, d_values));
        }
        for (target, sums) in [(dk, d_keys), (dv, d_values)] {
            if let Some((to, accumulate)) = target {
                unpack_transposed(sums, lanes, &to, accumulate);
            }
        }
    }
}

kernel! {
    /// Turns scores into weights w, and gradients g of the weights into gradients of the scores, scale · w (g − dot).
    /// `lists` are the maximum score, the factor and the dot of each row.
    ///
    /// # Safety
    ///
    /// Both tiles have `rows` rows of `lanes` numbers, and each list has `rows` numbers.
    unsafe fn softmax_tile_backward<S>(
        weights: *mut f32,
        gradients: *mut f32,
        rows: usize,
        lanes: usize,
        lists: [*const f32; 3],
        scale: f32,
    ) {
        for row in 0..rows {
            let [max, factor, dot] = lists.map(|list| S::splat(*list.add(row)));
            let mut lane = row * lanes;
            while lane < (row + 1) * lanes {
                let (w, g) = (weights.add(lane), gradients.add(lane));
                let weight = S::mul(exp::<S>(S::sub(S::load(w), max)), factor);
                S::store(w, weight);
                S::store(g, S::mul(S::mul(weight, S::sub(S::load(g), dot)), S::splat(scale)));
                lane += S::LANES;
            }
        }
    }
}

kernel! {
    /// Computes the dot product of each row of `a` with the same row of `b`.
    ///
    /// # Safety
    ///
    /// The views have the same shape, and `sums` is valid for writing one number per row.
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

/// Writes the transpose of a view's matrix, multiplied by a factor, in panels `(rows / 16, channels, 16)`. Missing rows
/// are filled with zeros.
///
/// # Safety
///
/// The view is valid for reads and `to` for writes.
pub(in crate::nn::ops) unsafe fn pack_transposed(x: &View, factor: f32, to: *mut f32) {
    for row in 0..x.rows().next_multiple_of(PANEL) {
        for c in 0..x.channels() {
            // SAFETY: upheld by the caller.
            unsafe {
                let value = if row < x.rows() { factor * *x.at.add(row * x.stride + c) } else { 0.0 };
                *to.add((row / PANEL * x.channels() + c) * PANEL + row % PANEL) = value;
            }
        }
    }
}

/// Writes the transpose of a matrix to a view, or adds it. The rows of the matrix are `stride` numbers apart.
///
/// # Safety
///
/// The matrix has one row per channel and one column per pixel.
pub(in crate::nn::ops) unsafe fn unpack_transposed(from: *const f32, stride: usize, x: &View, accumulate: bool) {
    for row in 0..x.rows() {
        for c in 0..x.channels() {
            // SAFETY: upheld by the caller.
            unsafe {
                let to = x.at.add(row * x.stride + c);
                let value = *from.add(c * stride + row);
                *to = if accumulate { *to + value } else { value };
            }
        }
    }
}
