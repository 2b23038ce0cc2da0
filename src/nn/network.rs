//! The interface of `nn` to the rest of the crate: a network with its parameters on a device, for training and
//! inference.

use anyhow::{Context, Result, ensure};
use dfdx::prelude::*;

use super::device_error::{OutOfMemory, catch_device_panics, device_error};
use super::graph::{Graph, Init, NodeId};
use super::{Backend, DeviceState, Gradients, VectorTensor};
use crate::config::Weights;

/// A training batch in host memory, channels-last.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// `(B, H, W, C_in)`
    pub x: &'a [f32],
    /// `(B,)`, in `[0, 1)`
    pub t: &'a [f32],
    /// `(B, H, W, C_out)`
    pub target: &'a [f32],
    /// `(B,)`: the weight of each image's squared error.
    pub weights: &'a [f32],
}

/// The hyperparameters of one optimiser step; they may change from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSettings {
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    /// Decoupled weight decay (Loshchilov and Hutter 2019): each step subtracts `lr · weight_decay · w` from every
    /// weight `w`.
    pub weight_decay: f64,
    /// The maximum global norm of the gradients; larger gradients are scaled down. `None` disables clipping.
    pub clip: Option<f64>,
    /// After each step: `ema = ema_decay · ema + (1 − ema_decay) · weights`.
    pub ema_decay: f64,
}

/// Returns the number of images in `x` and `t`. Fails if their sizes do not match the graph.
pub(super) fn count_images(graph: &Graph, x: &[f32], t: &[f32]) -> Result<usize> {
    let (images, shape) = (t.len(), graph.input_shape());
    ensure!(x.len() == images * shape.len(), "expected {images} images of {shape:?}, found {} values", x.len());
    Ok(images)
}

impl Batch<'_> {
    /// Returns the number of images. Fails if the sizes of the tensors do not match the graph.
    pub(super) fn count_images(&self, graph: &Graph) -> Result<usize> {
        let (images, shape) = (count_images(graph, self.x, self.t)?, graph.output_shape());
        let len = self.target.len();
        ensure!(images > 0, "the batch is empty");
        ensure!(len == images * shape.len(), "expected targets for {images} images of {shape:?}, found {len} values");
        ensure!(self.weights.len() == images, "expected {images} weights, one per image, found {}", self.weights.len());
        Ok(images)
    }

    /// Splits the batch into `count` equal micro-batches, in order. `count` must divide the number of images.
    fn micro_batches(&self, count: usize) -> impl Iterator<Item = Batch<'_>> {
        let n = self.t.len() / count;
        let part = move |values: &[f32], i: usize| {
            let len = values.len() / count;
            i * len..(i + 1) * len
        };
        (0..count).map(move |i| Batch {
            x: &self.x[part(self.x, i)],
            t: &self.t[i * n..(i + 1) * n],
            target: &self.target[part(self.target, i)],
            weights: &self.weights[i * n..(i + 1) * n],
        })
    }
}

impl Default for StepSettings {
    fn default() -> Self {
        Self { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, clip: None, ema_decay: 0.0 }
    }
}

/// The measurements of one optimiser step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The loss before the step.
    pub loss: f32,
    /// The global norm of the gradients before clipping.
    pub gradient_norm: f32,
}

/// The complete state of a network in training: one list of values per parameter, in PyTorch's layouts.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// The number of optimiser steps taken.
    pub step: u64,
    pub weights: Vec<Vec<f32>>,
    pub first_moment: Vec<Vec<f32>>,
    pub second_moment: Vec<Vec<f32>>,
    pub ema: Vec<Vec<f32>>,
}

impl TrainState {
    /// Returns the state before the first step. `uniform(name, n)` returns `n` numbers in `[-1, 1)` for the parameter
    /// `name`, so that graphs that share a parameter start it with the same values.
    pub fn initial(graph: &Graph, mut uniform: impl FnMut(&str, usize) -> Vec<f32>) -> Self {
        let weights: Vec<Vec<f32>> = (graph.params.iter())
            .map(|p| match p.init {
                Init::Constant(value) => vec![value; p.layout.len()],
                Init::Uniform { bound } => uniform(&p.name, p.layout.len()).into_iter().map(|u| u * bound).collect(),
            })
            .collect();
        let zeros: Vec<Vec<f32>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        Self { step: 0, ema: weights.clone(), first_moment: zeros.clone(), second_moment: zeros, weights }
    }
}

