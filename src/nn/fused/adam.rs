//! Gradient clipping, AdamW and the moving average in one pass over the parameters.

use anyhow::Result;
use dfdx::prelude::*;
use rayon::prelude::*;

use super::simd::{Isa, PANEL, for_lanes, kernel};
use super::workspace::BufferPool;
use crate::nn::{DeviceState, Gradients, StepSettings, VectorTensor, device_error};

/// The number of squares that are summed in f32; the sums of these blocks are added in f64.
const BLOCK: usize = 4096;

/// The constants of one step, computed in f64 and rounded once.
#[derive(Clone, Copy)]
struct Constants {
    clip: f32,
    beta: [f32; 2],
    one_minus_beta: [f32; 2],
    /// The learning rate divided by the first moment's bias correction.
    rate: f32,
    /// The second moment's bias correction.
    correction: f32,
    /// The factor of weight decay: 1 − lr · weight_decay.
    decay_factor: f32,
    eps: f32,
    ema_decay: f32,
    ema_gain: f32,
}

/// Implements [`Backend::update`](crate::nn::Backend::update).
pub(super) fn update(
    isa: Isa,
    buffers: &BufferPool,
    state: &mut DeviceState<Cpu>,
    mut gradients: Gradients<Cpu>,
    s: &StepSettings,
) -> Result<f32> {
    let mut taken: Vec<Vec<f32>> = Vec::with_capacity(state.params.len());
    for p in &state.params {
        taken.push(std::mem::take(&mut **gradients.get_or_alloc_mut(p).map_err(device_error)?));
    }
    let squares: Vec<f64> = taken.par_iter().with_max_len(1).map(|g| sum_of_squares(isa, g)).collect();
    let norm = squares.iter().sum::<f64>().sqrt();
    let clip = s.clip.map_or(1.0, |clip| if norm > clip { clip / norm } else { 1.0 });
    state.step += 1;
    let correct = |beta: f64| 1.0 - beta.powi(state.step as i32);
    let constants = Constants {
        clip: clip as f32,
        beta: s.betas.map(|b| b as f32),
        one_minus_beta: s.betas.map(|b| (1.0 - b) as f32),
        rate: (s.lr / correct(s.betas[0])) as f32,
        correction: correct(s.betas[1]) as f32,
        decay_factor: (1.0 - s.lr * s.weight_decay) as f32,
        eps: s.eps as f32,
        ema_decay: s.ema_decay as f32,
        ema_gain: (1.0 - s.ema_decay) as f32,
    };
    let moments = state.first_moment.par_iter_mut().zip(&mut state.second_moment);
    let values = state.params.par_iter_mut().zip(&mut state.ema);
    values.zip(moments).zip(&taken).with_max_len(1).for_each(|(((p, ema), (m, v)), g)| {
        let mut buffer = buffers.acquire(4 * g.len());
        step(isa, &constants, g, [p, m, v, ema], &mut buffer);
        buffers.release(buffer);
    });
    for (p, g) in state.params.iter().zip(taken) {
        **gradients.get_or_alloc_mut(p).map_err(device_error)? = g;
    }
    Ok(norm as f32)
}

/// Updates one parameter. dfdx does not expose the memory of a tensor, so the values are copied out and back.
fn step(isa: Isa, c: &Constants, g: &[f32], tensors: [&mut VectorTensor<Cpu>; 4], buffer: &mut [f32]) {
    let n = g.len();
    for (t, to) in tensors.iter().zip(buffer.chunks_exact_mut(n)) {
        t.copy_into(to);
    }
    let (p, rest) = buffer.split_at_mut(n);
    let (m, rest) = rest.split_at_mut(n);
    let (v, ema) = rest.split_at_mut(n);
    let pointers = [p.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr(), ema.as_mut_ptr()];
    // SAFETY: five disjoint slices of n numbers.
    unsafe { adam(isa, c, g.as_ptr(), pointers, n) };
    for (t, from) in tensors.into_iter().zip(buffer.chunks_exact(n)) {
        t.copy_from(from);
    }
}

kernel! {
    /// Updates the weights, Adam's two moments and the moving average (in this order in `lists`) for the gradient `g`.
    ///
    /// # Safety
    ///
    /// All lists have `n` numbers and don't overlap.
    unsafe fn adam<S>(c: &Constants, g: *const f32, lists: [*mut f32; 4], n: usize) {
        let [p, m, v, ema] = lists;
        for_lanes!(S, n, |i, lanes| {
            let at = |list: *mut f32| list.add(i);
            let g = S::mul(lanes.load(g.add(i)), S::splat(c.clip));
            let first = S::mul(lanes.load(at(m)), S::splat(c.beta[0]));
            let first = S::fma(g, S::splat(c.one_minus_beta[0]), first);
            let second = S::mul(lanes.load(at(v)), S::splat(c.beta[1]));
            let second = S::fma(S::mul(g, g), S::splat(c.one_minus_beta[1]), second);
            let deviation = S::sqrt(S::div(second, S::splat(c.correction)));
            let change = S::div(S::mul(first, S::splat(c.rate)), S::add(deviation, S::splat(c.eps)));
            let value = S::sub(S::mul(lanes.load(at(p)), S::splat(c.decay_factor)), change);
            let average = S::mul(lanes.load(at(ema)), S::splat(c.ema_decay));
            lanes.store(at(m), first);
            lanes.store(at(v), second);
            lanes.store(at(p), value);
            lanes.store(at(ema), S::fma(value, S::splat(c.ema_gain), average));
        });
    }
}

kernel! {
    /// Adds the squares of `values` to 16 interleaved sums.
    ///
    /// # Safety
    ///
    /// `values` has `n` numbers.
    unsafe fn squares<S>(values: *const f32, n: usize, sums: &mut [f32; PANEL]) {
        let mut i = 0;
        while i < n {
            let v = S::load_masked(values.add(i), S::mask(n - i));
            let sum = sums.as_mut_ptr().add(i % PANEL);
            S::store(sum, S::fma(v, v, S::load(sum)));
            i += S::LANES;
        }
    }
}

fn sum_of_squares(isa: Isa, values: &[f32]) -> f64 {
    let block = |block: &[f32]| {
        let mut sums = [0.0; PANEL];
        // SAFETY: the length is that of the block.
        unsafe { squares(isa, block.as_ptr(), block.len(), &mut sums) };
        sums.into_iter().map(f64::from).sum::<f64>()
    };
    values.chunks(BLOCK).map(block).sum()
}
