//! What a study shows: from paired differences of two arms to a verdict. Pure; nothing here knows of images or files.
//!
//! - The unit is the seed: whatever two arms of one seed share (data, initial weights, noise) cancels in their
//!   difference, and seeds are what a claim is to hold for. [`Question`] has the difference of every seed and image.
//! - `signs` tests whether the seeds agree on a direction, without assuming a distribution. With n seeds its p is at
//!   least 2^(1-n): nothing can be shown with fewer than six, and with more claims it takes more.
//! - `holm` holds the chance of any false finding among all claims of a study at [`ALPHA`].
//! - `bootstrap` tells how large the effect may be, for other seeds and other images.
//! - `verdict` decides, and says so where a study was too small to decide anything.

mod bootstrap;
mod holm;
mod sign_flip;
#[cfg(test)]
mod simulation;
mod verdict;

pub use bootstrap::interval;
pub use holm::holm;
pub use sign_flip::{min_p, sign_flip};
pub use verdict::{Answer, Question, Verdict, answer, seeds_needed};

/// The chance that a study without any effect shows one.
pub const ALPHA: f64 = 0.05;

/// With fewer seeds nothing is decided.
pub const MIN_SEEDS: usize = 6;

/// Resamples of a bootstrap.
pub const RESAMPLES: usize = 10_000;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