/// A network on its device. The trait is object-safe, so that code for training and sampling need not be generic over
/// the backend.
pub trait Network {
    /// Returns the network's graph.
    fn graph(&self) -> &Graph;

    /// Writes the output for images `x: (B, H, W, C_in)` at times `t: (B,)` to `y: (B, H, W, C_out)`, computed with the
    /// weights or with their moving average.
    fn predict_into(&self, weights: Weights, x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()>;

    /// Returns the output of [`predict_into`](Self::predict_into) in a new vector.
    fn predict(&self, weights: Weights, x: &[f32], t: &[f32]) -> Result<Vec<f32>> {
        let mut y = vec![0.0; t.len() * self.graph().output_shape().len()];
        self.predict_into(weights, x, t, &mut y)?;
        Ok(y)
    }

    /// Returns the loss and the gradient of every parameter, in PyTorch's layouts. Does not change the network.
    fn gradients(&self, batch: Batch) -> Result<(f32, Vec<Vec<f32>>)>;

    /// Takes one optimiser step. The batch is split into `micro_batches` equal parts whose gradients are accumulated.
    fn train_step(&mut self, batch: Batch, micro_batches: usize, settings: &StepSettings) -> Result<StepReport>;

    /// Returns the values of `nodes` for a batch, `(B, H, W, C)` each.
    fn values(&self, weights: Weights, x: &[f32], t: &[f32], nodes: &[NodeId]) -> Result<Vec<Vec<f32>>>;

    /// Returns a copy of the parameters and the optimiser state.
    fn state(&self) -> TrainState;

    /// Replaces the parameters and the optimiser state. Fails if the sizes do not match the graph.
    fn set_state(&mut self, state: &TrainState) -> Result<()>;
}

/// Creates a network on `backend`, with parameters and optimiser state from `state`.
pub fn create_network_on<B: Backend>(backend: B, state: &TrainState) -> Result<Box<dyn Network>> {
    let empty = DeviceState { step: 0, params: vec![], first_moment: vec![], second_moment: vec![], ema: vec![] };
    let mut network = BackendNetwork { backend, state: empty };
    catch_device_panics(|| network.set_state(state))?;
    Ok(Box::new(network))
}

struct BackendNetwork<B: Backend> {
    backend: B,
    state: DeviceState<B::Device>,
}

impl<B: Backend> BackendNetwork<B> {
    fn vector(&self, values: &[f32]) -> Result<VectorTensor<B::Device>> {
        self.backend.device().try_tensor_from_vec(values.to_vec(), (values.len(),)).map_err(device_error)
    }

    fn params(&self, weights: Weights) -> &[VectorTensor<B::Device>] {
        match weights {
            Weights::Raw => &self.state.params,
            Weights::Ema => &self.state.ema,
        }
    }

    /// Adds a hint to an out-of-memory error of a call with `images` images per batch: how many images might fit.
    fn with_memory_hint<T>(&self, result: Result<T>, training: bool, images: usize) -> Result<T> {
        result.map_err(|error| match self.backend.max_batch(training).filter(|max| *max < images) {
            _ if !error.is::<OutOfMemory>() => error,
            Some(0) => error.context("the network needs more memory than the GPU has, even for a single image"),
            Some(max) => error.context(format!(
                "a batch of {images} images does not fit into the GPU's memory; about {max} would fit"
            )),
            None if images > 1 => error.context(format!(
                "a batch of {images} images does not fit into the GPU's memory; half as many may fit"
            )),
            None => error.context("a single image does not fit into the GPU's memory"),
        })
    }

    fn step(&mut self, batch: Batch, micro_batches: usize, settings: &StepSettings) -> Result<StepReport> {
        ensure!(
            batch.t.len().is_multiple_of(micro_batches),
            "{} images can't be divided into {micro_batches} micro-batches",
            batch.t.len()
        );
        let (value, gradients) = match micro_batches {
            1 => {
                let loss = self.backend.loss(&self.state.params, batch)?;
                // Read the loss only after the backward pass has been queued, so that the device does not wait for the
                // host.
                let value = loss.retaped::<NoneTape>();
                let gradients = loss.try_backward().map_err(device_error)?;
                (value.as_vec()[0], gradients)
            }
            _ => self.accumulate_gradients(batch, micro_batches)?,
        };
        let gradient_norm = self.backend.update(&mut self.state, gradients, settings)?;
        Ok(StepReport { loss: value, gradient_norm })
    }

