//! Gradient clipping, AdamW and the moving average, on the device; only the norm of the gradients is copied to the
//! host.

use anyhow::Result;
use dfdx::prelude::*;

use crate::nn::{Device, DeviceState, Gradients, StepSettings, device_error};

/// Implements [`Backend::update`](crate::nn::Backend::update).
pub(super) fn update<D: Device>(
    state: &mut DeviceState<D>,
    mut gradients: Gradients<D>,
    s: &StepSettings,
) -> Result<f32> {
    for p in &state.params {
        gradients.try_alloc_for(p).map_err(device_error)?;
    }
    let gradients: Vec<_> = state.params.iter().map(|p| gradients.get(p)).collect();
    let squares = gradients.iter().map(|g| g.clone().square().sum::<Rank0, _>());
    let norm = squares.reduce(|sum, square| sum + square).map_or(0.0, |sum| f64::from(sum.as_vec()[0]).sqrt());
    let clip = s.clip.map_or(1.0, |clip| if norm > clip { clip / norm } else { 1.0 });
    state.step += 1;
    let correct = |beta: f64| 1.0 - beta.powi(state.step as i32);
    for (i, g) in gradients.into_iter().enumerate() {
        let (p, m, v) = (&mut state.params[i], &mut state.first_moment[i], &mut state.second_moment[i]);
        m.try_axpy(s.betas[0], &g, clip * (1.0 - s.betas[0])).map_err(device_error)?;
        v.try_axpy(s.betas[1], &g.square(), clip * clip * (1.0 - s.betas[1])).map_err(device_error)?;
        let denominator = (v.clone() / correct(s.betas[1]) as f32).sqrt() + s.eps as f32;
        let decay_factor = 1.0 - s.lr * s.weight_decay;
        p.try_axpy(decay_factor, &(m.clone() / denominator), -s.lr / correct(s.betas[0])).map_err(device_error)?;
        state.ema[i].try_axpy(s.ema_decay, p, 1.0 - s.ema_decay).map_err(device_error)?;
    }
    Ok(norm as f32)
}
