//! The results of a comparison: what was measured of each arm, its summary, claims, and pictures.
//!
//! Values go in; bytes and strings come out, identical for identical values. Nothing here reads files.
//!
//! - `measured`: the metrics of an arm, image by image. `summary`: their means, as in `summary.json`. `claims`: answers.
//! - `grid`: `comparison.png`. `loss`: `loss.csv` and `loss.png`. `canvas`, `axis`, `text`, `names`: drawing.

pub mod axis;
mod canvas;
mod claims;
mod grid;
pub mod loss;
mod measured;
pub mod names;
pub mod summary;
mod text;

pub use claims::{ClaimAnswer, Convergence, Effort, answers};
pub use grid::{Column, MANY_COLUMNS, comparison};
pub use loss::{Curve, LossRow, loss_curves, read_loss};
pub use measured::{Measured, metrics_csv};
pub use summary::{ArmSummary, BICUBIC, Figures, SCHEMA, Summary};
