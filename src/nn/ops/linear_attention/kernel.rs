//! Linear attention, softmax(q) (softmax(k)ᵀ v), and its gradients, for one image and head by head.
//!
//! Let Q be softmax(q) over the features of each position, and K softmax(k) over the positions of each feature. With C
//! = Kᵀ v, the output is y = Q C. K is stored transposed, so that both softmaxes run along rows. The backward pass
//! recomputes everything.

use super::super::attention::kernel::{ImageAttention, head_slice, pack_transposed, unpack_transposed};
use super::softmax::{softmax, softmax_backward};
use crate::nn::fused::gemm::{Gemm, Left, Panels, SumInit, gemm};
use crate::nn::fused::pass::GradientTarget;
use crate::nn::fused::pointwise;
use crate::nn::fused::simd::{Isa, PANEL};
use crate::nn::fused::view::View;
use crate::nn::graph::Shape;

/// The matrices of one head in the scratch memory; rows are padded to whole panels.
struct ScratchMatrices {
    /// Q, `(queries, D)`.
    queries: Matrix,
    /// Kᵀ, `(D, keys)`.
    keys: Matrix,
    /// C, `(D, values)`.
    context: Matrix,
    d_queries: Matrix,
    d_keys: Matrix,
    d_context: Matrix,
    /// Cᵀ, `(values, D)`.
    context_t: Matrix,
    /// vᵀ in panels.
    values_t: *mut f32,
}

/// A matrix whose rows are `row` numbers apart.
#[derive(Clone, Copy)]
struct Matrix {
    at: *mut f32,
    row: usize,
}

impl Matrix {
    fn left(self) -> Left {
        Left::rows(self.at, self.row)
    }

    fn right(self) -> Panels {
        Panels::rows(self.at, self.row)
    }
}

/// Returns the length of the scratch memory for one image with `queries` and `keys` positions and `[q and k, v]`
/// channels.
pub(super) fn scratch_len(queries: usize, keys: usize, channels: [usize; 2], heads: usize) -> usize {
    let [d, v] = channels.map(|c| c / heads);
    layout(queries, keys, d, v).iter().map(|(rows, row)| rows * row).sum()
}

/// Returns the number of rows and the padded row length of each matrix of [`ScratchMatrices`].
fn layout(queries: usize, keys: usize, d: usize, v: usize) -> [(usize, usize); 8] {
    let padded = |n: usize| n.next_multiple_of(PANEL);
    let (q, k, c) = ((queries, padded(d)), (d, padded(keys)), (d, padded(v)));
    [q, k, c, q, k, c, (v, padded(d)), (padded(keys), v)]
}

/// Divides the scratch memory into matrices.
unsafe fn scratch_matrices(a: &ImageAttention) -> ScratchMatrices {
    let [d, v] = [a.q.channels(), a.v.channels()].map(|c| c / a.heads);
    let mut at = a.scratch;
    let [queries, keys, context, d_queries, d_keys, d_context, context_t, values_t] =
        layout(a.q.rows(), a.k.rows(), d, v).map(|(rows, row)| {
            let matrix = Matrix { at, row };
            // SAFETY: the scratch memory holds all matrices.
            at = unsafe { at.add(rows * row) };
            matrix
        });
    ScratchMatrices { queries, keys, context, d_queries, d_keys, d_context, context_t, values_t: values_t.at }
}

/// Computes Q, Kᵀ and C of one head.
unsafe fn compute_factors(isa: Isa, p: &ScratchMatrices, q: &View, k: &View, v: &View) {
    // SAFETY: upheld by the caller.
    unsafe {
        for row in 0..q.rows() {
            std::ptr::copy_nonoverlapping(
                q.at.add(row * q.stride),
                p.queries.at.add(row * p.queries.row),
                q.channels(),
            );
        }
        softmax(isa, p.queries.at, q.rows(), q.channels(), 1.0);
        for row in 0..k.rows() {
            for c in 0..k.channels() {
                *p.keys.at.add(c * p.keys.row + row) = *k.at.add(row * k.stride + c);
            }
        }
        softmax(isa, p.keys.at, k.channels(), k.rows(), 1.0);
        let sums = Gemm {
            m: k.channels(),
            n: v.channels(),
            k: k.rows(),
            a: p.keys.left(),
            b: v.right(),
            c: p.context.right(),
            init: SumInit::Zero,
        };
        gemm(isa, &sums);
    }
}

