//! Training: batches from image pairs, the training loop, the optimiser's settings, and snapshots for resuming; also
//! budgets, the measurement of speed, and the comparison of backends.
//!
//! A [`Task`] turns images into batches, a [`Recipe`] contains the optimiser's settings for each step, and [`train`]
//! combines them. Every random number is a function of the seed and the step, so training resumed from a [`Snapshot`]
//! gives bit-identical results.

pub mod agreement;
mod budget;
mod layers;
mod log;
mod recipe;
mod snapshot;
mod speed;
mod task;
mod trainer;

pub use budget::{fix_steps, training_cost};
pub use log::LossLog;
pub use recipe::Recipe;
pub use snapshot::Snapshot;
pub use speed::measure_speed;
pub use task::{Pairs, Task, initial_state};
pub use trainer::{Progress, train};
