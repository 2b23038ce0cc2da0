//! What a network is trained to say, and how the clean image follows from it. With a = √ᾱ and s = √(1−ᾱ):
//! x_t = a·x_0 + s·ε and v = a·ε − s·x_0 (Salimans and Ho 2022, section 4).

use crate::config::{DiffusionParams, LossWeighting, Objective};

/// The network's target at one value, given the clean value `x0` and the noise `eps`.
pub fn training_target(objective: Objective, alpha_bar: f64, x0: f64, eps: f64) -> f64 {
    match objective {
        Objective::Eps => eps,
        Objective::X0 | Objective::Regression => x0,
        Objective::V => alpha_bar.sqrt() * eps - (1.0 - alpha_bar).sqrt() * x0,
    }
}

/// The clean value x̂_0 that the network's `output` at the noisy value `x_t` means.
pub fn clean(objective: Objective, alpha_bar: f64, x_t: f64, output: f64) -> f64 {
    let (a, s) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
    match objective {
        Objective::Eps => (x_t - s * output) / a,
        Objective::X0 | Objective::Regression => output,
        Objective::V => a * x_t - s * output,
    }
}

/// ln(√ᾱ / √(1−ᾱ)).
pub fn half_log_snr(alpha_bar: f64) -> f64 {
    0.5 * (alpha_bar / (1.0 - alpha_bar)).ln()
}

/// The weight of a squared error at a time, relative to the objective's own. With `min_snr` every objective weighs the
/// clean value's error by min(SNR, γ), SNR = ᾱ / (1−ᾱ) (Hang et al. 2023, section 3.4).
pub fn loss_weight(params: &DiffusionParams, alpha_bar: f64) -> f64 {
    if params.loss_weighting == LossWeighting::None {
        return 1.0;
    }
    let snr = alpha_bar / (1.0 - alpha_bar);
    let weight = snr.min(params.min_snr_gamma);
    match params.objective {
        Objective::Eps => weight / snr,
        Objective::X0 => weight,
        Objective::V => weight / (snr + 1.0),
        Objective::Regression => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScheduleKind;

    /// Numbers of `tests/fixtures/make_diffusion.py`.
    #[test]
    fn weights_are_numpys() {
        let schedule = crate::diffusion::Schedule::of(ScheduleKind::Cosine, 1000);
        for (objective, expected) in [
            (Objective::Eps, [0.14627948560461837, 1.0, 1.0]),
            (Objective::X0, [5.0, 0.9696096031372297, 0.024187319155003145]),
            (Objective::V, [0.142121590960807, 0.49228517244880304, 0.023616108794393867]),
            (Objective::Regression, [1.0; 3]),
        ] {
            let params = DiffusionParams { objective, loss_weighting: LossWeighting::MinSnr, ..Default::default() };
            for (t, expected) in [100, 500, 900].into_iter().zip(expected) {
                let weight = loss_weight(&params, schedule.alpha_bar(t));
                assert!((weight / expected - 1.0).abs() < 1e-9, "{objective:?} at {t}: {weight}");
                let unweighted = DiffusionParams { objective, ..Default::default() };
                assert_eq!(loss_weight(&unweighted, schedule.alpha_bar(t)), 1.0);
            }
        }
    }

    #[test]
    fn a_network_that_meets_its_target_gives_the_clean_value() {
        for objective in [Objective::Eps, Objective::X0, Objective::V] {
            for alpha_bar in [0.999, 0.5, 0.01] {
                let (x0, eps) = (0.7, -1.3);
                let x_t = f64::sqrt(alpha_bar) * x0 + f64::sqrt(1.0 - alpha_bar) * eps;
                let output = training_target(objective, alpha_bar, x0, eps);
                assert!((clean(objective, alpha_bar, x_t, output) - x0).abs() < 1e-12, "{objective:?}");
            }
        }
    }
}
