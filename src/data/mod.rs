//! Images: sources, file formats and resizing. Works on files and pixels, and does not depend on stages.
//!
//! - [`images`]: [`Images`] and their file format, safetensors with one u8 tensor (`byte_tensor`).
//! - [`cifar`]: CIFAR-10's archive, records and splits; [`download`] fetches the archive over an unreliable connection.
//! - [`folder`]: the user's own files, cropped or resized to one size; [`picture`] decodes and encodes such files.
//! - [`samples`]: [`Samples`], several super-resolved versions of each image, and their file format.
//! - [`synthetic`], [`maps`]: generated images, each a function of (seed, split, index).
//! - [`resample`]: enlarging and shrinking by integer factors.
//! - [`tiles`]: splits large images into overlapping tiles and blends the tiles back together.

mod byte_tensor;
pub mod cifar;
pub mod download;
pub mod folder;
pub mod images;
pub mod maps;
pub mod picture;
pub mod resample;
pub mod samples;
pub mod synthetic;
pub mod tiles;

pub use byte_tensor::Metadata;
pub use images::Images;
pub use samples::Samples;

/// The split of a generated image. Images of different splits are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Split {
    Train = 0,
    Validation = 1,
    Test = 2,
}

/// The three splits of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splits {
    pub train: Images,
    pub validation: Images,
    pub test: Images,
}
