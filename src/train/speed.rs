//! Measures the speed of training and inference on this machine.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::config::Weights;
use crate::nn::{Batch, Network, StepSettings};
use crate::random::{Purpose, stream};

/// The number of calls that are not measured, until caches, buffers and clock rates have settled.
const WARM_UP: usize = 3;

/// The median times of a training step and of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// The time of one optimiser step on a batch: forward pass, loss, gradients, clipping, Adam and the moving average.
    pub train_step: Duration,
    /// The time of the forward pass of a batch.
    pub forward: Duration,
}

/// Measures training steps, then forward passes, on noise in batches of `batch` images. Each is measured for `time`,
/// and at least three times.
pub fn measure_speed(network: &mut dyn Network, batch: usize, time: Duration) -> Result<Speed> {
    let (input, output) = (network.graph().input_shape().len(), network.graph().output_shape().len());
    let noise = |index: u64, n: usize| {
        let mut values = vec![0.0; n];
        stream(0, Purpose::TrainNoise, 0, index).fill_normal(&mut values);
        values
    };
    let (x, target) = (noise(0, batch * input), noise(1, batch * output));
    let t: Vec<f32> = (0..batch).map(|i| i as f32 / batch as f32).collect();
    let weights = vec![1.0; batch];
    let batch = Batch { x: &x, t: &t, target: &target, weights: &weights };
    let settings = StepSettings { lr: 1e-4, clip: Some(1.0), ema_decay: 0.999, ..Default::default() };
    let train_step = median(time, || network.train_step(batch, 1, &settings).map(drop))?;
    let mut y = vec![0.0; target.len()];
    let forward = median(time, || network.predict_into(Weights::Ema, &x, &t, &mut y))?;
    Ok(Speed { train_step, forward })
}

/// Returns the median time of a call.
fn median(time: Duration, mut call: impl FnMut() -> Result<()>) -> Result<Duration> {
    for _ in 0..WARM_UP {
        call()?;
    }
    let (begun, mut times) = (Instant::now(), vec![]);
    while times.len() < 3 || begun.elapsed() < time {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_at_least_three_calls_after_the_warm_up() {
        let mut calls = 0;
        let slow = Duration::from_millis(40);
        let found = median(Duration::ZERO, || {
            calls += 1;
            // All calls of the warm-up are slow, then one of three.
            if calls <= WARM_UP || calls == WARM_UP + 2 {
                std::thread::sleep(slow);
            }
            Ok(())
        });
        assert_eq!(calls, WARM_UP + 3);
        assert!(found.unwrap() < slow);
        assert!(median(Duration::ZERO, || anyhow::bail!("no")).is_err());
    }
}
