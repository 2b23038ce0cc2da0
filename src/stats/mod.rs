//! Statistics of comparisons: from paired differences between two arms to a verdict. Pure functions, independent of
//! images and files.
//!
//! - The unit of observation is the seed, because a claim should hold for other seeds. Variation that two arms with the
//!   same seed share (data, order of the images, noise) cancels in their difference. A [`Question`] contains the
//!   difference for every seed and image.
//! - [`Estimate`] is the size of the effect with its uncertainty over seeds and images: Student's interval.
//! - `sign_flip` tests whether the mean difference of the seeds is 0. It assumes only that the differences are symmetric
//!   around 0 under the null hypothesis. With n seeds, p is at least 2^(1-n), so fewer than six seeds cannot be
//!   significant, and more claims need more seeds.
//! - [`Family`] keeps the probability of any false finding among all claims of a pipeline file at most [`ALPHA`], and
//!   that of any false equivalence as well.
//! - `verdict` combines them into an answer, which is inconclusive if the study is too small.
//! - [`Looks`] divides [`ALPHA`] among the planned looks at a growing study; [`answer`] applies the shares in a family.
//! - `power` computes how many seeds a study needs.

mod estimate;
mod family;
mod looks;
mod power;
mod sign_flip;
#[cfg(test)]
mod simulation_tests;
mod verdict;

pub use estimate::Estimate;
pub use family::Family;
pub use looks::Looks;
pub use power::{SeedsNeeded, Variation, seeds_for};
use sign_flip::{min_p, sign_flip};
pub use verdict::{Answer, Question, Verdict, answer, seeds_needed};

/// The significance level: the maximum probability that a study without any effect finds one.
pub const ALPHA: f64 = 0.05;

/// The minimum number of seeds for a verdict other than inconclusive.
pub const MIN_SEEDS: usize = 6;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
