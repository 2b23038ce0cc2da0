//! The mathematics of denoising diffusion: schedules, objectives, samplers. No layers, no images, `f64` throughout; a
//! network is a function that a caller passes in.

mod objective;
mod sampler;
#[cfg(test)]
mod sampler_tests;
mod schedule;

pub use objective::{clean, half_log_snr, loss_weight, training_target};
pub use sampler::{Step, evaluations, sample, steps, times};
pub use schedule::Schedule;
