//! Noise schedules: how much of the clean image is left at each time.

use crate::config::DiffusionParams;
#[cfg(test)]
use crate::config::ScheduleKind;
use crate::config::schedule::alpha_bars;

/// A noise schedule: ᾱ(t) = ∏ (1 − β(s)) over s ≤ t, for t in 0..T. The noisy image is x_t = √ᾱ x_0 + √(1−ᾱ) ε.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    alpha_bar: Vec<f64>,
}

impl Schedule {
    /// Creates the schedule that the parameters declare.
    pub fn new(params: &DiffusionParams) -> Self {
        Self { alpha_bar: alpha_bars(params) }
    }

    /// Returns T, the number of times.
    pub fn timesteps(&self) -> usize {
        self.alpha_bar.len()
    }

    /// Returns ᾱ at time `t`, in (0, 1).
    pub fn alpha_bar(&self, t: usize) -> f64 {
        self.alpha_bar[t]
    }

    /// Returns the number of times whose half log-SNR is at least `half_log_snr`. They are the first ones, because it
    /// decreases.
    pub(super) fn times_above(&self, half_log_snr: f64) -> usize {
        self.alpha_bar.partition_point(|&a| super::half_log_snr(a) >= half_log_snr)
    }
}

#[cfg(test)]
impl Schedule {
    pub(super) fn of(schedule: ScheduleKind, timesteps: usize) -> Self {
        Self::new(&DiffusionParams { schedule, timesteps, ..Default::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::FRAC_PI_2;

    use super::*;

    #[test]
    fn every_schedule_decreases_from_near_one_to_near_zero() {
        for timesteps in [50, 100, 250, 1000, 4000] {
            for (schedule, max_last) in [
                (Schedule::of(ScheduleKind::Linear, timesteps), 1e-4),
                (Schedule::of(ScheduleKind::Cosine, timesteps), 1e-4),
                (Schedule::of(ScheduleKind::Sigmoid, timesteps), 1e-4),
                // Its betas grow late, so it ends at 7e-4.
                (Schedule::of(ScheduleKind::Quadratic, timesteps), 1e-3),
            ] {
                assert_eq!(schedule.timesteps(), timesteps);
                assert!(schedule.alpha_bar.windows(2).all(|w| w[1] < w[0]));
                assert!(schedule.alpha_bar(0) > 0.99, "{}", schedule.alpha_bar(0));
                let last = schedule.alpha_bar(timesteps - 1);
                assert!(last > 0.0 && last < max_last, "{last} at the end for T = {timesteps}");
            }
        }
    }

    /// Expected values from `tests/fixtures/make_diffusion.py`.
    #[test]
    fn quadratic_and_sigmoid_schedules_match_numpy() {
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
        for (schedule, expected_values) in [
            (Schedule::of(ScheduleKind::Quadratic, 1000), quadratic),
            (Schedule::of(ScheduleKind::Sigmoid, 1000), sigmoid),
        ] {
            for (t, expected) in expected_values {
                assert!((schedule.alpha_bar(t) / expected - 1.0).abs() < 1e-9, "t = {t}: {}", schedule.alpha_bar(t));
            }
        }
    }

    #[test]
    fn the_cosine_schedule_matches_its_formula_where_no_beta_is_clipped() {
        let schedule = Schedule::of(ScheduleKind::Cosine, 1000);
        let f = |t: f64| ((t / 1000.0 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
        for t in [0, 10, 500, 990] {
            let exact = f(t as f64 + 1.0) / f(0.0);
            assert!((schedule.alpha_bar(t) / exact - 1.0).abs() < 1e-9, "t = {t}");
        }
    }
}
