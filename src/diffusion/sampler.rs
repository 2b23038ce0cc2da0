//! The reverse process: from noise to an image, one time after another.
//!
//! One loop; the methods differ in how they step from x_t and the clean image x̂_0 that the denoiser sees in it to the
//! next, less noisy x. Noise is always re-derived from x̂_0, so that a denoiser which clamps x̂_0 stays consistent.

use super::Schedule;
use crate::pipeline::params::{SamplerMethod, SamplerParams, Spacing};

/// One step of a chain: its time and how much of the image is left now and after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub t: usize,
    pub alpha_bar: f64,
    /// 1 after the last step: the image is clean.
    pub alpha_bar_next: f64,
}

/// The times that `steps` evaluations visit of `timesteps`, the noisiest first. `steps` is at most `timesteps`.
pub fn times(spacing: Spacing, timesteps: usize, steps: usize) -> Vec<usize> {
    match spacing {
        // The i-th stride from the end, rounded: 999, 959, .. 39 for 25 of 1000.
        Spacing::Trailing => (0..steps).map(|i| (2 * timesteps * (steps - i) + steps) / (2 * steps) - 1).collect(),
        Spacing::Leading => (0..steps).rev().map(|i| i * (timesteps / steps)).collect(),
    }
}

/// The steps of a chain from pure noise to the clean image.
pub fn steps(schedule: &Schedule, params: &SamplerParams) -> Vec<Step> {
    let times = times(params.spacing, schedule.timesteps(), params.steps);
    let next = |i: usize| times.get(i + 1).map_or(1.0, |&t| schedule.alpha_bar(t));
    let step = |(i, &t): (usize, &usize)| Step { t, alpha_bar: schedule.alpha_bar(t), alpha_bar_next: next(i) };
    times.iter().enumerate().map(step).collect()
}

/// Runs `steps` of the reverse process on `x`, which starts as standard normal noise and ends as the clean image.
///
/// `denoise(x, step)` gives x̂_0 for every value of `x`; `noise(step)` the standard normal noise that a step adds, and
/// is asked only where a method adds any.
pub fn sample<E>(
    params: &SamplerParams,
    steps: &[Step],
    x: &mut [f64],
    mut denoise: impl FnMut(&[f64], Step) -> Result<Vec<f64>, E>,
    mut noise: impl FnMut(Step) -> Vec<f64>,
) -> Result<(), E> {
    for &step in steps {
        let x0 = denoise(x, step)?;
        let Update { clean, current, deviation } = match params.method {
            SamplerMethod::Ddim => ddim(step, params.eta),
            SamplerMethod::Ddpm => ddpm(step),
        };
        for (x, x0) in x.iter_mut().zip(&x0) {
            *x = clean * x0 + current * *x;
        }
        if deviation > 0.0 {
            for (x, z) in x.iter_mut().zip(noise(step)) {
                *x += deviation * z;
            }
        }
    }
    Ok(())
}

/// The next x as `clean · x̂_0 + current · x + deviation · z`, z standard normal.
struct Update {
    clean: f64,
    current: f64,
    deviation: f64,
}

/// Song et al. 2021, eq. 12: √ᾱ' x̂_0 + √(1 − ᾱ' − σ²) ε̂ + σ z, with ε̂ = (x − √ᾱ x̂_0) / √(1−ᾱ) and
/// σ = η √((1−ᾱ')/(1−ᾱ)) √(1 − ᾱ/ᾱ').
fn ddim(step: Step, eta: f64) -> Update {
    let (now, next) = (step.alpha_bar, step.alpha_bar_next);
    let deviation = eta * ((1.0 - next) / (1.0 - now)).sqrt() * (1.0 - now / next).sqrt();
    let direction = (1.0 - next - deviation * deviation).max(0.0).sqrt() / (1.0 - now).sqrt();
    Update { clean: next.sqrt() - direction * now.sqrt(), current: direction, deviation }
}

/// Ho et al. 2020, eq. 7, with σ² = β̃, the posterior's variance; α is the ratio of two visited ᾱ.
fn ddpm(step: Step) -> Update {
    let (now, next) = (step.alpha_bar, step.alpha_bar_next);
    let alpha = now / next;
    Update {
        clean: (1.0 - alpha) * next.sqrt() / (1.0 - now),
        current: (1.0 - next) * alpha.sqrt() / (1.0 - now),
        deviation: ((1.0 - alpha) * (1.0 - next) / (1.0 - now)).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use std::convert::Infallible;

    #[test]
    fn spacings_visit_what_they_say() {
        assert_eq!(times(Spacing::Trailing, 1000, 4), [999, 749, 499, 249]);
        assert_eq!(times(Spacing::Leading, 1000, 4), [750, 500, 250, 0]);
        assert_eq!(times(Spacing::Trailing, 1000, 25), (0..25).map(|i| 999 - 40 * i).collect::<Vec<_>>());
        for spacing in [Spacing::Trailing, Spacing::Leading] {
            assert_eq!(times(spacing, 7, 7), [6, 5, 4, 3, 2, 1, 0]);
            for steps in 1..=100 {
                let times = times(spacing, 100, steps);
                assert!(times.len() == steps && times.windows(2).all(|w| w[1] < w[0]) && times[0] < 100);
            }
        }
    }

    #[test]
    fn eta_one_over_all_times_is_ddpm() {
        let schedule = Schedule::linear(1000, 1e-4, 0.02);
        for t in [1, 10, 500, 999] {
            let step = Step { t, alpha_bar: schedule.alpha_bar(t), alpha_bar_next: schedule.alpha_bar(t - 1) };
            let (a, b) = (ddim(step, 1.0), ddpm(step));
            for (a, b) in [(a.clean, b.clean), (a.current, b.current), (a.deviation, b.deviation)] {
                assert!((a - b).abs() < 1e-12, "{a} {b} at {t}");
            }
        }
    }

    /// For data N(m, s²) the best denoiser is known, so the chain must end with that mean and variance.
    #[test]
    fn the_exact_denoiser_of_a_gaussian_gives_the_gaussian() {
        let (mean, variance, n) = (0.4, 0.25, 40_000);
        let schedule = Schedule::cosine(1000);
        for (method, eta, steps) in
            [(SamplerMethod::Ddim, 0.0, 200), (SamplerMethod::Ddim, 1.0, 400), (SamplerMethod::Ddpm, 0.0, 400)]
        {
            let params = SamplerParams { method, eta, steps, spacing: Spacing::Trailing };
            let draw = |step: u64| {
                let mut rng = stream(1, Purpose::Chain, step, 0);
                (0..n).map(|_| rng.normal()).collect::<Vec<f64>>()
            };
            let mut x = draw(u64::MAX);
            let denoise = |x: &[f64], step: Step| {
                let (a, s2) = (step.alpha_bar.sqrt(), 1.0 - step.alpha_bar);
                let gain = a * variance / (step.alpha_bar * variance + s2);
                Ok::<_, Infallible>(x.iter().map(|x| mean + gain * (x - a * mean)).collect())
            };
            sample(&params, &super::steps(&schedule, &params), &mut x, denoise, |step| draw(step.t as u64)).unwrap();
            let m = x.iter().sum::<f64>() / n as f64;
            let v = x.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n as f64;
            // Five standard errors of the mean and of the variance, and what finitely many steps leave.
            assert!((m - mean).abs() < 0.0125 + 0.002, "{method:?} η {eta}: mean {m}");
            assert!((v - variance).abs() < 0.009 + 0.006, "{method:?} η {eta}: variance {v}");
        }
    }
}
