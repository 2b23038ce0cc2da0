//! The networks, wiring only: which operations on which channels, under which parameter names. How they are computed
//! is `nn`'s.

mod attention;
mod checkpoint;
mod cost;
mod projection;
mod target;
mod unet;

pub use checkpoint::{Checkpoint, Config};
pub use cost::ModelCost;
pub use projection::match_means;
pub use target::{TargetSpace, denormalize, interleave, normalize};
pub use unet::unet;
