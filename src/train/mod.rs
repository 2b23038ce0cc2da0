//! Training: batches from image pairs, the training loop, the optimiser's schedule, and snapshots for resuming.
//!
//! The loop is independent of diffusion, and the task is independent of optimisers. Every random number is a function
//! of the seed and the step, so training resumed from a [`Snapshot`] gives bit-identical results.

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
pub use speed::measure;
pub use task::{Pairs, Task, initial_state};
pub use trainer::{Tick, train};
