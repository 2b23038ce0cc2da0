//! Runs whole networks with this crate's own kernels, on dfdx's `Cpu`.
//!
//! `plan` compiles a graph once: it decides which operations are fused, and where every value and gradient of an image
//! is stored in one arena. A task (`pass`) runs the forward pass and, in training, the backward pass of a few images,
//! so that each step finds its input in the processor's cache. `train` adds up the tasks' gradients in a fixed order
//! and passes them to dfdx's tape as one operation. `weights` repacks the parameters once per step, and `adam` updates
//! them.
//!
//! The kernels of the operations are in `nn::ops`; shared kernels are here: `gemm` (matrix products), `pointwise`,
//! `reduce` (sums over rows). `simd` compiles each kernel for every instruction set. Their `unsafe` code relies on two
//! invariants: the plan separates what a step reads from what it writes, and a task has exclusive use of its workspace.
//!
//! Results are bit-identical for any number of threads and any instruction set. In training, the tasks and the order in
//! which their sums are added depend only on the batch size; in prediction, images do not affect each other. The order
//! of a sum does not depend on the vector width.

// Register tiles are parallel arrays, indexed together.
#![allow(clippy::needless_range_loop)]

mod adam;
pub(super) mod gemm;
pub(super) mod pass;
mod peak;
mod plan;
pub(super) mod pointwise;
pub(super) mod reduce;
pub(super) mod simd;
#[cfg(test)]
mod tests;
mod train;
pub(super) mod view;
pub(super) mod weights;
mod workspace;

use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use dfdx::prelude::*;
use rayon::prelude::*;

use super::graph::{Graph, NodeId};
use super::network::count_images;
use super::{Backend, Batch, DeviceState, Gradients, LossTensor, StepSettings, VectorTensor};
use pass::{Inputs, Pass, PassContext};
pub use peak::peak_flops;
use plan::ExecutionPlan;
pub use simd::Isa;
use weights::PackedWeights;
use workspace::{BufferPool, Pool, Workspace};

/// Returns the memory, in bytes, that predicting `images` images at a time needs in addition to the weights.
pub fn forward_memory(graph: &Graph, images: usize) -> u64 {
    let (plan, threads) = (ExecutionPlan::new(graph, false), rayon::current_num_threads());
    let task = images_per_prediction_task(images, threads);
    let numbers = plan.arena * task + pass::scratch_len(graph, &plan, task, false);
    4 * numbers as u64 * images.div_ceil(task).min(threads) as u64
}

/// Returns the number of images per prediction task.
fn images_per_prediction_task(images: usize, threads: usize) -> usize {
    images.div_ceil(threads).clamp(1, 4)
}

/// Runs a graph through fused kernels on the CPU.
pub struct FusedBackend {
    graph: Graph,
    device: Cpu,
    isa: Isa,
    training: ExecutionPlan,
    inference: ExecutionPlan,
    weights: Mutex<PackedWeights>,
    workspaces: Pool<Workspace>,
    buffers: Arc<BufferPool>,
}

impl FusedBackend {
    /// Creates a backend that uses the instruction set of [`Isa::from_env`].
    pub fn new(graph: Graph) -> Result<Self> {
        Ok(Self::with_isa(graph, Isa::from_env()?))
    }

    /// Creates a backend that uses a given instruction set. Panics if this machine does not support it.
    fn with_isa(graph: Graph, isa: Isa) -> Self {
        assert!(isa.is_available(), "this machine does not support {}", isa.name());
        let (training, inference) = (ExecutionPlan::new(&graph, true), ExecutionPlan::new(&graph, false));
        let weights = Mutex::new(PackedWeights::new(&graph, &training));
        let (workspaces, buffers) = Default::default();
        let device = Cpu::default();
        // Reuse the memory of the previous step's gradients.
        device.try_enable_cache().expect("enabling the cache of a CPU device cannot fail");
        Self { graph, device, isa, training, inference, weights, workspaces, buffers }
    }

