//! The optimiser settings of each training step.

use std::f64::consts::PI;

use crate::config::{Decay, OptimParams};
use crate::nn::StepSettings;

/// The optimiser settings of a training run.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    optim: OptimParams,
    steps: u64,
}

impl Recipe {
    /// Creates the recipe for `images` training images. Converts epochs to steps; the last batch of an epoch is filled
    /// with images of the next one.
    ///
    /// # Panics
    /// Panics if neither steps nor epochs are given: [`super::fix_steps`] converts every budget to steps before a stage
    /// runs.
    pub fn new(optim: &OptimParams, images: usize) -> Self {
        let per_epoch = (images as u64).div_ceil(optim.batch_size as u64);
        let steps = optim.steps.or(optim.epochs.map(|epochs| epochs * per_epoch)).expect("steps or epochs are given");
        Self { optim: optim.clone(), steps }
    }

    /// Returns the total number of optimiser steps.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn batch_size(&self) -> usize {
        self.optim.batch_size
    }

    /// Returns the number of micro-batches per batch.
    pub fn micro_batches(&self) -> usize {
        self.optim.micro_batches
    }

    /// Multiplies the number of micro-batches by `factor`, and rounds it up to a divisor of the batch size.
    pub fn multiply_micro_batches(&mut self, factor: usize) {
        let (images, min) = (self.optim.batch_size, self.optim.micro_batches * factor);
        self.optim.micro_batches = (min..images).find(|&count| images.is_multiple_of(count)).unwrap_or(images);
    }

    /// Returns the settings of step `step`, counted from 0.
    pub(super) fn settings(&self, step: u64) -> StepSettings {
        let n = (step + 1) as f64;
        StepSettings {
            lr: self.optim.lr * self.lr_factor(step),
            betas: self.optim.betas,
            eps: 1e-8,
            weight_decay: self.optim.weight_decay,
            clip: self.optim.clip,
            // The moving average starts at the initial weights and must forget them. With a constant decay of 0.9999,
            // their share would still be 95 % after 500 steps.
            ema_decay: self.optim.ema.min((1.0 + n) / (10.0 + n)),
        }
    }

    /// Returns the learning rate as a fraction of its peak: linear warm-up, then cosine decay.
    fn lr_factor(&self, step: u64) -> f64 {
        let warmup = (self.optim.warmup * self.steps as f64).ceil() as u64;
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        match self.optim.decay {
            Decay::None => 1.0,
            Decay::Cosine => {
                let done = (step - warmup) as f64 / (self.steps - warmup).max(1) as f64;
                0.5 * (1.0 + (PI * done).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls() {
        let optim = OptimParams { lr: 2.0, steps: Some(100), warmup: 0.1, ..Default::default() };
        let recipe = Recipe::new(&optim, 1);
        let lr: Vec<f64> = (0..100).map(|s| recipe.settings(s).lr).collect();
        assert!((lr[0] - 0.2).abs() < 1e-12 && lr[9] == 2.0 && lr[10] == 2.0);
        assert!((lr[55] - 1.0).abs() < 1e-12 && lr[99] > 0.0 && lr[99] < 0.01);
        assert!(lr[10..].windows(2).all(|w| w[1] < w[0]));
    }

    #[test]
    fn the_learning_rate_is_constant_without_warm_up_or_decay() {
        let optim = OptimParams { warmup: 0.0, decay: Decay::None, steps: Some(7), ..Default::default() };
        assert!((0..7).all(|s| Recipe::new(&optim, 1).settings(s).lr == optim.lr));
    }

    #[test]
    fn epochs_are_converted_to_steps() {
        let optim = OptimParams { epochs: Some(5), batch_size: 32, ..Default::default() };
        assert_eq!(Recipe::new(&optim, 100).steps(), 5 * 4);
    }

    #[test]
    fn the_moving_average_forgets_the_initial_weights() {
        let recipe = Recipe::new(&OptimParams { ema: 0.9999, steps: Some(1), ..Default::default() }, 1);
        assert_eq!(recipe.settings(0).ema_decay, 2.0 / 11.0);
        assert_eq!(recipe.settings(1_000_000).ema_decay, 0.9999);
        // The share of the initial weights after 500 steps.
        let share: f64 = (0..500).map(|s| recipe.settings(s).ema_decay).product();
        assert!(share < 1e-12, "{share}");
    }

    #[test]
    fn multiplied_micro_batches_divide_the_batch_size() {
        let micro_batches = |batch_size, micro_batches, times| {
            let optim = OptimParams { steps: Some(1), batch_size, micro_batches, ..Default::default() };
            let mut recipe = Recipe::new(&optim, 100);
            recipe.multiply_micro_batches(times);
            recipe.micro_batches()
        };
        assert_eq!(
            [micro_batches(32, 1, 1), micro_batches(32, 1, 2), micro_batches(32, 2, 4), micro_batches(32, 1, 64)],
            [1, 2, 8, 32]
        );
        assert_eq!([micro_batches(30, 1, 4), micro_batches(7, 1, 2)], [5, 7]);
    }
}
