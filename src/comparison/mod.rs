//! The results of a comparison: measurements of each arm, their summary, claims, and plots.
//!
//! Everything here is a pure function from values to bytes and strings; nothing reads files.
//!
//! - `measured`: the metrics of an arm for each image. `summary`: their means, as in `summary.json`. `claims`: answers.
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