/// Computes the output `y`.
///
/// # Safety
///
/// The views are of one image each, with matching shapes; `y` overlaps none of them.
pub(super) unsafe fn forward(isa: Isa, a: &ImageAttention, y: &View) {
    for head in 0..a.heads {
        let [q, k, v, y] = [&a.q, &a.k, &a.v, y].map(|view| head_slice(view, a.heads, head));
        // SAFETY: upheld by the caller.
        unsafe {
            let p = scratch_matrices(a);
            compute_factors(isa, &p, &q, &k, &v);
            let product = Gemm {
                m: q.rows(),
                n: v.channels(),
                k: q.channels(),
                a: p.queries.left(),
                b: p.context.right(),
                c: y.right(),
                init: SumInit::Zero,
            };
            gemm(isa, &product);
        }
    }
}

/// Computes the gradients of q, k and v.
///
/// # Safety
///
/// As for [`forward`]; the targets have the shapes of q, k and v, and overlap nothing but each other.
pub(super) unsafe fn backward(isa: Isa, a: &ImageAttention, dy: &View, [dq, dk, dv]: [GradientTarget; 3]) {
    for head in 0..a.heads {
        let part = |view: &View| head_slice(view, a.heads, head);
        let (q, k, v, dy) = (part(&a.q), part(&a.k), part(&a.v), part(dy));
        let (d, channels) = (q.channels(), v.channels());
        // SAFETY: upheld by the caller.
        unsafe {
            let p = scratch_matrices(a);
            compute_factors(isa, &p, &q, &k, &v);
            for c in 0..channels {
                for i in 0..p.context_t.row {
                    let value = if i < d { *p.context.at.add(i * p.context.row + c) } else { 0.0 };
                    *p.context_t.at.add(c * p.context_t.row + i) = value;
                }
            }
            let d_context = Gemm {
                m: d,
                n: channels,
                k: q.rows(),
                a: p.queries.left().transposed(),
                b: dy.right(),
                c: p.d_context.right(),
                init: SumInit::Zero,
            };
            gemm(isa, &d_context);
            if let Some((dq, accumulate)) = dq {
                let d_queries = Gemm {
                    m: q.rows(),
                    n: p.d_queries.row,
                    k: channels,
                    a: dy.left(),
                    b: p.context_t.right(),
                    c: p.d_queries.right(),
                    init: SumInit::Zero,
                };
                gemm(isa, &d_queries);
                softmax_backward(isa, p.queries.at, p.d_queries.at, q.rows(), d, 1.0);
                let shape = Shape::new(1, q.rows(), d);
                let from = View { at: p.d_queries.at, stride: p.d_queries.row, images: 1, shape };
                pointwise::scale(isa, &from, 1.0, &part(&dq).pixels(0, q.rows()), accumulate);
            }
            if let Some((dk, accumulate)) = dk {
                pack_transposed(&v, 1.0, p.values_t);
                let d_keys = Gemm {
                    m: d,
                    n: p.d_keys.row,
                    k: channels,
                    a: p.d_context.left(),
                    b: Panels::packed(p.values_t, channels),
                    c: p.d_keys.right(),
                    init: SumInit::Zero,
                };
                gemm(isa, &d_keys);
                softmax_backward(isa, p.keys.at, p.d_keys.at, d, k.rows(), 1.0);
                unpack_transposed(p.d_keys.at, p.d_keys.row, &part(&dk), accumulate);
            }
            if let Some((dv, accumulate)) = dv {
                let dv = part(&dv);
                let d_values = Gemm {
                    m: k.rows(),
                    n: channels,
                    k: d,
                    a: p.keys.left().transposed(),
                    b: p.d_context.right(),
                    c: dv.right(),
                    init: SumInit::accumulating(accumulate),
                };
                gemm(isa, &d_values);
            }
        }
    }
}
