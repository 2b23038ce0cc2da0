//! Runs a graph with dfdx's own operations, on any of its devices; dfdx's tape computes the gradients.
//!
//! This is the reference for the fused kernels, and the implementation for devices without them. With channels last, a
//! convolution is a gather and one matrix product. Only operations whose CUDA kernels are compiled into the binary are
//! used. Those that dfdx compiles at run time (`concat_along`, `stack`, `reshape_like` of non-contiguous tensors) need
//! the CUDA headers of the machine that built the binary.

mod adam;
pub(super) mod constants;
pub mod memory;
pub(super) mod run;

use std::cell::Cell;

use anyhow::{Result, ensure};
use dfdx::prelude::*;

use super::graph::{Graph, NodeId, Shape as ImageShape};
use super::network::count_images;
use super::{
    Backend, Batch, Device, DeviceState, Gradients, ImageTensor, LossTensor, StepSettings, VectorTensor, device_error,
};

use constants::Constants;

/// `(rows, columns)`
pub(super) type Matrix<D, T = NoneTape> = Tensor<(usize, usize), f32, D, T>;
/// `(batch, positions, channels)`
pub(super) type Positions<D, T = NoneTape> = Tensor<(usize, usize, usize), f32, D, T>;

/// Runs a graph operation by operation on a dfdx device.
pub struct ComposedBackend<D: Device> {
    graph: Graph,
    device: D,
    constants: Constants<D>,
    /// The kind of the last pass, whose memory is in dfdx's cache.
    last_pass: Cell<Pass>,
    /// The memory available for parameters and passes, in bytes, if known.
    memory: Option<u64>,
}

/// The kind of a pass. Passes of the same kind allocate the same sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pass {
    training: bool,
    images: usize,
}

impl<D: Device> ComposedBackend<D> {
    pub fn new(graph: Graph, device: D) -> Result<Self> {
        // Reuse the memory of previous tensors.
        device.try_enable_cache().map_err(device_error)?;
        let last_pass = Cell::new(Pass { training: false, images: 0 });
        Ok(Self { graph, constants: Constants::new(device.clone()), device, last_pass, memory: None })
    }

    /// Sets the memory that the device has available, in bytes.
    #[cfg(feature = "cuda")]
    pub(super) fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    fn vector(&self, values: &[f32]) -> Result<VectorTensor<D>> {
        self.device.try_tensor_from_vec(values.to_vec(), (values.len(),)).map_err(device_error)
    }

    fn images(&self, values: &[f32], count: usize, shape: ImageShape) -> Result<ImageTensor<D>> {
        let dims = (count, shape.height, shape.width, shape.channels);
        self.device.try_tensor_from_vec(values.to_vec(), dims).map_err(device_error)
    }

    /// Frees cached memory before a pass of another kind, which could not reuse it.
    fn begin_pass(&self, pass: Pass) -> Result<()> {
        if self.last_pass.replace(pass) != pass {
            self.device.try_empty_cache().map_err(device_error)?;
        }
        Ok(())
    }

    /// Returns the values of `nodes`, given images and times in host memory.
    fn run(&self, params: &[VectorTensor<D>], x: &[f32], t: &[f32], nodes: &[NodeId]) -> Result<Vec<ImageTensor<D>>> {
        let images = count_images(&self.graph, x, t)?;
        self.begin_pass(Pass { training: false, images })?;
        let x = self.images(x, images, self.graph.input_shape())?;
        Ok(run::run(&self.graph, &self.constants, params, (x, self.vector(t)?), NoneTape, nodes).0)
    }
}

impl<D: Device> Drop for ComposedBackend<D> {
    /// Frees the memory in dfdx's cache, because dfdx does not.
    fn drop(&mut self) {
        // A failed device fails here too; its memory is freed when the process exits.
        let _ = self.device.try_disable_cache();
    }
}

impl<D: Device + 'static> Backend for ComposedBackend<D> {
    type Device = D;

    fn device(&self) -> &D {
        &self.device
    }

    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn forward(&self, params: &[VectorTensor<D>], x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
        let output = &self.run(params, x, t, &[self.graph.output()])?[0];
        ensure!(
            y.len() == output.shape().num_elements(),
            "expected a buffer for values of {:?}, found {} values",
            output.shape(),
            y.len()
        );
        output.copy_into(y);
        Ok(())
    }

    fn values(&self, params: &[VectorTensor<D>], x: &[f32], t: &[f32], nodes: &[NodeId]) -> Result<Vec<Vec<f32>>> {
        Ok(self.run(params, x, t, nodes)?.iter().map(|value| value.as_vec()).collect())
    }

    fn max_batch(&self, training: bool) -> Option<usize> {
        let free = self.memory?.saturating_sub(memory::parameter_bytes(&self.graph) as u64);
        Some((free / memory::bytes_per_image(&self.graph, training) as u64) as usize)
    }

    fn loss(&self, params: &[VectorTensor<D>], batch: Batch) -> Result<LossTensor<D>> {
        let images = batch.count_images(&self.graph)?;
        self.begin_pass(Pass { training: true, images })?;
        let x = self.images(batch.x, images, self.graph.input_shape())?;
        let target = self.images(batch.target, images, self.graph.output_shape())?;
        let inputs = (x, self.vector(batch.t)?);
        let output = [self.graph.output()];
        let (mut values, tape) = run::run(&self.graph, &self.constants, params, inputs, OwnedTape::default(), &output);
        let y = values.pop().expect("one value was requested");
        let error = (y.put_tape(tape) - target).square();
        let error: VectorTensor<D, _> = error.mean::<_, Axes3<1, 2, 3>>();
        Ok((error * self.vector(batch.weights)?).mean())
    }

    fn update(&self, state: &mut DeviceState<D>, gradients: Gradients<D>, settings: &StepSettings) -> Result<f32> {
        adam::update(state, gradients, settings)
    }
}