    /// Checks the number and the sizes of the parameters.
    fn check_params(&self, params: &[VectorTensor<Cpu>]) -> Result<()> {
        ensure!(
            params.len() == self.graph.params.len(),
            "expected {} parameters, found {}",
            self.graph.params.len(),
            params.len()
        );
        for (p, spec) in params.iter().zip(&self.graph.params) {
            ensure!(
                p.shape().0 == spec.layout.len(),
                "{} needs {} values, found {}",
                spec.name,
                spec.layout.len(),
                p.shape().0
            );
        }
        Ok(())
    }
}

impl Drop for FusedBackend {
    /// Frees the memory in dfdx's cache, because dfdx does not.
    fn drop(&mut self) {
        self.device.try_disable_cache().expect("disabling the cache of a CPU device cannot fail");
    }
}

impl Backend for FusedBackend {
    type Device = Cpu;

    fn device(&self) -> &Cpu {
        &self.device
    }

    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn forward(&self, params: &[VectorTensor<Cpu>], x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
        self.check_params(params)?;
        let images = count_images(&self.graph, x, t)?;
        let (input, output) = (self.graph.input_shape(), self.graph.output_shape());
        ensure!(
            y.len() == images * output.len(),
            "expected a buffer for {images} images of {output:?}, found {} values",
            y.len()
        );
        let mut weights = self.weights.lock().unwrap_or_else(|e| e.into_inner());
        weights.refresh(&self.graph, &self.training, self.isa, params, None);
        let context = PassContext { graph: &self.graph, plan: &self.inference, isa: self.isa, weights: &weights };
        let task = images_per_prediction_task(images, rayon::current_num_threads());
        let inputs = x.par_chunks(task * input.len()).zip(t.par_chunks(task));
        y.par_chunks_mut(task * output.len()).zip(inputs).with_max_len(1).for_each(|(y, (x, t))| {
            let mut workspace = self.workspaces.acquire(Workspace::default);
            let mut pass = Pass::new(context, &mut workspace, t.len(), false);
            pass.forward(Inputs { x, t });
            pass::copy_out(&pass.output(), y);
            self.workspaces.release(workspace);
        });
        Ok(())
    }

    fn values(&self, params: &[VectorTensor<Cpu>], x: &[f32], t: &[f32], nodes: &[NodeId]) -> Result<Vec<Vec<f32>>> {
        self.check_params(params)?;
        let images = count_images(&self.graph, x, t)?;
        let mut weights = self.weights.lock().unwrap_or_else(|e| e.into_inner());
        weights.refresh(&self.graph, &self.training, self.isa, params, None);
        let plan = ExecutionPlan::with_values(&self.graph, false, nodes);
        let context = PassContext { graph: &self.graph, plan: &plan, isa: self.isa, weights: &weights };
        let len = self.graph.input_shape().len();
        let image_values = |i: usize| {
            let mut workspace = self.workspaces.acquire(Workspace::default);
            let mut pass = Pass::new(context, &mut workspace, 1, false);
            pass.forward(Inputs { x: &x[i * len..(i + 1) * len], t: &t[i..i + 1] });
            let values = nodes.iter().map(|&node| {
                let mut values = vec![0.0; self.graph.shape(node).len()];
                pass::copy_out(&pass.value(node), &mut values);
                values
            });
            let values: Vec<Vec<f32>> = values.collect();
            self.workspaces.release(workspace);
            values
        };
        let by_image: Vec<Vec<Vec<f32>>> = (0..images).into_par_iter().map(image_values).collect();
        Ok((0..nodes.len()).map(|n| by_image.iter().flat_map(|values| &values[n]).copied().collect()).collect())
    }

    fn loss(&self, params: &[VectorTensor<Cpu>], batch: Batch) -> Result<LossTensor<Cpu>> {
        train::loss(self, params, batch)
    }

    fn update(&self, state: &mut DeviceState<Cpu>, gradients: Gradients<Cpu>, settings: &StepSettings) -> Result<f32> {
        adam::update(self.isa, &self.buffers, state, gradients, settings)
    }
}
