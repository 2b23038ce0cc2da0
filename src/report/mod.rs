//! What people look at: the summary of a comparison, its claims, pictures, loss curves and the report of a run.
//!
//! Values go in, bytes or strings come out, the same for the same values; nothing here reads files or prints.

mod axis;
mod canvas;
mod claims;
mod grid;
pub mod html;
mod loss;
mod measured;
mod names;
mod summary;
mod text;

pub use claims::{ClaimAnswer, Convergence, Effort, answers};
pub use grid::{Column, MANY_COLUMNS, comparison};
pub use loss::{Curve, LossRow, loss_curves, read_loss};
pub use measured::{Measured, metrics_csv};
pub use summary::{ArmSummary, BICUBIC, Figures, SCHEMA, Summary};
