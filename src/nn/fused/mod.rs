//! Whole networks through kernels of our own, on dfdx's `Cpu`.
//!
//! `plan` compiles a graph once: which operations run together and where every value and gradient of an image lies in
//! one arena. A task (`pass`) takes a few images through all steps and, in training, straight back, so that what a step
//! wrote is still in the cache when the next reads it; `train` adds the tasks' gradients in a fixed order and hands
//! them to dfdx's tape as one operation. `weights` repacks the parameters once a step, `adam` updates them.
//!
//! The kernels: `winograd` (3×3 convolutions and their gradients), `gemm` (all other products), `norm`,
//! `mean_pool`, `pointwise`, `attention`, `linear_attention`, `softmax`; `simd` compiles each for every instruction set.
//! All `unsafe` of the crate is here, and rests on two things: the plan keeps apart what a step reads and writes, and a
//! task has its workspace to itself.
//!
//! Results are the same bits on any number of threads and with any instruction set: tasks and their order depend on the
//! batch alone, and the order of a sum never on the width of a vector.

// Register tiles are arrays walked side by side.
#![allow(clippy::needless_range_loop)]

mod adam;
mod attention;
mod gemm;
mod linear_attention;
mod mean_pool;
mod norm;
mod pass;
mod peak;
mod plan;
mod pointwise;
mod simd;
mod softmax;
#[cfg(test)]
mod tests;
mod train;
mod view;
mod weights;
mod winograd;
mod workspace;

use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use dfdx::prelude::*;
use rayon::prelude::*;

use super::graph::{Graph, NodeId};
use super::network::count_images;
use super::{Backend, Batch, DeviceState, Gradients, LossTensor, StepSettings, VectorTensor};
use pass::{Inputs, Pass, Shared};
pub use peak::peak_flops;
use plan::Plan;
pub use simd::Level;
use weights::Weights;
use workspace::{Buffers, Pool, Workspace};

/// Returns the memory, in bytes, that predicting `images` images at a time needs in addition to the weights.
pub fn forward_memory(graph: &Graph, images: usize) -> u64 {
    let (plan, threads) = (Plan::new(graph, false), rayon::current_num_threads());
    let task = images_of_task(images, threads);
    let numbers = plan.arena * task + pass::scratch_len(graph, &plan, task, false);
    4 * numbers as u64 * images.div_ceil(task).min(threads) as u64
}

/// Returns the number of images per prediction task.
fn images_of_task(images: usize, threads: usize) -> usize {
    images.div_ceil(threads).clamp(1, 4)
}

/// Runs a graph through fused kernels on the CPU.
pub struct Fused {
    graph: Graph,
    device: Cpu,
    level: Level,
    training: Plan,
    inference: Plan,
    weights: Mutex<Weights>,
    workspaces: Pool<Workspace>,
    buffers: Arc<Buffers>,
}

impl Fused {
    /// With the instruction set of [`Level::chosen`].
    pub fn new(graph: Graph) -> Result<Self> {
        Ok(Self::with_level(graph, Level::chosen()?))
    }

    /// Panics if the machine lacks the instruction set.
    pub fn with_level(graph: Graph, level: Level) -> Self {
        assert!(level.is_available(), "this machine has no {}", level.name());
        let (training, inference) = (Plan::new(&graph, true), Plan::new(&graph, false));
        let weights = Mutex::new(Weights::new(&graph, &training));
        let (workspaces, buffers) = Default::default();
        let device = Cpu::default();
        // Gradients come from the memory of the step before.
        device.try_enable_cache().expect("a CPU's cache is a flag");
        Self { graph, device, level, training, inference, weights, workspaces, buffers }
    }

    fn check(&self, params: &[VectorTensor<Cpu>]) -> Result<()> {
        ensure!(params.len() == self.graph.params.len(), "{} parameters", params.len());
        for (p, spec) in params.iter().zip(&self.graph.params) {
            ensure!(p.shape().0 == spec.layout.len(), "{} has {} values", spec.name, p.shape().0);
        }
        Ok(())
    }
}

impl Drop for Fused {
    /// dfdx's cache doesn't free what it holds by itself.
    fn drop(&mut self) {
        self.device.try_disable_cache().expect("a CPU's cache is a list");
    }
}

impl Backend for Fused {
    type Device = Cpu;

    fn device(&self) -> &Cpu {
        &self.device
    }

    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn forward(&self, params: &[VectorTensor<Cpu>], x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
        self.check(params)?;
        let images = count_images(&self.graph, x, t)?;
        let (input, output) = (self.graph.input_shape(), self.graph.output_shape());
        ensure!(y.len() == images * output.len(), "room for {} values, not {images} images of {output:?}", y.len());
        let mut weights = self.weights.lock().unwrap_or_else(|e| e.into_inner());
        weights.refresh(&self.graph, &self.training, self.level, params, None);
        let shared = Shared { graph: &self.graph, plan: &self.inference, level: self.level, weights: &weights };
        let task = images_of_task(images, rayon::current_num_threads());
        let inputs = x.par_chunks(task * input.len()).zip(t.par_chunks(task));
        y.par_chunks_mut(task * output.len()).zip(inputs).with_max_len(1).for_each(|(y, (x, t))| {
            let mut workspace = self.workspaces.take(Workspace::default);
            let mut pass = Pass::new(shared, &mut workspace, t.len(), false);
            pass.forward(Inputs { x, t });
            pass::copy_out(&pass.output(), y);
            self.workspaces.give(workspace);
        });
        Ok(())
    }

    fn values(&self, params: &[VectorTensor<Cpu>], x: &[f32], t: &[f32], nodes: &[NodeId]) -> Result<Vec<Vec<f32>>> {
        self.check(params)?;
        let images = count_images(&self.graph, x, t)?;
        let mut weights = self.weights.lock().unwrap_or_else(|e| e.into_inner());
        weights.refresh(&self.graph, &self.training, self.level, params, None);
        let plan = Plan::with_values(&self.graph, false, nodes);
        let shared = Shared { graph: &self.graph, plan: &plan, level: self.level, weights: &weights };
        let len = self.graph.input_shape().len();
        let of_image = |i: usize| {
            let mut workspace = self.workspaces.take(Workspace::default);
            let mut pass = Pass::new(shared, &mut workspace, 1, false);
            pass.forward(Inputs { x: &x[i * len..(i + 1) * len], t: &t[i..i + 1] });
            let values = nodes.iter().map(|&node| {
                let mut values = vec![0.0; self.graph.shape(node).len()];
                pass::copy_out(&pass.value(node), &mut values);
                values
            });
            let values: Vec<Vec<f32>> = values.collect();
            self.workspaces.give(workspace);
            values
        };
        let by_image: Vec<Vec<Vec<f32>>> = (0..images).into_par_iter().map(of_image).collect();
        Ok((0..nodes.len()).map(|n| by_image.iter().flat_map(|values| &values[n]).copied().collect()).collect())
    }

    fn loss(&self, params: &[VectorTensor<Cpu>], batch: Batch) -> Result<LossTensor<Cpu>> {
        train::loss(self, params, batch)
    }

    fn update(&self, state: &mut DeviceState<Cpu>, gradients: Gradients<Cpu>, settings: &StepSettings) -> Result<f32> {
        adam::update(self.level, &self.buffers, state, gradients, settings)
    }
}
