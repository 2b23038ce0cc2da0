//! The report of a run: `collect` gathers its results into one model, and `html` renders that as a page.

mod collect;
mod html;

pub use collect::collect;
