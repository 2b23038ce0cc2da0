//! The mathematics of denoising diffusion: noise schedules, prediction types, samplers. Everything is in `f64`,
//! independent of layers and images; the caller passes the network as a function.

mod objective;
mod sampler;
#[cfg(test)]
mod sampler_tests;
mod schedule;

use objective::half_log_snr;
pub use objective::{loss_weight, predict_x0, training_target};
pub use sampler::{Step, evaluations, sample, steps, times};
pub use schedule::Schedule;
