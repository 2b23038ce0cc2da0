//! Training: batches from pairs of images, the loop, the optimiser's schedule, and what an interruption must not lose.
//!
//! The loop knows nothing of diffusion and the task nothing of optimisers. Every random number is a function of the
//! seed and the step, so a training that goes on from a [`Snapshot`] ends in the same bytes as one that never stopped.

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
pub use speed::{Speed, measure};
pub use task::{Pairs, Task, initial_state};
pub use trainer::{Tick, train};
