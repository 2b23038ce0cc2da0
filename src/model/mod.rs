//! The networks, wiring only: which operations on which channels, under which parameter names. How they are computed
//! is `nn`'s.

mod checkpoint;
mod unet;

pub use checkpoint::{Checkpoint, Config};
pub use unet::unet;
