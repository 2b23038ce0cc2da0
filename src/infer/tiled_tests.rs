use std::cell::Cell;

use super::*;
use crate::config::Device;
use crate::config::{DiffusionParams, ModelParams, PredictionType};
use crate::model::{Checkpoint, Config, ModelCost, normalize, unet};
use crate::nn::TrainState;

/// Returns an untrained model for images of 16×16 at scale 4.
fn denoiser(objective: PredictionType) -> Denoiser {
    let model = ModelParams { base_channels: 4, zero_output: false, ..Default::default() };
    let diffusion = DiffusionParams { objective, residual_scale: Some(2.0), ..Default::default() };
    let graph = unet(&model, 16, 4);
    let uniform = |name: &str, n: usize| {
        let mut rng = stream(name.len() as u64, Purpose::Weights, 0, 0);
        (0..n).map(|_| rng.between(-1.0, 1.0) as f32).collect()
    };
    let weights = TrainState::initial(&graph, uniform).weights;
    let config = Config { model, diffusion, image_size: 16, scale: 4, cost: ModelCost::of(&graph), steps: 0 };
    Denoiser::open(Checkpoint { config, weights }, Device::Cpu).unwrap()
}

fn sampler() -> SamplerParams {
    SamplerParams { steps: 4, ..Default::default() }
}

/// Returns a smooth gradient in both directions, different in each channel.
fn gradient(height: usize, width: usize) -> Images {
    let pixels = (0..height * width).flat_map(|i| {
        let (y, x) = (i / width, i % width);
        [40 + 4 * x + 2 * y, 200 - 3 * x - y, 90 + x].map(|v| v.clamp(0, 255) as u8)
    });
    Images::new(1, height, width, pixels.collect())
}

fn upscaled(denoiser: &Denoiser, image: &Images, seed: u64, k: u64) -> Images {
    TiledSampler::new(denoiser, &sampler(), seed, image).sample(k, &mut |_| Ok(())).unwrap()
}

#[test]
fn pictures_of_any_size_become_larger_by_the_models_scale() {
    for objective in [PredictionType::V, PredictionType::Regression] {
        let denoiser = denoiser(objective);
        for (height, width) in [(1, 1), (1, 9), (9, 1), (3, 6), (4, 4), (5, 7)] {
            let large = upscaled(&denoiser, &gradient(height, width), 0, 0);
            assert_eq!((large.count, large.height, large.width), (1, 4 * height, 4 * width));
        }
    }
}

#[test]
fn a_picture_of_one_tile_is_the_networks_output() {
    let denoiser = denoiser(PredictionType::Regression);
    let image = gradient(4, 4);
    let up = Resampler::enlarge(4, 4, 4).apply_u8(&image.pixels);
    let up: Vec<f64> = up.iter().copied().map(normalize).collect();
    let output = denoiser.predict_regression(&up).unwrap();
    let expected = denoiser.pixels(output.iter().zip(&up).map(|(&x, &up)| (x, up))).unwrap();
    assert_eq!(upscaled(&denoiser, &image, 0, 0).pixels, expected);
}

#[test]
fn a_sample_is_a_function_of_seed_and_number() {
    let denoiser = denoiser(PredictionType::V);
    let image = gradient(5, 9);
    let first = upscaled(&denoiser, &image, 1, 0);
    assert_eq!(first, upscaled(&denoiser, &image, 1, 0));
    assert_ne!(first, upscaled(&denoiser, &image, 1, 1));
    assert_ne!(first, upscaled(&denoiser, &image, 2, 0));
}

#[test]
fn the_noise_at_a_position_does_not_depend_on_the_canvas() {
    let denoiser = denoiser(PredictionType::V);
    let noise = |height, width| {
        let upscaling = TiledSampler::new(&denoiser, &sampler(), 3, &gradient(height, width));
        (upscaling.noise(Purpose::SampleStart, 0), 3 * upscaling.canvas.1)
    };
    let ((small, narrow), (large, wide)) = (noise(5, 6), noise(8, 11));
    assert!(small.chunks(narrow).zip(large.chunks(wide)).all(|(small, large)| *small == large[..narrow]));
}

