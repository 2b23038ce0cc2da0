//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::graph::{Graph, PositionEncoding, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for PositionEncoding {
    fn apply<D: Device, T: RunTape<D>>(
        &self,
        run: &mut Run<D, T>,
        output: ImageShape,
        images: usize,
    ) -> ImageTensor<D, T> {
        let encoding = run.constants.position_encoding(output, self.spacing, images);
        shaped(encoding, (images, output.height, output.width, output.channels)).put_tape(run.take_tape())
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        output.len()
    }
}
