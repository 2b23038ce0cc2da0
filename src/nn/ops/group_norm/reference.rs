//! The reference implementation, with dfdx's operations.

use dfdx::prelude::*;

use crate::nn::composed::Matrix;
use crate::nn::composed::run::{Reference, Run, RunTape, copy_before_slice, shaped};
use crate::nn::graph::{FilmNorm, Graph, GroupNorm, Shape as ImageShape};
use crate::nn::{Device, ImageTensor};

impl Reference for GroupNorm {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let x = run.taped(self.x);
        group_norm(run, self, x)
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        5 * output.len()
    }
}

impl Reference for FilmNorm {
    fn apply<D: Device, T: RunTape<D>>(&self, run: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        let x = run.taped(self.norm.x);
        let shape = *x.shape();
        let part = |channels: std::ops::Range<usize>| -> ImageTensor<D, T> {
            let v: Matrix<D, T> = shaped(run.retaped(self.v), (shape.0, 2 * shape.3));
            copy_before_slice(v).slice((.., channels)).broadcast_like::<_, Axes2<1, 2>>(&shape)
        };
        let y = group_norm(run, &self.norm, x);
        y * (part(0..shape.3) + 1.0) + part(shape.3..2 * shape.3)
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        7 * output.len()
    }
}

/// Computes the normalisation with its scale and shift per channel.
fn group_norm<D: Device, T: RunTape<D>>(run: &Run<D, T>, norm: &GroupNorm, x: ImageTensor<D, T>) -> ImageTensor<D, T> {
    let x = normalize(x, norm.groups);
    let shape = *x.shape();
    x * run.param(norm.weight).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
        + run.param(norm.bias).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
}

/// Computes (x − mean) / √(variance + ε) for each image and group of channels.
fn normalize<D: Device, T: RunTape<D>>(x: ImageTensor<D, T>, groups: usize) -> ImageTensor<D, T> {
    let (b, h, w, c) = *x.shape();
    let x: ImageTensor<D, T> = shaped(x, (b, h * w, groups, c / groups));
    let shape = *x.shape();
    let mean = x.with_empty_tape().mean::<(usize, usize), Axes2<1, 3>>();
    let x = x - mean.broadcast_like::<_, Axes2<1, 3>>(&shape);
    let variance = x.with_empty_tape().square().mean::<(usize, usize), Axes2<1, 3>>();
    let deviation = (variance + 1e-5).sqrt().broadcast_like::<_, Axes2<1, 3>>(&shape);
    shaped(x / deviation, (b, h, w, c))
}
