//! The interface to the reference backend, which sets the inputs itself.

use crate::nn::composed::run::{Reference, Run, RunTape};
use crate::nn::graph::{Graph, Input, Shape as ImageShape, Time};
use crate::nn::{Device, ImageTensor};

impl Reference for Input {
    fn apply<D: Device, T: RunTape<D>>(&self, _: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        unreachable!("inputs are set before the first operation")
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        output.len()
    }
}

impl Reference for Time {
    fn apply<D: Device, T: RunTape<D>>(&self, _: &mut Run<D, T>, _: ImageShape, _: usize) -> ImageTensor<D, T> {
        unreachable!("inputs are set before the first operation")
    }

    fn allocated_len(&self, _: &Graph, output: ImageShape, _: bool) -> usize {
        output.len()
    }
}
