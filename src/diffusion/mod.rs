//! The mathematics of denoising diffusion: schedules, objectives, samplers. No layers, no images, `f64` throughout; a
//! network is a function that a caller passes in.

mod objective;
mod sampler;
mod schedule;

pub use objective::{clean, training_target};
pub use sampler::{Step, sample, steps, times};
pub use schedule::Schedule;
