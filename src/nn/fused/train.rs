//! The loss and all gradients as one operation on dfdx's tape.

use std::ops::Range;

use anyhow::Result;
use dfdx::prelude::*;

use super::FusedBackend;
use super::pass::{Inputs, Pass, PassContext};
use super::pointwise;
use super::workspace::Workspace;
use crate::nn::{Batch, LossTensor, VectorTensor};

/// Returns the number of images per training task. It may depend only on the batch size, because it determines the
/// order in which gradients are added. A task has several images, so that they share the weights that it reads, but few
/// enough that machines with many cores have work for all of them.
fn images_per_training_task(batch: usize) -> usize {
    batch.div_ceil(8).clamp(1, 4)
}

/// The computation of a batch's loss and gradients.
struct Training<'a> {
    backend: &'a FusedBackend,
    context: PassContext<'a>,
    batch: Batch<'a>,
}

/// The sums of the losses and of the gradients of some images.
struct Sums {
    loss: f64,
    gradients: Vec<f32>,
}

/// Implements [`Backend::loss`](crate::nn::Backend::loss). Runs both the forward and the backward pass; the operation
/// on the tape only adds the gradients that have been computed.
pub(super) fn loss(backend: &FusedBackend, params: &[VectorTensor<Cpu>], batch: Batch) -> Result<LossTensor<Cpu>> {
    backend.check_params(params)?;
    let images = batch.count_images(&backend.graph)?;
    let mut weights = backend.weights.lock().unwrap_or_else(|e| e.into_inner());
    weights.refresh(&backend.graph, &backend.training, backend.isa, params, Some(&*backend.buffers));
    let sums = {
        let (graph, plan, isa) = (&backend.graph, &backend.training, backend.isa);
        let context = PassContext { graph, plan, isa, weights: &weights };
        Training { backend, context, batch }.sums(0..images.div_ceil(images_per_training_task(images)))
    };
    let starts = weights.starts().to_vec();
    drop(weights);
    let value: Tensor<Rank0, f32, Cpu> = backend.device.tensor(sums.loss as f32);
    let (output, params) = (value.clone(), params.to_vec());
    let (isa, buffers, gradients) = (backend.isa, backend.buffers.clone(), sums.gradients);
    let mut tape = OwnedTape::default();
    tape.add_backward_op(move |tape_gradients| {
        let factor = tape_gradients.get_or_alloc_mut(&output)?[0];
        for (i, p) in params.iter().enumerate() {
            let from = &gradients[starts[i]..starts[i + 1]];
            let to = tape_gradients.get_or_alloc_mut(p)?;
            assert_eq!(from.len(), to.len());
            // SAFETY: both have the same length.
            unsafe { pointwise::axpy(isa, factor, from.as_ptr(), to.as_mut_ptr(), from.len()) }
        }
        buffers.release(gradients);
        Ok(())
    });
    Ok(value.put_tape(tape))
}

impl Training<'_> {
    /// Returns the sums over a range of tasks, added in a binary tree. Its shape does not depend on which threads run
    /// its branches.
    fn sums(&self, tasks: Range<usize>) -> Sums {
        if tasks.len() == 1 {
            return self.task(tasks.start);
        }
        let middle = tasks.start + tasks.len() / 2;
        let (mut a, b) = rayon::join(|| self.sums(tasks.start..middle), || self.sums(middle..tasks.end));
        // SAFETY: both have one number per learned value.
        unsafe {
            let n = a.gradients.len();
            pointwise::axpy(self.context.isa, 1.0, b.gradients.as_ptr(), a.gradients.as_mut_ptr(), n);
        }
        self.backend.buffers.release(b.gradients);
        Sums { loss: a.loss + b.loss, gradients: a.gradients }
    }

    /// Returns the sums over the images of one task.
    fn task(&self, task: usize) -> Sums {
        let (graph, batch) = (self.context.graph, self.batch);
        let size = images_per_training_task(batch.t.len());
        let images = task * size..((task + 1) * size).min(batch.t.len());
        let part = |len: usize| images.start * len..images.end * len;
        let (input, output) = (graph.input_shape().len(), graph.output_shape().len());
        let mut workspace = self.backend.workspaces.acquire(Workspace::default);
        let mut gradients = self.backend.buffers.acquire(graph.parameter_count());
        gradients.fill(0.0);
        let mut pass = Pass::new(self.context, &mut workspace, images.len(), true);
        pass.forward(Inputs { x: &batch.x[part(input)], t: &batch.t[images.clone()] });
        let loss = self.loss(&pass, images.clone(), &batch.target[part(output)]);
        pass.backward(&mut gradients);
        self.backend.workspaces.release(workspace);
        Sums { loss, gradients }
    }

    /// Returns the contribution of `images` to the loss, and writes the output's gradient. The loss is the mean over
    /// all images of `weight · mean((output − target)²)`.
    fn loss(&self, pass: &Pass, images: Range<usize>, target: &[f32]) -> f64 {
        let output = self.context.graph.output_shape();
        let (y, dy) = (pass.output(), pass.output_gradient());
        let mut loss = 0.0;
        for (i, image) in images.enumerate() {
            let factor = f64::from(self.batch.weights[image]) / (output.len() * self.batch.t.len()) as f64;
            let mut squares = 0.0f64;
            for row in 0..output.positions() {
                let pixel = i * output.positions() + row;
                for c in 0..output.channels {
                    // SAFETY: the pixel and channel are within the views, which have the output's shape.
                    unsafe {
                        let error = *y.at.add(pixel * y.stride + c) - target[pixel * output.channels + c];
                        squares += f64::from(error) * f64::from(error);
                        *dy.at.add(pixel * dy.stride + c) = 2.0 * factor as f32 * error;
                    }
                }
            }
            loss += factor * squares;
        }
        loss
    }
}
