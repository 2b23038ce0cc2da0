//! The reverse diffusion process, from pure noise to a clean image.
//!
//! One loop serves all methods. They differ in how they compute the next x from x_t and the predicted clean image x̂_0.
//! The predicted noise is always derived from x̂_0, so it stays consistent with an x̂_0 that the denoiser has clamped.

use super::{Schedule, half_log_snr};
use crate::config::{SamplerMethod, SamplerParams, Spacing};

/// The minimum half log-SNR of the times that second-order methods visit. They are unstable at times that are almost
/// pure noise, as in the cosine and sigmoid schedules (Lu et al. 2022, appendix; diffusers' `lambda_min_clipped`).
const MIN_HALF_LOG_SNR: f64 = -5.1;

/// One step of a chain: its time, and ᾱ before and after the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub t: usize,
    pub alpha_bar: f64,
    /// 1 for the last step, after which the image is clean.
    pub alpha_bar_next: f64,
}

/// Returns the times of a chain of `steps` steps, the noisiest first. `steps` is at most `timesteps`.
pub fn times(spacing: Spacing, timesteps: usize, steps: usize) -> Vec<usize> {
    match spacing {
        // The i-th stride from the end, rounded: 999, 959, …, 39 for 25 of 1000.
        Spacing::Trailing => (0..steps).map(|i| (2 * timesteps * (steps - i) + steps) / (2 * steps) - 1).collect(),
        Spacing::Leading => (0..steps).rev().map(|i| i * (timesteps / steps)).collect(),
    }
}

/// Returns the steps of a chain from pure noise to the clean image.
pub fn steps(schedule: &Schedule, params: &SamplerParams) -> Vec<Step> {
    let visited = match params.method {
        SamplerMethod::Dpmpp2m | SamplerMethod::Heun => schedule.times_above(MIN_HALF_LOG_SNR).max(1),
        SamplerMethod::Ddim | SamplerMethod::Ddpm => schedule.timesteps(),
    };
    let times = times(params.spacing, visited, params.steps.min(visited));
    let next = |i: usize| times.get(i + 1).map_or(1.0, |&t| schedule.alpha_bar(t));
    let step = |(i, &t): (usize, &usize)| Step { t, alpha_bar: schedule.alpha_bar(t), alpha_bar_next: next(i) };
    times.iter().enumerate().map(step).collect()
}

/// Returns how often a chain of `steps` steps evaluates the network.
pub fn evaluations(method: SamplerMethod, steps: usize) -> usize {
    match method {
        SamplerMethod::Ddpm | SamplerMethod::Ddim | SamplerMethod::Dpmpp2m => steps,
        // The last step is first-order.
        SamplerMethod::Heun => (2 * steps).saturating_sub(1),
    }
}

/// Runs `steps` of the reverse process on `x`, which starts as standard normal noise and ends as the clean image.
///
/// `denoise(x, step)` returns x̂_0 for every value of `x`. `noise(step)` returns the standard normal noise to add in a
/// step; it is called only if the method adds noise.
pub fn sample<E>(
    params: &SamplerParams,
    steps: &[Step],
    x: &mut [f64],
    mut denoise: impl FnMut(&[f64], Step) -> Result<Vec<f64>, E>,
    mut noise: impl FnMut(Step) -> Vec<f64>,
) -> Result<(), E> {
    let mut multistep = Multistep::default();
    for (i, &step) in steps.iter().enumerate() {
        let x0 = denoise(x, step)?;
        let update = match params.method {
            SamplerMethod::Ddim => ddim(step, params.eta),
            SamplerMethod::Ddpm => ddpm(step),
            SamplerMethod::Dpmpp2m => dpmpp(step),
            SamplerMethod::Heun => ddim(step, 0.0),
        };
        let Update { clean, current, deviation } = update;
        let x0 = if params.method == SamplerMethod::Dpmpp2m { multistep.extrapolate(step, x0) } else { x0 };
        let before = (params.method == SamplerMethod::Heun).then(|| x.to_vec());
        for (x, x0) in x.iter_mut().zip(&x0) {
            *x = clean * x0 + current * *x;
        }
        if let (Some(before), Some(&next)) = (before, steps.get(i + 1)) {
            let x0_next = denoise(x, next)?;
            heun(step, x, &before, &x0, &x0_next);
        }
        if deviation > 0.0 {
            for (x, z) in x.iter_mut().zip(noise(step)) {
                *x += deviation * z;
            }
        }
    }
    Ok(())
}

/// The coefficients of a step: the next x is `clean · x̂_0 + current · x + deviation · z`, with z standard normal.
pub(super) struct Update {
    pub(super) clean: f64,
    pub(super) current: f64,
    pub(super) deviation: f64,
}

