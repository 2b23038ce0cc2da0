//! Sums over rows, in an order that does not depend on the vector width.

use super::simd::{Simd, for_lanes, kernel};
use super::view::View;

/// The number of interleaved chains in a sum over rows: several, so that an addition need not wait for the previous
/// one.
pub const PHASES: usize = 4;

/// Runs a block for every row. `$phase` is the row's index modulo [`PHASES`], a constant in unrolled code.
macro_rules! for_phases {
    ($rows:expr, |$row:ident, $phase:ident| $body:block) => {
        let rows: usize = $rows;
        let mut start = 0;
        while start + $crate::nn::fused::reduce::PHASES <= rows {
            for $phase in 0..$crate::nn::fused::reduce::PHASES {
                let $row = start + $phase;
                $body
            }
            start += $crate::nn::fused::reduce::PHASES;
        }
        for $phase in 0..$crate::nn::fused::reduce::PHASES {
            if start + $phase < rows {
                let $row = start + $phase;
                $body
            }
        }
    };
}
pub(in crate::nn) use for_phases;

kernel! {
    /// Computes `sums[c] += Σ x[.., c]`.
    ///
    /// # Safety
    ///
    /// The view is valid for reads, and `sums` for writing one number per channel.
    pub(in crate::nn) unsafe fn column_sums<S>(x: &View, sums: *mut f32) {
        for_lanes!(S, x.channels(), |c, lanes| {
            let mut sum = [S::splat(0.0); PHASES];
            let from = x.at.add(c);
            for_phases!(x.rows(), |row, phase| {
                sum[phase] = S::add(sum[phase], lanes.load(from.add(row * x.stride)));
            });
            let at = sums.add(c);
            lanes.store(at, S::add(lanes.load(at), total::<S>(sum)));
        });
    }
}

/// Returns the sum of the phases.
///
/// # Safety
///
/// The instruction set of `S` is enabled.
#[inline(always)]
pub unsafe fn total<S: Simd>(sums: [S::V; PHASES]) -> S::V {
    // SAFETY: upheld by the caller.
    unsafe { S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])) }
}
