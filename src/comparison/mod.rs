//! The results of a comparison: measurements of each arm, their summary, claims, and plots.
//!
//! Everything here is a pure function from values to bytes and strings; nothing reads files.
//!
//! - `measured`: the metrics of an arm for each image. `independence`: which runs count as independent. `figures`: one
//!   value per metric. `paired`: differences between two arms. `planned`: planned looks at a growing study.
//!   `convergence`: training effort until the same loss.
//!   `claims`: answers to claims. `looks`: which answers are exploratory. `differences`: every metric against one control.
//!   `summary`: means and answers, as in `summary.json`. [`selection`]: the best arm of a summary.
//! - `grid`: `comparison.png`. `loss`: `loss.csv` and `loss.png`. `canvas`, `color`, `axis`, `text`, `names`: drawing.

pub mod axis;
mod canvas;
mod claims;
mod color;
mod convergence;
mod differences;
mod figures;
mod grid;
mod independence;
pub mod looks;
pub mod loss;
mod measured;
pub mod names;
mod paired;
mod planned;
pub mod selection;
mod summary;
#[cfg(test)]
pub mod testing;
mod text;

pub use claims::{ClaimAnswer, PlannedLook, answers};
pub use convergence::{Convergence, Effort};
pub use differences::{Difference, against, best};
pub use figures::Figures;
pub use grid::{Column, MANY_COLUMNS, comparison};
pub use independence::merge_copies;
pub use loss::{Curve, LossRow, loss_curves, read_loss};
pub use measured::{BICUBIC, Measured, floors, metrics_csv};
pub use summary::{ArmSummary, Summary};
