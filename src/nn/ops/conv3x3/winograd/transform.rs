//! The one-dimensional transforms of F(4, 3), at the points 0, ±5/8, ±3/2 and ∞.

use crate::nn::fused::simd::Simd;

const A: f32 = 0.625;
const B: f32 = 1.5;
const AA: f32 = A * A;
const BB: f32 = B * B;

/// Computes Bᵀ d.
#[inline(always)]
pub(super) unsafe fn products_from_input<S: Simd>(d: [S::V; 6]) -> [S::V; 6] {
    // SAFETY: upheld by the caller.
    unsafe {
        let both = S::splat(-(AA + BB));
        let product = S::splat(AA * BB);
        let (a, b, minus_a, minus_b) = (S::splat(A), S::splat(B), S::splat(-A), S::splat(-B));
        let (minus_aa, minus_bb) = (S::splat(-AA), S::splat(-BB));
        let even_a = S::fma(minus_bb, d[2], d[4]);
        let odd_a = S::fma(minus_bb, d[1], d[3]);
        let even_b = S::fma(minus_aa, d[2], d[4]);
        let odd_b = S::fma(minus_aa, d[1], d[3]);
        [
            S::fma(product, d[0], S::fma(both, d[2], d[4])),
            S::fma(a, odd_a, even_a),
            S::fma(minus_a, odd_a, even_a),
            S::fma(b, odd_b, even_b),
            S::fma(minus_b, odd_b, even_b),
            S::fma(product, d[1], S::fma(both, d[3], d[5])),
        ]
    }
}

/// Computes Aᵀ m.
#[inline(always)]
pub(super) unsafe fn output_from_products<S: Simd>(m: [S::V; 6]) -> [S::V; 4] {
    // SAFETY: upheld by the caller.
    unsafe {
        let (sum_a, difference_a) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (sum_b, difference_b) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(S::add(m[0], sum_a), sum_b),
            S::fma(S::splat(A), difference_a, S::mul(S::splat(B), difference_b)),
            S::fma(S::splat(AA), sum_a, S::mul(S::splat(BB), sum_b)),
            S::fma(S::splat(A * AA), difference_a, S::fma(S::splat(B * BB), difference_b, m[5])),
        ]
    }
}

/// Computes A y.
#[inline(always)]
pub(super) unsafe fn products_from_output<S: Simd>(y: [S::V; 4]) -> [S::V; 6] {
    // SAFETY: upheld by the caller.
    unsafe {
        let (aa, bb) = (S::splat(AA), S::splat(BB));
        let even_a = S::fma(aa, y[2], y[0]);
        let odd_a = S::fma(aa, y[3], y[1]);
        let even_b = S::fma(bb, y[2], y[0]);
        let odd_b = S::fma(bb, y[3], y[1]);
        [
            y[0],
            S::fma(S::splat(A), odd_a, even_a),
            S::fma(S::splat(-A), odd_a, even_a),
            S::fma(S::splat(B), odd_b, even_b),
            S::fma(S::splat(-B), odd_b, even_b),
            y[3],
        ]
    }
}

/// The factors of the rows of G for the points p = 0, ±A and ±B: 1 / Π (p − q) over the other finite points q.
const AT_ZERO: f32 = 1.0 / (AA * BB);
const AT_A: f32 = 1.0 / (2.0 * AA * (AA - BB));
const AT_B: f32 = 1.0 / (2.0 * BB * (BB - AA));

/// Computes G g.
#[inline(always)]
pub(super) unsafe fn products_from_filter<S: Simd>(g: [S::V; 3]) -> [S::V; 6] {
    // SAFETY: upheld by the caller.
    unsafe {
        let even_a = S::fma(S::splat(AT_A * AA), g[2], S::mul(S::splat(AT_A), g[0]));
        let even_b = S::fma(S::splat(AT_B * BB), g[2], S::mul(S::splat(AT_B), g[0]));
        [
            S::mul(S::splat(AT_ZERO), g[0]),
            S::fma(S::splat(AT_A * A), g[1], even_a),
            S::fma(S::splat(-AT_A * A), g[1], even_a),
            S::fma(S::splat(AT_B * B), g[1], even_b),
            S::fma(S::splat(-AT_B * B), g[1], even_b),
            g[2],
        ]
    }
}

/// Computes Gᵀ u.
#[inline(always)]
pub(super) unsafe fn filter_from_products<S: Simd>(u: [S::V; 6]) -> [S::V; 3] {
    // SAFETY: upheld by the caller.
    unsafe {
        let (sum_a, difference_a) = (S::add(u[1], u[2]), S::sub(u[1], u[2]));
        let (sum_b, difference_b) = (S::add(u[3], u[4]), S::sub(u[3], u[4]));
        let ends = S::mul(S::splat(AT_ZERO), u[0]);
        [
            S::fma(S::splat(AT_A), sum_a, S::fma(S::splat(AT_B), sum_b, ends)),
            S::fma(S::splat(AT_A * A), difference_a, S::mul(S::splat(AT_B * B), difference_b)),
            S::fma(S::splat(AT_A * AA), sum_a, S::fma(S::splat(AT_B * BB), sum_b, u[5])),
        ]
    }
}
