//! The report of a run: `collect` reads its results into a data model, and `html` renders the model as a page.

mod collect;
mod html;

pub use collect::collect;
