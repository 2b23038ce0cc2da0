//! Images: where they come from and how they are resized. Knows files and pixels, not stages.
//!
//! - [`images`]: [`Images`] and their file format, safetensors with one u8 tensor (`byte_tensor`).
//! - [`cifar`]: CIFAR-10's records and splits; [`archive`] reads them out of a `.tar.gz` that nobody vouches for;
//!   [`download`] fetches that archive over an unreliable connection; [`http`] sets the limits of all connections.
//! - [`folder`]: the user's own files, cut to one size; [`picture`] reads and writes such files.
//! - [`samples`]: [`Samples`], several super-resolved versions of each image, and their file.
//! - [`synthetic`]: generated images, every one a function of (seed, split, index).
//! - [`resample`]: enlarging and shrinking by whole factors.
//! - [`tiles`]: large images as overlapping tiles, and back.

mod byte_tensor;
pub mod cifar;
pub mod download;
pub mod folder;
pub mod images;
pub mod picture;
pub mod resample;
pub mod samples;
pub mod synthetic;
pub mod tiles;

pub use byte_tensor::Metadata;
pub use images::Images;
pub use samples::Samples;

/// The three splits of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splits {
    pub train: Images,
    pub validation: Images,
    pub test: Images,
}
