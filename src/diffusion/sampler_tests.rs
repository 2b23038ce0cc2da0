//! Tests of the samplers against formulas, reference values from NumPy, and a distribution whose exact denoiser is
//! known.

use std::convert::Infallible;

use super::sampler::{ddim, ddpm};
use super::*;
use crate::config::{PredictionType, SamplerMethod, SamplerParams, ScheduleKind, Spacing};
use crate::random::{Purpose, stream};

#[test]
fn spacings_give_the_documented_timesteps() {
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
fn ddim_with_eta_one_and_all_timesteps_equals_ddpm() {
    let schedule = Schedule::of(ScheduleKind::Linear, 1000);
    for t in [1, 10, 500, 999] {
        let step = Step { t, alpha_bar: schedule.alpha_bar(t), alpha_bar_next: schedule.alpha_bar(t - 1) };
        let (a, b) = (ddim(step, 1.0), ddpm(step));
        for (a, b) in [(a.clean, b.clean), (a.current, b.current), (a.deviation, b.deviation)] {
            assert!((a - b).abs() < 1e-12, "{a} {b} at {t}");
        }
    }
}

/// Expected values from `tests/fixtures/make_diffusion.py`: 10 steps over the times of the cosine schedule that are not
/// almost pure noise.
#[test]
fn dpmpp_matches_numpy() {
    let schedule = Schedule::of(ScheduleKind::Cosine, 1000);
    assert_eq!(schedule.times_above(-5.1), 996);
    let params = SamplerParams { method: SamplerMethod::Dpmpp2m, steps: 10, ..Default::default() };
    let chain = steps(&schedule, &params);
    let visited: Vec<usize> = chain.iter().map(|s| s.t).collect();
    assert_eq!(visited, [995, 895, 796, 696, 597, 497, 397, 298, 198, 99]);
    let mut x = [1.5, -0.3, 0.02, -2.0];
    let denoise = |x: &[f64], step: Step| {
        Ok::<_, Infallible>(x.iter().map(|x| x.tanh() * (1.0 - step.t as f64 / 1000.0)).collect())
    };
    sample(&params, &chain, &mut x, denoise, |_| unreachable!("no noise is added")).unwrap();
    let expected = [0.5750916316419414, -0.18143268211769836, 0.012565115805559883, -0.6450321289751858];
    assert!(x.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{x:?}");
}

/// Expected values from `tests/fixtures/make_diffusion.py`, with the same times.
#[test]
fn heun_matches_numpy_with_two_evaluations_per_step() {
    let schedule = Schedule::of(ScheduleKind::Cosine, 1000);
    let params = SamplerParams { method: SamplerMethod::Heun, steps: 10, ..Default::default() };
    let chain = steps(&schedule, &params);
    let mut x = [1.5, -0.3, 0.02, -2.0];
    let mut count = 0;
    let denoise = |x: &[f64], step: Step| {
        count += 1;
        Ok::<_, Infallible>(x.iter().map(|x| x.tanh() * (1.0 - step.t as f64 / 1000.0)).collect())
    };
    sample(&params, &chain, &mut x, denoise, |_| unreachable!("no noise is added")).unwrap();
    let expected = [0.6009582430665312, -0.21590241990118827, 0.01531991420044919, -0.662788904922481];
    assert!(x.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{x:?}");
    assert_eq!(count, evaluations(SamplerMethod::Heun, 10));
}

/// Compares with the exact solution for normally distributed data with variance 1/4: x̃ ∝ √(1/4 + σ²).
#[test]
fn heun_is_second_order_accurate() {
    let schedule = Schedule::of(ScheduleKind::Linear, 1000);
    let error = |count: usize| {
        let params = SamplerParams { method: SamplerMethod::Heun, steps: count, ..Default::default() };
        let chain = steps(&schedule, &params);
        let variance = |alpha_bar: f64| 0.25 + (1.0 - alpha_bar) / alpha_bar;
        let mut x = [1.0];
        let denoise = |x: &[f64], step: Step| {
            Ok::<_, Infallible>(vec![0.25 * x[0] / step.alpha_bar.sqrt() / variance(step.alpha_bar)])
        };
        // Without the last step, which is first-order.
        sample(&params, &chain[..chain.len() - 1], &mut x, denoise, |_| unreachable!()).unwrap();
        let (first, last) = (chain[0].alpha_bar, chain[chain.len() - 1].alpha_bar);
        let exact = (variance(last) / variance(first)).sqrt() / first.sqrt() * last.sqrt();
        (x[0] / exact - 1.0).abs()
    };
    let (coarse, fine) = (error(100), error(200));
    assert!(fine < coarse / 3.0, "{coarse} then {fine}");
}

/// Includes chains with as many steps as the schedule has times, which is more than this method visits.
#[test]
fn dpmpp_supports_any_number_of_steps() {
    for timesteps in [2, 10, 1000] {
        let schedule = Schedule::of(ScheduleKind::Cosine, timesteps);
        for count in [1, 2, timesteps] {
            let params = SamplerParams { method: SamplerMethod::Dpmpp2m, steps: count, ..Default::default() };
            let mut x = vec![0.7; 3];
            let chain = steps(&schedule, &params);
            let denoise = |x: &[f64], _| Ok::<_, Infallible>(x.iter().map(|x| 0.5 * x).collect());
            sample(&params, &chain, &mut x, denoise, |_| unreachable!()).unwrap();
            assert!(x.iter().all(|v| v.is_finite()), "{count} of {timesteps}: {x:?}");
        }
    }
}

/// A mixture of two normal distributions in the plane.
struct Mixture {
    weights: [f64; 2],
    means: [[f64; 2]; 2],
    /// The variances along both axes, and their covariance.
    covariances: [[f64; 3]; 2],
}

const MIXTURE: Mixture = Mixture {
    weights: [0.3, 0.7],
    means: [[-0.6, 0.3], [0.5, -0.2]],
    covariances: [[0.04, 0.09, 0.03], [0.08, 0.02, -0.02]],
};

impl Mixture {
    /// Returns E[x_0 | x_t]: the mean over the components, weighted by their posterior probabilities.
    fn denoise(&self, x: [f64; 2], alpha_bar: f64) -> [f64; 2] {
        let (a, noise) = (alpha_bar.sqrt(), 1.0 - alpha_bar);
        let components = [0, 1].map(|i| {
            let (m, [p, q, r]) = (self.means[i], self.covariances[i]);
            // In this component, x_t has the covariance a² C + noise · I.
            let (sp, sq, sr) = (alpha_bar * p + noise, alpha_bar * q + noise, alpha_bar * r);
            let det = sp * sq - sr * sr;
            let d = [x[0] - a * m[0], x[1] - a * m[1]];
            let solved = [(sq * d[0] - sr * d[1]) / det, (sp * d[1] - sr * d[0]) / det];
            let log = -0.5 * (d[0] * solved[0] + d[1] * solved[1]) - 0.5 * det.ln() + self.weights[i].ln();
            let mean = [m[0] + a * (p * solved[0] + r * solved[1]), m[1] + a * (r * solved[0] + q * solved[1])];
            (log, mean)
        });
        let [(log_0, mean_0), (log_1, mean_1)] = components;
        let first = 1.0 / (1.0 + (log_1 - log_0).exp());
        [0, 1].map(|c| first * mean_0[c] + (1.0 - first) * mean_1[c])
    }

    /// Returns the means along both axes, the variances, and the covariance.
    fn moments(&self) -> [f64; 5] {
        let mean = [0, 1].map(|c| (0..2).map(|i| self.weights[i] * self.means[i][c]).sum::<f64>());
        let moment = |covariance: usize, a: usize, b: usize| {
            let component = |i: usize| self.covariances[i][covariance] + self.means[i][a] * self.means[i][b];
            (0..2).map(|i| self.weights[i] * component(i)).sum::<f64>() - mean[a] * mean[b]
        };
        [mean[0], mean[1], moment(0, 0, 0), moment(1, 1, 1), moment(2, 0, 1)]
    }
}

/// Returns the output of a perfect network at x_t: the mean of its training target, given x_t. Targets are linear in
/// the clean value and the noise, so the means of these suffice.
fn perfect_output(prediction_type: PredictionType, x: [f64; 2], alpha_bar: f64) -> [f64; 2] {
    let x0 = MIXTURE.denoise(x, alpha_bar);
    let eps = |c: usize| (x[c] - alpha_bar.sqrt() * x0[c]) / (1.0 - alpha_bar).sqrt();
    [0, 1].map(|c| training_target(prediction_type, alpha_bar, x0[c], eps(c)))
}

/// Samples with a perfect network, and returns the largest deviation of the samples' moments from the mixture's.
fn deviation(schedule: &Schedule, prediction_type: PredictionType, params: &SamplerParams) -> f64 {
    const N: usize = 8_000;
    let draw = |step: u64| {
        let mut rng = stream(1, Purpose::SampleNoise, step, 0);
        (0..2 * N).map(|_| rng.normal()).collect::<Vec<f64>>()
    };
    let mut x = draw(u64::MAX);
    let denoise = |x: &[f64], step: Step| {
        let denoise_point = |x: &[f64]| {
            let output = perfect_output(prediction_type, [x[0], x[1]], step.alpha_bar);
            [0, 1].map(|c| predict_x0(prediction_type, step.alpha_bar, x[c], output[c]))
        };
        Ok::<_, Infallible>(x.chunks_exact(2).flat_map(denoise_point).collect())
    };
    sample(params, &steps(schedule, params), &mut x, denoise, |step| draw(step.t as u64)).unwrap();
    let axis = |c: usize| x.iter().skip(c).step_by(2);
    let mean = [0, 1].map(|c| axis(c).sum::<f64>() / N as f64);
    let moment =
        |a: usize, b: usize| axis(a).zip(axis(b)).map(|(x, y)| (x - mean[a]) * (y - mean[b])).sum::<f64>() / N as f64;
    let found = [mean[0], mean[1], moment(0, 0), moment(1, 1), moment(0, 1)];
    found.iter().zip(MIXTURE.moments()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The tolerance covers the error of 8,000 draws (a standard error of at most 0.007 per moment) and the discretisation
/// error.
#[test]
fn samplers_with_the_exact_denoiser_reproduce_the_distribution() {
    let schedules = [
        Schedule::of(ScheduleKind::Cosine, 1000),
        Schedule::of(ScheduleKind::Linear, 1000),
        Schedule::of(ScheduleKind::Sigmoid, 1000),
        Schedule::of(ScheduleKind::Quadratic, 1000),
    ];
    let methods = [
        (SamplerMethod::Ddpm, 0.0, 200),
        (SamplerMethod::Ddim, 0.0, 100),
        (SamplerMethod::Ddim, 0.5, 100),
        (SamplerMethod::Ddim, 1.0, 200),
        (SamplerMethod::Dpmpp2m, 0.0, 40),
        (SamplerMethod::Heun, 0.0, 40),
    ];
    for (i, schedule) in schedules.iter().enumerate() {
        // All methods on the cosine schedule, and one method on each other schedule.
        for (method, eta, steps) in methods.into_iter().enumerate().filter(|(m, _)| i == 0 || *m == i).map(|(_, m)| m) {
            for (prediction_type, spacing) in [
                (PredictionType::X0, Spacing::Trailing),
                (PredictionType::Eps, Spacing::Leading),
                (PredictionType::V, Spacing::Trailing),
            ] {
                // Leading spacing skips the noisiest times although chains start from pure noise, so it needs more
                // steps.
                let steps = if spacing == Spacing::Leading { 2 * steps } else { steps };
                let params = SamplerParams { method, eta, steps, spacing, ..Default::default() };
                let deviation = deviation(schedule, prediction_type, &params);
                assert!(deviation < 0.025, "{method:?} η {eta}, schedule {i}, {prediction_type:?}: off by {deviation}");
            }
        }
    }
}

#[test]
fn more_steps_reduce_the_error_and_second_order_samplers_need_fewer() {
    let schedule = Schedule::of(ScheduleKind::Cosine, 1000);
    let error =
        |method, steps| deviation(&schedule, PredictionType::V, &SamplerParams { method, steps, ..Default::default() });
    let [few, many] = [5, 80].map(|steps| error(SamplerMethod::Ddim, steps));
    assert!(many < 0.5 * few, "{few} then {many}");
    let [first, second] = [SamplerMethod::Ddim, SamplerMethod::Dpmpp2m].map(|method| error(method, 10));
    assert!(second < first, "second order: {second}, first order: {first}");
}
