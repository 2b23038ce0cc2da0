//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::Positions;
use crate::nn::composed::run::{Reference, Run, RunTape, shaped};
use crate::nn::graph::{Graph, MaxPool2x2, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for MaxPool2x2 {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let x = run.taped(self.x);
        let (b, h, w, c) = *x.shape();
        let rows = shaped(x, (b, h / 2, 2usize, w / 2 * 2 * c));
        let rows: Positions<D, T> = rows.max::<_, Axis<2>>();
        let rows: ImageTensor<D, T> = shaped(rows, (b * (h / 2), w / 2, 2usize, c));
        let rows: Positions<D, T> = rows.max::<_, Axis<2>>();
        shaped(rows, (b, h / 2, w / 2, c))
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        3 * output.len()
    }
}
