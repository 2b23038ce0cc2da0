//! How much of the image is left at each time of the noise process.

use std::f64::consts::FRAC_PI_2;

use crate::pipeline::params::{DiffusionParams, ScheduleKind};

/// The largest beta of any step (Nichol and Dhariwal 2021, section 3.2).
const MAX_BETA: f64 = 0.999;

/// The products alpha_bar(t) = ∏ (1 − beta(s)), s ≤ t, for t in 0..T: x_t = √ᾱ x_0 + √(1−ᾱ) ε.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    alpha_bar: Vec<f64>,
}

impl Schedule {
    pub fn new(params: &DiffusionParams) -> Self {
        match params.schedule {
            ScheduleKind::Linear => Self::linear(params.timesteps, params.beta_start, params.beta_end),
            ScheduleKind::Cosine => Self::cosine(params.timesteps),
        }
    }

    /// Betas on a line from `beta_start` to `beta_end` (Ho et al. 2020, section 4), which are meant for T = 1000 and
    /// scaled by 1000/T, so that as little of the image is left at the end whatever T is.
    pub fn linear(timesteps: usize, beta_start: f64, beta_end: f64) -> Self {
        let scale = 1000.0 / timesteps as f64;
        let slope = (beta_end - beta_start) / (timesteps - 1).max(1) as f64;
        Self::from_betas((0..timesteps).map(|t| scale * (beta_start + slope * t as f64)))
    }

    /// alpha_bar(t) = f(t) / f(0), f(t) = cos²((t/T + s) / (1 + s) · π/2), s = 0.008 (Nichol and Dhariwal 2021, eq. 17).
    pub fn cosine(timesteps: usize) -> Self {
        const S: f64 = 0.008;
        let f = |t: usize| ((t as f64 / timesteps as f64 + S) / (1.0 + S) * FRAC_PI_2).cos().powi(2);
        Self::from_betas((0..timesteps).map(|t| 1.0 - f(t + 1) / f(t)))
    }

    fn from_betas(betas: impl Iterator<Item = f64>) -> Self {
        let alpha_bar = betas.scan(1.0, |product, beta| {
            *product *= 1.0 - beta.min(MAX_BETA);
            Some(*product)
        });
        Self { alpha_bar: alpha_bar.collect() }
    }

    /// T, the number of times.
    pub fn timesteps(&self) -> usize {
        self.alpha_bar.len()
    }

    /// ᾱ at time `t`, in (0, 1).
    pub fn alpha_bar(&self, t: usize) -> f64 {
        self.alpha_bar[t]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_falls_from_near_one_to_near_zero() {
        for timesteps in [50, 100, 250, 1000, 4000] {
            for schedule in [Schedule::linear(timesteps, 1e-4, 0.02), Schedule::cosine(timesteps)] {
                assert_eq!(schedule.timesteps(), timesteps);
                assert!(schedule.alpha_bar.windows(2).all(|w| w[1] < w[0]));
                assert!(schedule.alpha_bar(0) > 0.99, "{}", schedule.alpha_bar(0));
                let last = schedule.alpha_bar(timesteps - 1);
                assert!(last > 0.0 && last < 1e-4, "{last} is left at T = {timesteps}");
            }
        }
    }

    #[test]
    fn the_cosine_is_its_formula_where_no_beta_is_clipped() {
        let schedule = Schedule::cosine(1000);
        let f = |t: f64| ((t / 1000.0 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
        for t in [0, 10, 500, 990] {
            let exact = f(t as f64 + 1.0) / f(0.0);
            assert!((schedule.alpha_bar(t) / exact - 1.0).abs() < 1e-9, "t = {t}");
        }
    }
}
