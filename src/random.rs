//! Counter-based random numbers: every number is a function of (seed, purpose, step, index). It does not depend on what
//! was drawn before, on threads, or on interruptions.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The purpose of a stream. Streams for different purposes are independent. The discriminants are part of the seed and
/// must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights; step: the hash of the parameter's name.
    Weights = 1,
    /// The order of the training images; step: the epoch.
    Shuffle = 2,
    /// Horizontal flips; step: the training step; index: the position in the batch.
    Flip = 3,
    /// The time of the diffusion process; step and index as for `Flip`.
    Time = 4,
    /// The noise in training; step and index as for `Flip`.
    TrainNoise = 5,
    /// Noise for the validation loss and for attention maps; index: the image.
    Validation = 6,
    /// The initial noise of a sample; step: the sample; index: the test image.
    SampleStart = 7,
    /// The noise added during sampling; step: sample and time; index: the test image.
    SampleNoise = 8,
    /// Images of the synthetic dataset; step: the split; index: the image.
    Synthetic = 9,
    /// Directions for projecting patches; index: the direction.
    Projection = 10,
    /// Random signs of the sign-flip test; index: the draw.
    SignFlip = 12,
    /// Images of the dataset of maps; step: the split; index: the image.
    Maps = 13,
}

/// An independent stream of random numbers.
pub struct Stream(ChaCha8Rng);

/// Returns the stream for `purpose` at `step` and `index`, under `seed`.
pub fn stream(seed: u64, purpose: Purpose, step: u64, index: u64) -> Stream {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&step.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    Stream(rng)
}

impl Stream {
    /// Returns a uniform 64-bit integer.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a uniform number in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0.r#gen()
    }

    /// Returns a uniform number in [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Returns a uniform integer in 0..n. Panics if n is 0.
    pub fn below(&mut self, n: usize) -> usize {
        // Always u64, so that the numbers are the same on every platform.
        self.0.gen_range(0..n as u64) as usize
    }

    /// Returns true or false with equal probability.
    pub fn coin(&mut self) -> bool {
        self.0.next_u32() & 1 == 1
    }

    /// Returns a standard normal number.
    pub fn normal(&mut self) -> f64 {
        self.0.sample(StandardNormal)
    }

    /// Fills `values` with standard normal numbers.
    pub fn fill_normal(&mut self, values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = self.0.sample(StandardNormal));
    }

    /// Returns a uniformly random permutation of 0..n.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_only_on_seed_purpose_step_and_index() {
        let draw = |seed, purpose, step, index| stream(seed, purpose, step, index).next_u64();
        let first = draw(1, Purpose::Time, 2, 3);
        assert_eq!(first, draw(1, Purpose::Time, 2, 3));
        for other in [
            draw(2, Purpose::Time, 2, 3),
            draw(1, Purpose::Flip, 2, 3),
            draw(1, Purpose::Time, 3, 3),
            draw(1, Purpose::Time, 2, 4),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let mut values = vec![0.0; 100_000];
        stream(0, Purpose::TrainNoise, 0, 0).fill_normal(&mut values);
        let mean = values.iter().map(|&v| v as f64).sum::<f64>() / 1e5;
        let variance = values.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / 1e5;
        // Tolerances of five standard errors: 1/√n and √(2/n).
        assert!(mean.abs() < 0.016 && (variance - 1.0).abs() < 0.023, "{mean} {variance}");
    }

    #[test]
    fn a_permutation_contains_every_index_once() {
        let mut order = stream(3, Purpose::Shuffle, 0, 0).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
