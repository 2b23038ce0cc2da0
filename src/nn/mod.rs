//! Neural networks as data, their parameters, and the backends that run them. Built on dfdx's tensors and devices.
//!
//! - [`graph`]: a network as a list of operations on the values of one image, channels-last. Built by `model`.
//! - `ops`: the operations, one folder each, with shapes, FLOPs, the reference implementation and the kernels.
//! - [`Backend`]: runs a graph on dfdx tensors. [`composed`] builds each operation from dfdx's operations, on any
//!   device. [`fused`] runs whole images through this crate's kernels on dfdx's `Cpu`; it is tested against `composed`.
//! - [`Network`]: a graph with its backend, parameters and optimiser state, as one trait object. The layers above run
//!   networks only through it; from `fused` they use the instruction set, the memory estimate and the peak FLOP/s.
//! - [`attention_weights`]: recomputes the attention weights of a layer, for visualisation.
//! - `cuda`: opens GPUs; compiled with the feature of the same name.
//! - `device_error`: turns device failures into errors with remedies.
//!
//! This module does not depend on diffusion, and no other module names a dfdx type. All `unsafe` code of the crate is
//! in `fused`, in `ops`, and in the loading of CUDA's libraries.

pub mod attention_weights;
pub mod composed;
#[cfg(feature = "cuda")]
mod cuda;
mod device_error;
pub mod fused;
pub mod graph;
mod network;
mod ops;

use dfdx::prelude::{OwnedTape, Rank0, Tensor};

pub use device_error::OutOfMemory;
use device_error::device_error;
pub use graph::Graph;
pub use network::{Batch, Network, StepReport, StepSettings, TrainState, create_network_on};

/// A dfdx device that can run every composed operation.
pub trait Device: dfdx::prelude::Device<f32> + dfdx::prelude::Cache {}
impl<D: dfdx::prelude::Device<f32> + dfdx::prelude::Cache> Device for D {}

/// A batch of images, `(batch, height, width, channels)`.
type ImageTensor<D, T = dfdx::prelude::NoneTape> = Tensor<(usize, usize, usize, usize), f32, D, T>;
/// One number per image, `(batch,)`; also a flat parameter, in the layout that its operation defines.
type VectorTensor<D, T = dfdx::prelude::NoneTape> = Tensor<(usize,), f32, D, T>;
/// A loss with the tape that computes its gradients.
type LossTensor<D> = Tensor<Rank0, f32, D, OwnedTape<f32, D>>;
/// The gradients of the parameters.
type Gradients<D> = dfdx::prelude::Gradients<f32, D>;

/// Runs one graph on one dfdx device.
///
/// `params` are in the order of [`Graph::params`], each flat and in the layout given by [`graph::Op`]. Images are
/// passed in and out in host memory. Results must not depend on the number of threads.
pub trait Backend: 'static {
    type Device: Device;

    /// Returns the device that the parameters live on.
    fn device(&self) -> &Self::Device;

    /// Returns the graph that this backend runs.
    fn graph(&self) -> &Graph;

    /// Writes the network's output for images `x: (B, H, W, C_in)` at times `t: (B,)` to `y: (B, H, W, C_out)`.
    fn forward(&self, params: &[VectorTensor<Self::Device>], x: &[f32], t: &[f32], y: &mut [f32])
    -> anyhow::Result<()>;

    /// Returns the values of `nodes`, `(B, H, W, C)` each.
    fn values(
        &self,
        params: &[VectorTensor<Self::Device>],
        x: &[f32],
        t: &[f32],
        nodes: &[graph::NodeId],
    ) -> anyhow::Result<Vec<Vec<f32>>>;

    /// Returns the size of the largest batch that fits into memory, for training or for prediction; `None` if unknown.
    fn max_batch(&self, _training: bool) -> Option<usize> {
        None
    }

    /// Returns the mean over images of `weight · mean((output − target)²)`. Calling `backward` on it computes the
    /// gradients of `params`.
    fn loss(&self, params: &[VectorTensor<Self::Device>], batch: Batch) -> anyhow::Result<LossTensor<Self::Device>>;

    /// Takes one AdamW step (Loshchilov and Hutter 2019) with clipped gradients, then updates the moving average.
    /// Returns the global norm of the gradients before clipping.
    fn update(
        &self,
        state: &mut DeviceState<Self::Device>,
        gradients: Gradients<Self::Device>,
        settings: &StepSettings,
    ) -> anyhow::Result<f32>;
}

/// The parameters and the optimiser state of a network, on its device.
pub struct DeviceState<D: Device> {
    /// The number of optimiser steps taken.
    step: u64,
    params: Vec<VectorTensor<D>>,
    /// Adam's first and second moments.
    first_moment: Vec<VectorTensor<D>>,
    second_moment: Vec<VectorTensor<D>>,
    /// Exponential moving average of the parameters.
    ema: Vec<VectorTensor<D>>,
}

/// Creates a network on `device`, with parameters and optimiser state from `state`.
pub fn create_network(
    device: crate::config::Device,
    graph: Graph,
    state: &TrainState,
) -> anyhow::Result<Box<dyn Network>> {
    use crate::config::Device;
    match device {
        Device::Auto | Device::Cpu => create_cpu_network(CpuBackend::Fused, graph, state),
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => create_network_on(cuda::open(index, graph)?, state),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => anyhow::bail!("this srpipe was built without CUDA support; rebuild it with --features cuda"),
    }
}

/// Returns whether this build supports CUDA and this process can use a GPU.
pub fn has_gpu() -> bool {
    #[cfg(feature = "cuda")]
    return cuda::is_available();
    #[cfg(not(feature = "cuda"))]
    false
}

/// A backend for the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuBackend {
    /// This crate's fused kernels; used by every pipeline.
    Fused,
    /// dfdx's operations: the reference implementation.
    Composed,
}

/// Creates a network on the CPU with the given backend.
pub fn create_cpu_network(backend: CpuBackend, graph: Graph, state: &TrainState) -> anyhow::Result<Box<dyn Network>> {
    match backend {
        CpuBackend::Fused => create_network_on(fused::FusedBackend::new(graph)?, state),
        CpuBackend::Composed => {
            create_network_on(composed::ComposedBackend::new(graph, dfdx::prelude::Cpu::default())?, state)
        }
    }
}