    /// Returns the loss of a batch and its gradients, averaged over the micro-batches.
    fn accumulate_gradients(&self, batch: Batch, micro_batches: usize) -> Result<(f32, Gradients<B::Device>)> {
        let params = &self.state.params;
        let share = 1.0 / micro_batches as f32;
        let (mut value, mut sums) = (0.0, vec![]);
        for part in batch.micro_batches(micro_batches) {
            let loss = self.backend.loss(params, part)?;
            value += share * loss.as_vec()[0];
            let mut gradients = loss.try_backward().map_err(device_error)?;
            for (i, p) in params.iter().enumerate() {
                gradients.try_alloc_for(p).map_err(device_error)?;
                let gradient = gradients.get(p) * share;
                match sums.get_mut(i) {
                    None => sums.push(gradient),
                    Some(sum) => *sum = sum.clone() + gradient,
                }
            }
        }
        // dfdx has no API for setting a gradient, but the gradient of Σ p · g with respect to p is g.
        let mut terms = params.iter().zip(sums).map(|(p, g)| (p.leaky_trace() * g).sum::<Rank0, _>());
        let first = terms.next().context("the network has no parameters")?;
        let sum = terms.fold(first, |sum, term| sum + term);
        Ok((value, sum.try_backward().map_err(device_error)?))
    }

    fn download(&self, values: &[VectorTensor<B::Device>]) -> Vec<Vec<f32>> {
        values.iter().zip(&self.graph().params).map(|(v, p)| p.layout.reorder_to_torch(&v.as_vec())).collect()
    }

    fn upload(&self, values: &[Vec<f32>]) -> Result<Vec<VectorTensor<B::Device>>> {
        let params = &self.graph().params;
        ensure!(
            values.len() == params.len(),
            "expected {} tensors, one per parameter, found {}",
            params.len(),
            values.len()
        );
        for (v, p) in values.iter().zip(params) {
            ensure!(v.len() == p.layout.len(), "{} needs {} values, found {}", p.name, p.layout.len(), v.len());
        }
        values.iter().zip(params).map(|(v, p)| self.vector(&p.layout.reorder_from_torch(v))).collect()
    }
}

impl<B: Backend> Network for BackendNetwork<B> {
    fn graph(&self) -> &Graph {
        self.backend.graph()
    }

    fn predict_into(&self, weights: Weights, x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
        self.with_memory_hint(
            catch_device_panics(|| self.backend.forward(self.params(weights), x, t, y)),
            false,
            t.len(),
        )
    }

    fn gradients(&self, batch: Batch) -> Result<(f32, Vec<Vec<f32>>)> {
        let gradients = || {
            let loss = self.backend.loss(&self.state.params, batch)?;
            let value = loss.as_vec()[0];
            let mut gradients = loss.try_backward().map_err(device_error)?;
            let mut result = vec![];
            for p in &self.state.params {
                gradients.try_alloc_for(p).map_err(device_error)?;
                result.push(gradients.get(p));
            }
            Ok((value, self.download(&result)))
        };
        self.with_memory_hint(catch_device_panics(gradients), true, batch.t.len())
    }

    fn values(&self, weights: Weights, x: &[f32], t: &[f32], nodes: &[NodeId]) -> Result<Vec<Vec<f32>>> {
        self.with_memory_hint(
            catch_device_panics(|| self.backend.values(self.params(weights), x, t, nodes)),
            false,
            t.len(),
        )
    }

    fn train_step(&mut self, batch: Batch, micro_batches: usize, settings: &StepSettings) -> Result<StepReport> {
        let result = catch_device_panics(|| self.step(batch, micro_batches, settings));
        self.with_memory_hint(result, true, batch.t.len() / micro_batches)
    }

    fn state(&self) -> TrainState {
        TrainState {
            step: self.state.step,
            weights: self.download(&self.state.params),
            first_moment: self.download(&self.state.first_moment),
            second_moment: self.download(&self.state.second_moment),
            ema: self.download(&self.state.ema),
        }
    }

    fn set_state(&mut self, state: &TrainState) -> Result<()> {
        self.state = DeviceState {
            step: state.step,
            params: self.upload(&state.weights)?,
            first_moment: self.upload(&state.first_moment)?,
            second_moment: self.upload(&state.second_moment)?,
            ema: self.upload(&state.ema)?,
        };
        Ok(())
    }
}
