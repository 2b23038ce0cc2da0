//! Networks, their checkpoints and their costs. This module decides which operations a network has, on how many
//! channels and with which parameter names; `nn` computes them.
//!
//! - `unet`: the U-Net; `attention`: its attention layers and their controls; `norm`: the number of groups of a
//!   normalisation.
//! - `checkpoint`: a trained model as a safetensors file.
//! - `cost`: parameters and FLOPs.
//! - `target`: the conversion between images and what the network predicts; `projection`: consistency with the
//!   low-resolution image.

mod attention;
mod checkpoint;
mod cost;
mod norm;
mod projection;
mod target;
mod unet;

pub use checkpoint::{Checkpoint, Config};
pub use cost::ModelCost;
pub use projection::match_means;
pub use target::{TargetSpace, denormalize, interleave, normalize};
pub use unet::unet;
