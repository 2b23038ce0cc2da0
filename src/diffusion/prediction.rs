//! Prediction types: what the network is trained to output, and how the clean image is computed from its output.
//!
//! With a = √ᾱ and s = √(1−ᾱ), x_t = a·x_0 + s·ε and v = a·ε − s·x_0 (Salimans and Ho 2022, section 4).

use crate::config::{DiffusionParams, LossWeighting, PredictionType};

/// Returns the training target for one value, given the clean value `x0` and the noise `eps`.
pub fn training_target(prediction_type: PredictionType, alpha_bar: f64, x0: f64, eps: f64) -> f64 {
    match prediction_type {
        PredictionType::Eps => eps,
        PredictionType::X0 | PredictionType::Regression => x0,
        PredictionType::V => alpha_bar.sqrt() * eps - (1.0 - alpha_bar).sqrt() * x0,
    }
}

/// Returns the predicted clean value x̂_0, given the network's `output` at the noisy value `x_t`.
pub fn predict_x0(prediction_type: PredictionType, alpha_bar: f64, x_t: f64, output: f64) -> f64 {
    let (a, s) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
    match prediction_type {
        PredictionType::Eps => (x_t - s * output) / a,
        PredictionType::X0 | PredictionType::Regression => output,
        PredictionType::V => a * x_t - s * output,
    }
}

/// Returns half the logarithm of the signal-to-noise ratio, ln(√ᾱ / √(1−ᾱ)).
pub(super) fn half_log_snr(alpha_bar: f64) -> f64 {
    0.5 * (alpha_bar / (1.0 - alpha_bar)).ln()
}

/// Returns the weight of the squared error of the network's output at a time with this ᾱ.
///
/// With `min_snr`, it corresponds to a weight of min(SNR, γ) on the error of the clean value, where SNR = ᾱ / (1−ᾱ)
/// (Hang et al. 2023, section 3.4). Regression, which has no noise, is never weighted.
pub fn loss_weight(params: &DiffusionParams, alpha_bar: f64) -> f64 {
    if params.loss_weighting == LossWeighting::None {
        return 1.0;
    }
    let snr = alpha_bar / (1.0 - alpha_bar);
    let weight = snr.min(params.min_snr_gamma);
    match params.objective {
        PredictionType::Eps => weight / snr,
        PredictionType::X0 => weight,
        PredictionType::V => weight / (snr + 1.0),
        PredictionType::Regression => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScheduleKind;

    /// Expected values from `tests/fixtures/make_diffusion.py`.
    #[test]
    fn loss_weights_match_numpy() {
        let schedule = crate::diffusion::Schedule::of(ScheduleKind::Cosine, 1000);
        for (objective, expected) in [
            (PredictionType::Eps, [0.14627948560461837, 1.0, 1.0]),
            (PredictionType::X0, [5.0, 0.9696096031372297, 0.024187319155003145]),
            (PredictionType::V, [0.142121590960807, 0.49228517244880304, 0.023616108794393867]),
            (PredictionType::Regression, [1.0; 3]),
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
    fn a_perfect_prediction_of_any_type_gives_the_clean_image() {
        for prediction_type in [PredictionType::Eps, PredictionType::X0, PredictionType::V] {
            for alpha_bar in [0.999, 0.5, 0.01] {
                let (x0, eps) = (0.7, -1.3);
                let x_t = f64::sqrt(alpha_bar) * x0 + f64::sqrt(1.0 - alpha_bar) * eps;
                let output = training_target(prediction_type, alpha_bar, x0, eps);
                assert!(
                    (predict_x0(prediction_type, alpha_bar, x_t, output) - x0).abs() < 1e-12,
                    "{prediction_type:?}"
                );
            }
        }
    }
}
