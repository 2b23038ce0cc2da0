//! The operations of a network, one folder each.
//!
//! The folder of an operation contains everything about it except its fields, which are in [`graph::op`](super::graph),
//! and its fusion with other operations, which `fused::plan` decides:
//!
//! - `mod.rs`: the method of [`Graph`](super::Graph) that checks shapes and appends the operation; its FLOPs, and
//!   whether it needs gradients ([`Operation`]).
//! - `reference.rs`: the implementation with dfdx's operations, on any device ([`Reference`]).
//! - `cpu.rs`: the forward and backward pass with kernels for the CPU ([`CpuKernel`]); `kernel.rs` and others: the
//!   kernels that only this operation uses, or that a related one shares. Kernels for other devices or number formats
//!   belong here as well.
//!
//! To add an operation, declare its fields in `graph/op.rs`, create its folder here, and list it in `match_op`.

// Register tiles are parallel arrays, indexed together.
#![allow(clippy::needless_range_loop)]

mod add;
mod add_vector;
mod attention;
mod concat;
mod conv3x3;
mod gate;
mod group_norm;
mod input;
mod linear;
mod linear_attention;
mod max_pool2x2;
mod mean_pool;
mod position_encoding;
mod silu;
mod time_encoding;
mod up_conv2x2;

use super::composed::run::{Reference, Run, RunTape};
use super::fused::pass::CpuKernel;
use super::graph::{Graph, Node, NodeId, Op, Operation, Shape};
use super::{Device, ImageTensor};

/// Evaluates an expression with `$name` bound to the fields of an operation, whichever it is.
macro_rules! match_op {
    ($op:expr, $name:ident => $result:expr) => {
        match $op {
            Op::Input($name) => $result,
            Op::Time($name) => $result,
            Op::TimeEncoding($name) => $result,
            Op::PositionEncoding($name) => $result,
            Op::Conv3x3($name) => $result,
            Op::Linear($name) => $result,
            Op::UpConv2x2($name) => $result,
            Op::GroupNorm($name) => $result,
            Op::FilmNorm($name) => $result,
            Op::Silu($name) => $result,
            Op::MaxPool2x2($name) => $result,
            Op::MeanPool($name) => $result,
            Op::Concat($name) => $result,
            Op::Add($name) => $result,
            Op::AddVector($name) => $result,
            Op::Attention($name) => $result,
            Op::LinearAttention($name) => $result,
            Op::Gate($name) => $result,
        }
    };
}

impl Op {
    /// Returns the properties of the operation that do not depend on the backend.
    pub fn operation(&self) -> &dyn Operation {
        match_op!(self, op => op)
    }

    /// Returns the nodes that the operation reads, in a fixed order.
    pub fn inputs(&self) -> Vec<NodeId> {
        self.operation().inputs()
    }

    /// Returns the kernels for the CPU.
    pub(super) fn cpu(&self) -> &dyn CpuKernel {
        match_op!(self, op => op)
    }

    /// Returns the size of all values that the reference implementation allocates for one image, including the result,
    /// in numbers.
    pub(super) fn reference_len(&self, graph: &Graph, output: Shape, training: bool) -> usize {
        match_op!(self, op => op.allocated_len(graph, output, training))
    }
}

impl Node {
    /// Computes the node's value with the reference implementation.
    pub(super) fn apply_reference<D: Device, T: RunTape<D>>(
        &self,
        run: &mut Run<D, T>,
        images: usize,
    ) -> ImageTensor<D, T> {
        match_op!(self.op, op => op.apply(run, self.shape, images))
    }
}
