//! dfdx's neighbour: networks as data, their parameters, and the backends that run them.
//!
//! - [`graph`]: a network as a list of operations on one image's values, channels-last. `model` wires it.
//! - [`Backend`]: how a graph runs on dfdx tensors. [`composed`] builds every operation of dfdx's own, on any device;
//!   `fused` runs whole images through our own kernels on dfdx's `Cpu`. The first is the reference of the second.
//! - [`attention_weights`]: what a layer of attention looks at, for people.
//! - `network`: a graph, its backend, its parameters and their optimiser state behind one trait object, [`Network`],
//!   which is all that the layers above see.
//!
//! - `cuda`: opens the device of GPUs, with the feature of this name. `failure`: what goes wrong on a device.
//!
//! Nothing here knows what diffusion is, and nothing outside names a dfdx type. All `unsafe` of the crate is in
//! `fused`'s kernels, but for the loading of CUDA's libraries.

pub mod attention_weights;
pub mod composed;
#[cfg(feature = "cuda")]
mod cuda;
mod device_error;
pub mod fused;
pub mod graph;
mod network;

use dfdx::prelude::{OwnedTape, Rank0, Tensor};

pub use device_error::OutOfMemory;
pub(crate) use device_error::device_error;
pub use graph::Graph;
pub use network::{Batch, Network, StepReport, StepSettings, TrainState, create_network_on};

/// A device of dfdx that can run every composed operation.
pub trait Device: dfdx::prelude::Device<f32> + dfdx::prelude::Cache {}
impl<D: dfdx::prelude::Device<f32> + dfdx::prelude::Cache> Device for D {}

/// A batch of images, `(batch, height, width, channels)`.
pub type ImageTensor<D, T = dfdx::prelude::NoneTape> = Tensor<(usize, usize, usize, usize), f32, D, T>;
/// One number an image, `(batch,)`; also a parameter, flat, in the layout its operation names.
pub type VectorTensor<D, T = dfdx::prelude::NoneTape> = Tensor<(usize,), f32, D, T>;
/// A loss with the tape that leads to its gradients.
pub type LossTensor<D> = Tensor<Rank0, f32, D, OwnedTape<f32, D>>;
/// Gradients, or anything else that lies beside the parameters one to one.
pub type Gradients<D> = dfdx::prelude::Gradients<f32, D>;

/// Runs one graph on one dfdx device. `params` lie as [`Graph::params`] orders them, flat, in the layouts that
/// [`graph::Op`] gives; images come from host memory and go there. Results must not depend on the number of threads.
pub trait Backend: 'static {
    type Device: Device;

    fn device(&self) -> &Self::Device;

    fn graph(&self) -> &Graph;

    /// Fills `y: (B, H, W, C_out)` with the network's output for images `x: (B, H, W, C_in)` at times `t: (B,)`.
    fn forward(&self, params: &[VectorTensor<Self::Device>], x: &[f32], t: &[f32], y: &mut [f32])
    -> anyhow::Result<()>;

    /// The values of some nodes, `(B, H, W, C)` each.
    fn values(
        &self,
        params: &[VectorTensor<Self::Device>],
        x: &[f32],
        t: &[f32],
        nodes: &[graph::NodeId],
    ) -> anyhow::Result<Vec<Vec<f32>>>;

    /// How many images at a time there is memory for, in training or else in prediction; None where nobody knows.
    fn max_batch(&self, _training: bool) -> Option<usize> {
        None
    }

    /// The mean over images of `weight · mean((output − target)²)`; `backward` on it fills the gradients of `params`.
    fn loss(&self, params: &[VectorTensor<Self::Device>], batch: Batch) -> anyhow::Result<LossTensor<Self::Device>>;

    /// One AdamW step (Loshchilov and Hutter 2019) on clipped gradients, then one step of the moving average.
    /// Returns the gradients' global norm before clipping.
    fn update(
        &self,
        state: &mut DeviceState<Self::Device>,
        gradients: Gradients<Self::Device>,
        settings: &StepSettings,
    ) -> anyhow::Result<f32>;
}

/// Parameters with all that training keeps beside them.
pub struct DeviceState<D: Device> {
    /// Optimiser steps taken.
    pub step: u64,
    pub params: Vec<VectorTensor<D>>,
    /// Adam's first and second moments.
    pub first_moment: Vec<VectorTensor<D>>,
    pub second_moment: Vec<VectorTensor<D>>,
    /// Exponential moving average of the parameters.
    pub ema: Vec<VectorTensor<D>>,
}

/// A network on the device that the pipeline asks for.
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
        Device::Cuda(_) => anyhow::bail!("this srpipe was built without CUDA; build it with --features cuda"),
    }
}

/// Whether there is a GPU that this srpipe and this process may use.
pub fn has_gpu() -> bool {
    #[cfg(feature = "cuda")]
    return cuda::is_available();
    #[cfg(not(feature = "cuda"))]
    false
}

/// How a network runs on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuBackend {
    /// Kernels of our own; what every pipeline uses.
    Fused,
    /// dfdx's operations: the reference.
    Composed,
}

/// A network on the CPU, by a backend of choice.
pub fn create_cpu_network(backend: CpuBackend, graph: Graph, state: &TrainState) -> anyhow::Result<Box<dyn Network>> {
    match backend {
        CpuBackend::Fused => create_network_on(fused::FusedBackend::new(graph)?, state),
        CpuBackend::Composed => {
            create_network_on(composed::ComposedBackend::new(graph, dfdx::prelude::Cpu::default())?, state)
        }
    }
}
