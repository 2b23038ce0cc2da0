//! The constants that operations use, created once and cached on the device.

use std::cell::RefCell;
use std::collections::HashMap;

use dfdx::prelude::*;

use super::{Device, Matrix, Positions, VectorTensor};
use crate::nn::graph::{self, Shape as ImageShape};

/// The indices of a gather of rows, for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// All `len` rows, then an additional one with unspecified content.
    WithPadding { len: usize },
    /// The 3×3 neighbours of every position of a feature map; positions outside of it map to the row after the last.
    Neighbours { height: usize, width: usize },
    /// `(H, W, 2, 2)` to `(2H, 2W)`.
    Upsampled { height: usize, width: usize },
    /// `(len, heads)` to `(heads, len)`.
    HeadsFirst { heads: usize, len: usize },
    /// `(heads, len)` to `(len, heads)`.
    HeadsLast { heads: usize, len: usize },
}

impl Rows {
    fn indices(self) -> Vec<usize> {
        match self {
            Self::WithPadding { len } => (0..len).chain([0]).collect(),
            Self::Neighbours { height, width } => {
                let row = |y: usize, x: usize| {
                    // Coordinates plus one, so that they are not negative.
                    let inside = (1..=height).contains(&y) && (1..=width).contains(&x);
                    if inside { (y - 1) * width + x - 1 } else { height * width }
                };
                let offsets = || (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx)));
                positions(height, width).flat_map(|(y, x)| offsets().map(move |(dy, dx)| row(y + dy, x + dx))).collect()
            }
            Self::Upsampled { height, width } => positions(2 * height, 2 * width)
                .map(|(y, x)| ((y / 2 * width + x / 2) * 2 + y % 2) * 2 + x % 2)
                .collect(),
            Self::HeadsFirst { heads, len } => {
                positions(heads, len).map(|(head, position)| position * heads + head).collect()
            }
            Self::HeadsLast { heads, len } => {
                positions(len, heads).map(|(position, head)| head * len + position).collect()
            }
        }
    }
}

/// Yields all positions, row by row.
fn positions(height: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Constant {
    /// Ones, then a single zero.
    AllButLast {
        len: usize,
    },
    /// The matrix that places `channels` channels at position `first` among `total`: ones on one diagonal, otherwise
    /// zeros.
    ChannelPlacement {
        channels: usize,
        first: usize,
        total: usize,
    },
    Frequencies {
        channels: usize,
    },
    PositionEncoding {
        shape: ImageShape,
        spacing: usize,
        images: usize,
    },
}

impl Constant {
    fn values(self) -> Vec<f32> {
        match self {
            Self::AllButLast { len } => (0..len).map(|i| if i + 1 < len { 1.0 } else { 0.0 }).collect(),
            Self::ChannelPlacement { channels, first, total } => {
                let one = |(from, to): (usize, usize)| if to == first + from { 1.0 } else { 0.0 };
                positions(channels, total).map(one).collect()
            }
            Self::Frequencies { channels } => graph::sinusoid_frequencies(channels),
            Self::PositionEncoding { shape, spacing, images } => {
                graph::position_encoding(shape, spacing).repeat(images)
            }
        }
    }
}

/// The indices of a gather, `(images, rows)`.
type RowTensor<D> = Tensor<(usize, usize), usize, D>;

/// The cache of constants on a device.
pub struct Constants<D: Device> {
    device: D,
    rows: RefCell<HashMap<(Rows, usize), RowTensor<D>>>,
    constants: RefCell<HashMap<Constant, VectorTensor<D>>>,
}

impl<D: Device> Constants<D> {
    pub(super) fn new(device: D) -> Self {
        Self { device, rows: RefCell::default(), constants: RefCell::default() }
    }

    /// Returns the indices of a gather for `images` images.
    pub fn rows(&self, rows: Rows, images: usize) -> RowTensor<D> {
        let create = || {
            let list = rows.indices();
            let shape = (images, list.len());
            self.device.tensor_from_vec(list.repeat(images), shape)
        };
        self.rows.borrow_mut().entry((rows, images)).or_insert_with(create).clone()
    }

    fn constant(&self, constant: Constant) -> VectorTensor<D> {
        let create = || {
            let list = constant.values();
            let len = list.len();
            self.device.tensor_from_vec(list, (len,))
        };
        self.constants.borrow_mut().entry(constant).or_insert_with(create).clone()
    }

    /// Returns `len - 1` ones, then a zero.
    pub(in crate::nn) fn all_but_last(&self, len: usize) -> VectorTensor<D> {
        self.constant(Constant::AllButLast { len })
    }

    /// Returns the matrix that places `channels` channels at position `first` among `total` channels.
    pub(in crate::nn) fn channel_placement(&self, channels: usize, first: usize, total: usize) -> Matrix<D> {
        self.constant(Constant::ChannelPlacement { channels, first, total }).reshape_like(&(channels, total))
    }

    /// Returns [`graph::sinusoid_frequencies`], `(1, channels / 2)`.
    pub fn frequencies(&self, channels: usize) -> Matrix<D> {
        let frequencies = self.constant(Constant::Frequencies { channels });
        let n = frequencies.shape().0;
        frequencies.reshape_like(&(1usize, n))
    }

    /// Returns [`graph::position_encoding`] for all images, `(images, H·W, C)`.
    pub fn position_encoding(&self, shape: ImageShape, spacing: usize, images: usize) -> Positions<D> {
        let position_encoding = self.constant(Constant::PositionEncoding { shape, spacing, images });
        position_encoding.reshape_like(&(images, shape.positions(), shape.channels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_indices_are_correct() {
        assert_eq!(Rows::WithPadding { len: 3 }.indices(), [0, 1, 2, 0]);
        let neighbours = Rows::Neighbours { height: 2, width: 2 }.indices();
        assert_eq!(neighbours.len(), 4 * 9);
        assert_eq!(neighbours[..9], [4, 4, 4, 4, 0, 1, 4, 2, 3]);
        assert_eq!(neighbours[27..], [0, 1, 4, 2, 3, 4, 4, 4, 4]);
        // Position (1, 0) of the result comes from value 4 · 0 + 2 of (1, 2, 2, 2); position (0, 2) from value 4 · 1.
        assert_eq!(Rows::Upsampled { height: 1, width: 2 }.indices(), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(Rows::HeadsFirst { heads: 2, len: 3 }.indices(), [0, 2, 4, 1, 3, 5]);
        assert_eq!(Rows::HeadsLast { heads: 2, len: 3 }.indices(), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn channel_placements_have_ones_at_the_placed_channels() {
        let (a, b) = (
            Constant::ChannelPlacement { channels: 1, first: 0, total: 3 },
            Constant::ChannelPlacement { channels: 2, first: 1, total: 3 },
        );
        assert_eq!(a.values(), [1.0, 0.0, 0.0]);
        assert_eq!(b.values(), [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(Constant::AllButLast { len: 3 }.values(), [1.0, 1.0, 0.0]);
    }
}
