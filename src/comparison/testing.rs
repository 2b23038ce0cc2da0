//! Measurements for tests.

use super::loss::LossRow;
use super::{Figures, Measured, floors as floors_of};
use crate::config::{DiffusionParams, Label};
use crate::metrics::{Distances, Errors, Forecast, Scores};

pub fn floors() -> Figures {
    floors_of(Distances { spectrum: Some(0.25), sliced_wasserstein: None })
}

fn scores(psnr: f64) -> Scores {
    Scores { psnr, psnr_y: Some(psnr + 1.0), ssim: None, ssim_y: None, consistency_psnr: 2.0 * psnr }
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
