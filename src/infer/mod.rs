//! Inference with trained networks.
//!
//! - [`Denoiser`]: a checkpoint's network, which estimates clean images from noisy ones.
//! - [`BatchSampler`]: samples for batches of images of the model's size. [`TiledSampler`]: for images of any size.
//! - [`AttentionMaps`]: which positions each position of an attention layer attends to.

mod attention_maps;
mod batches;
mod denoiser;
mod tiled;

pub use attention_maps::AttentionMaps;
pub use batches::BatchSampler;
pub use denoiser::Denoiser;
pub use tiled::TiledSampler;