/// Returns a step of DDIM (Song et al. 2021, eq. 12): √ᾱ' x̂_0 + √(1 − ᾱ' − σ²) ε̂ + σ z, with
/// ε̂ = (x − √ᾱ x̂_0) / √(1−ᾱ) and σ = η √((1−ᾱ')/(1−ᾱ)) √(1 − ᾱ/ᾱ').
pub(super) fn ddim(step: Step, eta: f64) -> Update {
    let (now, next) = (step.alpha_bar, step.alpha_bar_next);
    let deviation = eta * ((1.0 - next) / (1.0 - now)).sqrt() * (1.0 - now / next).sqrt();
    let direction = (1.0 - next - deviation * deviation).max(0.0).sqrt() / (1.0 - now).sqrt();
    Update { clean: next.sqrt() - direction * now.sqrt(), current: direction, deviation }
}

/// Corrects the Euler step from `before` to `x` to second order (Karras et al. 2022, algorithm 1).
///
/// With x̃ = x/√ᾱ and σ = √(1−ᾱ)/√ᾱ, x̃' = x̃ + (σ'−σ) (d + d')/2, d = (x̃ − x̂_0)/σ. The Euler step is [`ddim`] with
/// η = 0.
fn heun(step: Step, x: &mut [f64], before: &[f64], x0: &[f64], x0_next: &[f64]) {
    let scale = |alpha_bar: f64| (alpha_bar.sqrt(), ((1.0 - alpha_bar) / alpha_bar).sqrt());
    let ((alpha, sigma), (alpha_next, sigma_next)) = (scale(step.alpha_bar), scale(step.alpha_bar_next));
    for (((x, before), x0), x0_next) in x.iter_mut().zip(before).zip(x0).zip(x0_next) {
        let slope = (before / alpha - x0) / sigma;
        let slope_next = (*x / alpha_next - x0_next) / sigma_next;
        *x = alpha_next * (before / alpha + (sigma_next - sigma) * 0.5 * (slope + slope_next));
    }
}

/// Returns a step of DDPM (Ho et al. 2020, eq. 7), with σ² = β̃, the posterior variance. α is the ratio of the ᾱ of two
/// consecutive visited times.
pub(super) fn ddpm(step: Step) -> Update {
    let (now, next) = (step.alpha_bar, step.alpha_bar_next);
    let alpha = now / next;
    Update {
        clean: (1.0 - alpha) * next.sqrt() / (1.0 - now),
        current: (1.0 - next) * alpha.sqrt() / (1.0 - now),
        deviation: ((1.0 - alpha) * (1.0 - next) / (1.0 - now)).sqrt(),
    }
}

/// Returns a first-order step of DPM-Solver++, which solves the ODE in λ = ln(√ᾱ/√(1−ᾱ)) (Lu et al. 2022, eq. 8):
/// σ'/σ x − √ᾱ' (e^(−h) − 1) x̂_0, where h is the step in λ.
fn dpmpp(step: Step) -> Update {
    let (now, next) = (step.alpha_bar, step.alpha_bar_next);
    // λ is infinite for a clean image.
    let h = if next < 1.0 { half_log_snr(next) - half_log_snr(now) } else { f64::INFINITY };
    Update { clean: -next.sqrt() * (-h).exp_m1(), current: (1.0 - next).sqrt() / (1.0 - now).sqrt(), deviation: 0.0 }
}

/// The state that DPM-Solver++(2M) keeps from the previous step.
#[derive(Default)]
struct Multistep {
    /// x̂_0 of the previous step, and its step in λ.
    last: Option<(Vec<f64>, f64)>,
}

impl Multistep {
    /// Extrapolates x̂_0 by half a step: (1 + 1/2r) x̂_0 − 1/2r x̂_0', 1/r = h/h', where ' denotes the previous step.
    /// The last step is always first-order: its h is infinite, and with few steps it would be unstable anyway.
    fn extrapolate(&mut self, step: Step, x0: Vec<f64>) -> Vec<f64> {
        if step.alpha_bar_next >= 1.0 {
            return x0;
        }
        let h = half_log_snr(step.alpha_bar_next) - half_log_snr(step.alpha_bar);
        let extrapolated = match &self.last {
            None => x0.clone(),
            Some((last, last_h)) => {
                let half = h / last_h / 2.0;
                x0.iter().zip(last).map(|(x0, last)| (1.0 + half) * x0 - half * last).collect()
            }
        };
        self.last = Some((x0, h));
        extrapolated
    }
}
