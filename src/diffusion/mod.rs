//! The mathematics of denoising diffusion: noise schedules, prediction types, samplers. All values are `f64`. Nothing
//! here depends on networks or images; the caller passes the network as a function.

mod prediction;
mod sampler;
#[cfg(test)]
mod sampler_tests;
mod schedule;

use prediction::half_log_snr;
pub use prediction::{loss_weight, predict_x0, training_target};
pub use sampler::{Step, evaluations, sample, steps, times};
pub use schedule::Schedule;
