//! Measurements for tests.

use super::loss::LossRow;
use super::{ClaimAnswer, Convergence, Effort, Figures, Measured, floors as floors_of};
use crate::config::metrics::{Metric, Unit};
use crate::config::{DiffusionParams, Label};
use crate::metrics::{Distances, Errors, Forecast, Scores};
use crate::stats::Verdict;

pub fn floors() -> Figures {
    floors_of(Distances { spectrum: Some(0.25), sliced_wasserstein: None })
}

/// The PSNR of the arms for infinitely many samples, with a mean squared error of 4.
pub const OF_SAMPLES: f64 = 42.11020369539948;
/// The PSNR of bicubic enlargement, with a mean squared error of 5.
pub const OF_BICUBIC: f64 = 41.141103565318915;

fn scores(psnr: f64) -> Scores {
    Scores { psnr, psnr_y: Some(psnr + 1.0), consistency_psnr: 2.0 * psnr, ..Scores::default() }
}

fn forecast(psnr: f64) -> Forecast {
    let errors = Errors { of_sample: 8.0, of_mean: 5.0 };
    Forecast { crps: psnr / 4.0, energy_score: None, errors }
}

fn loss(val_loss: Option<f64>) -> Vec<LossRow> {
    let row = |val_loss| LossRow { step: 1, loss: None, val_loss, flops: None };
    val_loss.map(|loss| row(Some(loss))).into_iter().collect()
}

pub fn measured() -> Vec<Measured> {
    let arm = |name: &str, samples, sample: [f64; 2], mean: [f64; 2], val_loss| Measured {
        name: name.into(),
        samples,
        diffusion: Some(DiffusionParams::default()),
        sample: sample.map(scores).into(),
        mean: mean.map(scores).into(),
        forecasts: mean.map(forecast).into(),
        distances: Distances { spectrum: Some(1.5), sliced_wasserstein: None },
        losses: loss(val_loss),
        ..Measured::default()
    };
    vec![
        Measured { diffusion: None, ..arm("bicubic", 1, [20.0, 22.5], [20.0, 22.5], None) },
        arm("attention, 2", 4, [18.0, 19.0], [21.0, 22.0], Some(0.125)),
        arm("baseline", 4, [18.0, 18.5], [20.0, 22.0], Some(f64::INFINITY)),
    ]
}

/// An arm with seeds 0 and 1, between arms without seeds.
pub fn with_seeds() -> Vec<Measured> {
    let mut arms = measured();
    let axes = vec![Label { axis: "base_channels".into(), value: "16".into() }];
    let of_seed = |seed: &str, psnr| Measured {
        name: "baseline[base_channels=16]".into(),
        axes: axes.clone(),
        seed: Some(seed.into()),
        trainings: vec![0],
        samples: 4,
        diffusion: Some(DiffusionParams::default()),
        sample: [psnr, psnr].map(scores).into(),
        mean: [psnr, psnr].map(scores).into(),
        forecasts: [psnr, psnr].map(forecast).into(),
        losses: loss((seed == "0").then_some(0.5)),
        ..Measured::default()
    };
    arms.splice(2.., [of_seed("0", 18.0), of_seed("1", 20.0)]);
    arms
}

/// An inconclusive answer by convergence.
pub fn claim_answer() -> ClaimAnswer {
    ClaimAnswer {
        claim: "convergence".into(),
        arm: "attention".into(),
        control: "baseline".into(),
        endpoint: Metric::FlopsToLoss,
        unit: Unit::Percent,
        margin: 5.0,
        verdict: Verdict::Inconclusive,
        effect: Some(12.25),
        interval: Some([-1.0, 20.0]),
        p: 0.25,
        p_holm: 0.5,
        p_equivalent_holm: None,
        beyond_margin: false,
        family_claims: None,
        family: None,
        has_other_families: false,
        samples: Some([4, 4]),
        seeds_for_power: None,
        variation: None,
        plan: None,
        look: None,
        reason: None,
        n: 3,
        pairs: 3,
        by_design: true,
        seeds_needed: 6,
        convergence: Some(Convergence {
            loss: 0.0123,
            arm: Effort { steps: 900.4, flops: Some(1.5e12) },
            control: Effort { steps: 1200.0, flops: None },
        }),
    }
}
