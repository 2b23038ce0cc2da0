//! What a network is trained to say, and how the clean image follows from it. With a = √ᾱ and s = √(1−ᾱ):
//! x_t = a·x_0 + s·ε and v = a·ε − s·x_0 (Salimans and Ho 2022, section 4).

use crate::pipeline::params::Objective;

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

#[cfg(test)]
mod tests {
    use super::*;

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
