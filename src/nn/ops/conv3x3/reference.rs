//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::Positions;
use crate::nn::composed::constants::Rows;
use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::graph::{Conv3x3, Graph, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for Conv3x3 {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let (b, h, w, c) = *run.value(self.x).shape();
        let x = run.taped(self.x);
        let columns = shaped(neighbourhoods(run, x), (b * h * w, 9 * c));
        run.affine(columns, self.weight, self.bias, (b, h, w))
    }

    fn allocated_len(&self, graph: &Graph, output: ImageShape, _: bool) -> usize {
        // Of the input: two copies with a row of zeros, and nine with the neighbours. Of the output: the product,
        // without and with the bias.
        11 * output.positions() * graph.shape(self.x).channels + 2 * output.len()
    }
}

/// Returns the 3×3 neighbourhood of every position, `(B, H·W·9, C)`. Positions outside the image read a row of zeros,
/// which is appended to the others.
fn neighbourhoods<D: Device, T: RunTape<D>>(run: &Run<D, T>, x: ImageTensor<D, T>) -> Positions<D, T> {
    let (b, height, width, c) = *x.shape();
    let len = height * width;
    let x: Positions<D, T> = shaped(x, (b, len, c));
    let x = x.gather(run.constants.rows(Rows::WithPadding { len }, b));
    let inside = run.constants.all_but_last(len + 1).retaped::<T>();
    let x = x * inside.broadcast_like::<_, Axes2<0, 2>>(&(b, len + 1, c));
    x.gather(run.constants.rows(Rows::Neighbours { height, width }, b))
}
