//! Measures the peak arithmetic rate of this machine, with which the speed of kernels is compared.

use std::time::{Duration, Instant};

use super::simd::{Isa, kernel};

/// The number of independent chains of multiply-adds: more than the latency times the number of units of any core.
const CHAINS: usize = 12;
/// The number of multiply-adds per chain in one trial.
const ROUNDS: usize = 100_000;

kernel! {
    /// Computes `rounds` multiply-adds in each chain. Sets `flops` to the number of operations, and adds a sum to
    /// `result`, so that the compiler cannot omit them.
    ///
    /// # Safety
    ///
    /// Accesses only its arguments.
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

/// Returns the number of floating-point operations per second that all threads of the pool achieve together, with
/// multiply-adds in registers: the sum over the threads of the best of several trials. All threads run at the same
/// time.
///
/// Panics if this machine does not support the instruction set.
pub fn peak_flops(isa: Isa) -> f64 {
    assert!(isa.is_available(), "this machine does not support {}", isa.name());
    rayon::broadcast(|_| peak_of_this_thread(isa)).into_iter().sum()
}

fn peak_of_this_thread(isa: Isa) -> f64 {
    let mut best = 0.0f64;
    let end = Instant::now() + Duration::from_millis(50);
    while Instant::now() < end {
        let (mut flops, mut result) = (0.0, 0.0);
        let start = Instant::now();
        // SAFETY: accesses only its arguments; the machine supports the instruction set.
        unsafe { chains(isa, ROUNDS, &mut flops, &mut result) };
        std::hint::black_box(result);
        best = best.max(flops / start.elapsed().as_secs_f64());
    }
    best
}
