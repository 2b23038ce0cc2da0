//! Computes noise schedules: how much of the image remains at each timestep.
//!
//! They are here because the checks of a pipeline file need them; the module `diffusion` explains the formulas.

use std::f64::consts::FRAC_PI_2;

use super::{DiffusionParams, ScheduleKind};

/// The maximum beta of a step (Nichol and Dhariwal 2021, section 3.2).
const MAX_BETA: f64 = 0.999;

/// The minimum alpha-bar that a schedule may reach.
///
/// At this value the image has a factor of 1e-10 next to noise of standard deviation 1, below the resolution of float32
/// (6e-8), so every later timestep is pure noise. Below about 1e-308 alpha-bar underflows to 0, and the samplers, which
/// divide by it and by its square root, return NaN. The cosine and sigmoid schedules stay above 1e-13 for every number
/// of timesteps, because their last beta is clipped.
pub const MIN_ALPHA_BAR: f64 = 1e-20;

/// Computes the products alpha_bar(t) = ∏ (1 − beta(s)), s ≤ t, for t in 0..T.
pub fn alpha_bars(params: &DiffusionParams) -> Vec<f64> {
    let DiffusionParams { timesteps, beta_start, beta_end, .. } = *params;
    match params.schedule {
        ScheduleKind::Linear => linear(timesteps, beta_start, beta_end),
        ScheduleKind::Cosine => cosine(timesteps),
        ScheduleKind::Sigmoid => sigmoid(timesteps),
        ScheduleKind::Quadratic => quadratic(timesteps, beta_start, beta_end),
    }
}

/// Returns betas linear from `beta_start` to `beta_end` (Ho et al. 2020, section 4). They are specified for T = 1000
/// and scaled by 1000/T, so that the amount of the image that remains at the end does not depend on T.
fn linear(timesteps: usize, beta_start: f64, beta_end: f64) -> Vec<f64> {
    let scale = 1000.0 / timesteps as f64;
    let slope = (beta_end - beta_start) / (timesteps - 1).max(1) as f64;
    products((0..timesteps).map(|t| scale * (beta_start + slope * t as f64)))
}

/// Like [`linear`], but linear in the square roots of the betas (Song et al. 2021, appendix D.4).
fn quadratic(timesteps: usize, beta_start: f64, beta_end: f64) -> Vec<f64> {
    let scale = 1000.0 / timesteps as f64;
    let (first, last) = (beta_start.sqrt(), beta_end.sqrt());
    let slope = (last - first) / (timesteps - 1).max(1) as f64;
    products((0..timesteps).map(|t| scale * (first + slope * t as f64).powi(2)))
}

/// alpha_bar(t) = (σ(3) − σ(6t/T − 3)) / (σ(3) − σ(−3)), σ the logistic function (Chen 2023, algorithm 1, with start −3,
/// end 3 and temperature 1).
fn sigmoid(timesteps: usize) -> Vec<f64> {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let f = |t: usize| logistic(3.0) - logistic(6.0 * t as f64 / timesteps as f64 - 3.0);
    products((0..timesteps).map(|t| 1.0 - f(t + 1) / f(t)))
}

/// alpha_bar(t) = f(t) / f(0), f(t) = cos²((t/T + s) / (1 + s) · π/2), s = 0.008 (Nichol and Dhariwal 2021, eq. 17).
fn cosine(timesteps: usize) -> Vec<f64> {
    const S: f64 = 0.008;
    let f = |t: usize| ((t as f64 / timesteps as f64 + S) / (1.0 + S) * FRAC_PI_2).cos().powi(2);
    products((0..timesteps).map(|t| 1.0 - f(t + 1) / f(t)))
}

fn products(betas: impl Iterator<Item = f64>) -> Vec<f64> {
    let alpha_bar = betas.scan(1.0, |product, beta| {
        *product *= 1.0 - beta.min(MAX_BETA);
        Some(*product)
    });
    alpha_bar.collect()
}

/// Returns alpha-bar at the last timestep, its minimum.
pub fn last_alpha_bar(params: &DiffusionParams) -> f64 {
    alpha_bars(params).last().copied().unwrap_or(1.0)
}

/// Returns the largest `beta_end`, rounded down to three digits, for which the schedule stays at or above
/// [`MIN_ALPHA_BAR`]; `None` if even `beta_end` = `beta_start` is too large.
pub fn largest_beta_end(params: &DiffusionParams) -> Option<f64> {
    let is_valid = |beta_end: f64| {
        beta_end >= params.beta_start
            && last_alpha_bar(&DiffusionParams { beta_end, ..params.clone() }) >= MIN_ALPHA_BAR
    };
    let (mut low, mut high) = (params.beta_start, params.beta_end);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if is_valid(middle) { low = middle } else { high = middle }
    }
    let digit = 10f64.powf(low.log10().floor() - 2.0);
    // Format and parse, so that the number equals the one that a message shows.
    let rounded: f64 = format!("{:.3e}", (low / digit).floor() * digit).parse().ok()?;
    is_valid(rounded).then_some(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(schedule: ScheduleKind, timesteps: usize) -> DiffusionParams {
        DiffusionParams { schedule, timesteps, ..Default::default() }
    }

    #[test]
    fn clipped_schedules_are_valid_for_every_number_of_timesteps() {
        let some = (2..200).chain([250, 999, 1000, 4000, 10_007, 65_536, 100_000]);
        for timesteps in some {
            for schedule in [ScheduleKind::Cosine, ScheduleKind::Sigmoid] {
                let last = last_alpha_bar(&with(schedule, timesteps));
                assert!(last > 1e-13 && last < 0.01, "{schedule:?} with {timesteps}: {last}");
            }
        }
    }

    #[test]
    fn the_largest_beta_end_is_tight() {
        for schedule in [ScheduleKind::Linear, ScheduleKind::Quadratic] {
            for (timesteps, beta_start) in [(1000, 1e-4), (4000, 1e-4), (1001, 0.02), (100_000, 1e-8)] {
                let wrong = DiffusionParams { beta_start, beta_end: 0.999, ..with(schedule, timesteps) };
                assert!(last_alpha_bar(&wrong) < MIN_ALPHA_BAR);
                let largest = largest_beta_end(&wrong).unwrap();
                let last = |beta_end| last_alpha_bar(&DiffusionParams { beta_end, ..wrong.clone() });
                assert!(last(largest) >= MIN_ALPHA_BAR && last(1.02 * largest) < MIN_ALPHA_BAR, "{largest}");
            }
            let hopeless = DiffusionParams { beta_start: 0.5, beta_end: 0.6, ..with(schedule, 1000) };
            assert_eq!(largest_beta_end(&hopeless), None);
        }
    }
}
