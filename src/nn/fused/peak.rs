//! The arithmetic that the machine can do: what every kernel is measured against.

use std::time::{Duration, Instant};

use super::simd::{Isa, kernel};

/// Chains of multiply-adds that don't wait for each other: more than any core's latency times its units.
const CHAINS: usize = 12;
const ROUNDS: usize = 100_000;

kernel! {
    /// `rounds` multiply-adds in each of the chains; the lanes of their sum's first.
    unsafe fn chains<S>(rounds: usize, flops: &mut f64, result: &mut f32) {
        let factor = S::splat(std::hint::black_box(0.5));
        let mut sums = [S::splat(1.0); CHAINS];
        for _ in 0..rounds {
            for chain in 0..CHAINS {
                sums[chain] = S::fma(sums[chain], factor, factor);
            }
        }
        let mut lanes = [0.0f32; 16];
        for chain in 0..CHAINS {
            S::store(lanes.as_mut_ptr(), sums[chain]);
            *result += lanes[0];
        }
        *flops = (2 * S::LANES * CHAINS * rounds) as f64;
    }
}

/// Floating-point operations a second that the current threads do together with an instruction set, of multiply-adds in
/// registers: the sum over the threads of the best of a few milliseconds' trials, all at once.
///
/// Panics if the machine lacks the instruction set.
pub fn peak_flops(isa: Isa) -> f64 {
    assert!(isa.is_available(), "this machine has no {}", isa.name());
    rayon::broadcast(|_| of_this_thread(isa)).into_iter().sum()
}

fn of_this_thread(isa: Isa) -> f64 {
    let mut best = 0.0f64;
    let end = Instant::now() + Duration::from_millis(50);
    while Instant::now() < end {
        let (mut flops, mut result) = (0.0, 0.0);
        let start = Instant::now();
        // SAFETY: touches nothing but its arguments; the machine has the isa.
        unsafe { chains(isa, ROUNDS, &mut flops, &mut result) };
        std::hint::black_box(result);
        best = best.max(flops / start.elapsed().as_secs_f64());
    }
    best
}
