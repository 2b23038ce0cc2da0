//! The results of a comparison: measurements of each arm, their summary, claims, and plots.
//!
//! Everything here is a pure function from values to bytes and strings; nothing reads files.
//!
//! - `measured`: the metrics of an arm for each image. `independence`: which runs count as independent. `figures`: one value per metric. `claims`: answers. `summary`:
//!   means and answers, as in `summary.json`.
//! - `grid`: `comparison.png`. `loss`: `loss.csv` and `loss.png`. `canvas`, `color`, `axis`, `text`, `names`: drawing.

pub mod axis;
mod canvas;
mod claims;
mod color;
mod figures;
mod grid;
mod independence;
pub mod loss;
mod measured;
pub mod names;
mod summary;
#[cfg(test)]
pub mod testing;
mod text;

pub use claims::{ClaimAnswer, Convergence, Effort, answers};
pub use figures::Figures;
pub use grid::{Column, MANY_COLUMNS, comparison};
pub use loss::{Curve, LossRow, loss_curves, read_loss};
pub use measured::{BICUBIC, Measured, floors, metrics_csv};
pub use summary::Summary;