#[test]
fn progress_is_reported_and_can_stop_sampling() {
    let denoiser = denoiser(PredictionType::V);
    let image = gradient(6, 40);
    let upscaling = TiledSampler::new(&denoiser, &sampler(), 0, &image);
    // Tiles of 4 low-resolution pixels start every 2 pixels: 2 rows of 19 tiles, each evaluated at 4 steps.
    assert_eq!(upscaling.evaluations(), 2 * 19 * 4);
    let evaluated = Cell::new(0);
    let mut count = |n| {
        evaluated.set(evaluated.get() + n);
        Ok(())
    };
    upscaling.sample(0, &mut count).unwrap();
    assert_eq!(evaluated.get(), upscaling.evaluations());
    let error = upscaling.sample(0, &mut |_| anyhow::bail!("enough")).unwrap_err();
    assert_eq!(error.to_string(), "enough");
}

/// Returns the largest step between neighbouring columns at the borders of tiles, relative to the largest step
/// elsewhere. Steps are means over the rows of the red channel.
fn seam(canvas: &[f64], width: usize, overlap: usize) -> f64 {
    let rows = canvas.len() / 3 / width;
    let step = |x: usize| (0..rows).map(|y| canvas[3 * (y * width + x)] - canvas[3 * (y * width + x - 1)]).sum::<f64>();
    let (mut border, mut elsewhere) = (0.0f64, 0.0f64);
    for x in 1..width {
        let group = if x % (4 * (4 - overlap)) == 0 { &mut border } else { &mut elsewhere };
        *group = group.max(step(x).abs());
    }
    border / elsewhere
}

#[test]
fn tiles_that_disagree_leave_no_seams() {
    let denoiser = denoiser(PredictionType::V);
    let seam_with = |overlap: usize| {
        let upscaling = TiledSampler::with_overlap(&denoiser, &sampler(), 0, &gradient(16, 40), overlap);
        let width = upscaling.canvas.1;
        let ramp: Vec<f64> = (0..upscaling.up.len()).map(|i| (i / 3 % width) as f64).collect();
        // Like a normalisation, this makes each tile's values depend on the tile's mean.
        let predict = |x: &[f64], _: &[f64]| {
            let tiles = x.chunks_exact(denoiser.image_len());
            let shifted = tiles.flat_map(|tile| {
                let mean = tile.iter().sum::<f64>() / tile.len() as f64;
                tile.iter().map(move |v| v + 0.5 * mean)
            });
            Ok(shifted.collect())
        };
        seam(&upscaling.blend(&mut |_| Ok(()), predict, &ramp).unwrap(), width, overlap)
    };
    assert!(seam_with(0) > 5.0, "without overlap there is a seam: {}", seam_with(0));
    assert!(seam_with(overlap(4)) < 1.0, "{}", seam_with(overlap(4)));
}

#[test]
fn a_network_leaves_no_seams() {
    let denoiser = denoiser(PredictionType::Regression);
    // For a constant colour, the network's output differs between the middle of a tile and its edge.
    let constant = Images::new(1, 16, 40, [90, 120, 60].repeat(16 * 40));
    let seam_with = |overlap: usize| {
        let upscaling = TiledSampler::with_overlap(&denoiser, &sampler(), 0, &constant, overlap);
        let large = upscaling.sample(0, &mut |_| Ok(())).unwrap();
        seam(&large.pixels.iter().copied().map(normalize).collect::<Vec<_>>(), large.width, overlap)
    };
    assert!(seam_with(0) > 1.0, "{}", seam_with(0));
    assert!(seam_with(overlap(4)) < 0.7, "{}", seam_with(overlap(4)));
}
