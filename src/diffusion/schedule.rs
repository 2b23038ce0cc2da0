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
            ScheduleKind::Sigmoid => Self::sigmoid(params.timesteps),
            ScheduleKind::Quadratic => Self::quadratic(params.timesteps, params.beta_start, params.beta_end),
        }
    }

    /// Betas on a line from `beta_start` to `beta_end` (Ho et al. 2020, section 4), which are meant for T = 1000 and
    /// scaled by 1000/T, so that as little of the image is left at the end whatever T is.
    pub fn linear(timesteps: usize, beta_start: f64, beta_end: f64) -> Self {
        let scale = 1000.0 / timesteps as f64;
        let slope = (beta_end - beta_start) / (timesteps - 1).max(1) as f64;
        Self::from_betas((0..timesteps).map(|t| scale * (beta_start + slope * t as f64)))
    }

    /// As [`Schedule::linear`] with the betas' square roots on a line (Song et al. 2021, appendix D.4).
    pub fn quadratic(timesteps: usize, beta_start: f64, beta_end: f64) -> Self {
        let scale = 1000.0 / timesteps as f64;
        let (first, last) = (beta_start.sqrt(), beta_end.sqrt());
        let slope = (last - first) / (timesteps - 1).max(1) as f64;
        Self::from_betas((0..timesteps).map(|t| scale * (first + slope * t as f64).powi(2)))
    }

    /// alpha_bar(t) = (σ(3) − σ(6t/T − 3)) / (σ(3) − σ(−3)), σ the logistic function (Chen 2023, algorithm 1, with
    /// start −3, end 3 and temperature 1).
    pub fn sigmoid(timesteps: usize) -> Self {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        let f = |t: usize| logistic(3.0) - logistic(6.0 * t as f64 / timesteps as f64 - 3.0);
        Self::from_betas((0..timesteps).map(|t| 1.0 - f(t + 1) / f(t)))
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

    /// How many of the first times have at least this half logarithm of the signal-to-noise ratio, ln(√ᾱ / √(1−ᾱ)).
    pub fn times_above(&self, half_log_snr: f64) -> usize {
        self.alpha_bar.partition_point(|&a| super::half_log_snr(a) >= half_log_snr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_falls_from_near_one_to_near_zero() {
        for timesteps in [50, 100, 250, 1000, 4000] {
            for (schedule, left) in [
                (Schedule::linear(timesteps, 1e-4, 0.02), 1e-4),
                (Schedule::cosine(timesteps), 1e-4),
                (Schedule::sigmoid(timesteps), 1e-4),
                // Its betas grow late: seven tenthousandths are left.
                (Schedule::quadratic(timesteps, 1e-4, 0.02), 1e-3),
            ] {
                assert_eq!(schedule.timesteps(), timesteps);
                assert!(schedule.alpha_bar.windows(2).all(|w| w[1] < w[0]));
                assert!(schedule.alpha_bar(0) > 0.99, "{}", schedule.alpha_bar(0));
                let last = schedule.alpha_bar(timesteps - 1);
                assert!(last > 0.0 && last < left, "{last} is left at T = {timesteps}");
            }
        }
    }

    /// Numbers of `tests/fixtures/make_diffusion.py`.
    #[test]
    fn quadratic_and_sigmoid_are_numpys() {
        let quadratic = [
            (0, 0.9999),
            (250, 0.8200102359123052),
            (500, 0.33127457951725564),
            (750, 0.038149657375526835),
            (999, 0.0007334124595808159),
        ];
        let sigmoid = [
            (0, 0.9996997208002508),
            (250, 0.849863009182993),
            (500, 0.4983428178820696),
            (750, 0.1481596809712867),
            (999, 3.0027919974932843e-07),
        ];
        for (schedule, numbers) in
            [(Schedule::quadratic(1000, 1e-4, 0.02), quadratic), (Schedule::sigmoid(1000), sigmoid)]
        {
            for (t, expected) in numbers {
                assert!((schedule.alpha_bar(t) / expected - 1.0).abs() < 1e-9, "t = {t}: {}", schedule.alpha_bar(t));
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
