//! Parameters in the forms that the kernels read: a flat copy, transformed filters, and matrices packed in panels, for
//! the forward and the backward pass.

use rayon::prelude::*;

use super::plan::ExecutionPlan;
use super::simd::{Isa, PANEL};
use super::workspace::BufferPool;
use crate::nn::VectorTensor;
use crate::nn::graph::{Graph, Op, ParamId};
use dfdx::prelude::Cpu;

/// The parameters of the last call, and their packed forms.
pub(super) struct PackedWeights {
    /// All parameters concatenated, in the graph's order.
    flat: Vec<f32>,
    /// A buffer for the parameters of a new call, until they are compared with `flat`.
    incoming: Vec<f32>,
    /// The start of each parameter in `flat`, and at the end its length.
    starts: Vec<usize>,
    forward: Packed,
    backward: Packed,
}

/// The packed filters and matrices of all steps, for one direction.
struct Packed {
    data: Vec<f32>,
    /// The start of each step's weight in `data`, and at the end its length.
    starts: Vec<usize>,
    /// Whether `data` was packed from the current parameters.
    valid: bool,
}

/// The shape of one weight: (taps, inputs, outputs). A matrix has one tap.
#[derive(Clone, Copy)]
pub struct WeightShape {
    pub weight: ParamId,
    pub inputs: usize,
    pub outputs: usize,
}

impl WeightShape {
    /// Returns the inputs and outputs, swapped for the backward pass.
    fn sides(self, backward: bool) -> [usize; 2] {
        if backward { [self.outputs, self.inputs] } else { [self.inputs, self.outputs] }
    }
}

/// Returns the length of an operation's packed weight; 0 if it has none.
fn packed_len(graph: &Graph, op: &Op, backward: bool) -> usize {
    op.cpu().packed_weight(graph).map_or(0, |shape| {
        let [inputs, outputs] = shape.sides(backward);
        op.cpu().packed_len(inputs, outputs)
    })
}

impl PackedWeights {
    pub(super) fn new(graph: &Graph, plan: &ExecutionPlan) -> Self {
        let mut starts = vec![0];
        for p in &graph.params {
            starts.push(starts[starts.len() - 1] + p.layout.len());
        }
        let packed = |backward: bool| {
            let mut starts = vec![0];
            for step in &plan.steps {
                let wanted = !backward || step.gradients.first().is_some_and(Option::is_some);
                let len = if wanted { packed_len(graph, &step.op, backward) } else { 0 };
                starts.push(starts[starts.len() - 1] + len);
            }
            Packed { data: vec![], starts, valid: false }
        };
        Self { flat: vec![], incoming: vec![], starts, forward: packed(false), backward: packed(true) }
    }

    /// Updates all forms to `params`; those for the backward pass only if `training` is given. It provides temporary
    /// buffers.
    pub(super) fn refresh(
        &mut self,
        graph: &Graph,
        plan: &ExecutionPlan,
        isa: Isa,
        params: &[VectorTensor<Cpu>],
        training: Option<&BufferPool>,
    ) {
        self.incoming.resize(self.starts[params.len()], 0.0);
        for (i, p) in params.iter().enumerate() {
            p.copy_into(&mut self.incoming[self.starts[i]..self.starts[i + 1]]);
        }
        // Sampling calls this repeatedly with the same parameters.
        if self.incoming != self.flat {
            std::mem::swap(&mut self.incoming, &mut self.flat);
            self.forward.valid = false;
            self.backward.valid = false;
        }
        let (flat, starts) = (&self.flat, &self.starts);
        let weight = |shape: WeightShape| &flat[starts[shape.weight.0]..starts[shape.weight.0 + 1]];
        if !self.forward.valid {
            self.forward.fill(graph, plan, |op, shape, to| {
                op.cpu().pack(isa, weight(shape), shape.sides(false), false, to);
            });
        }
        if let Some(buffers) = training.filter(|_| !self.backward.valid) {
            self.backward.fill(graph, plan, |op, shape, to| {
                let mut transposed = buffers.acquire(weight(shape).len());
                transpose(shape, weight(shape), &mut transposed);
                op.cpu().pack(isa, &transposed, shape.sides(true), true, to);
                buffers.release(transposed);
            });
        }
    }

    /// Returns the values of a parameter.
    pub(super) fn param(&self, id: ParamId) -> &[f32] {
        &self.flat[self.starts[id.0]..self.starts[id.0 + 1]]
    }

    /// Returns the start of each parameter in the concatenation of all, and at the end the total length.
    pub(super) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Returns the weight of a step, packed for the forward pass.
    pub(super) fn forward(&self, step: usize) -> *const f32 {
        self.forward.data[self.forward.starts[step]..].as_ptr()
    }

    /// Returns the weight of a step, packed for the gradient of its input.
    pub(super) fn backward(&self, step: usize) -> *const f32 {
        self.backward.data[self.backward.starts[step]..].as_ptr()
    }
}

impl Packed {
    /// Packs the weights of all steps, in parallel.
    fn fill(&mut self, graph: &Graph, plan: &ExecutionPlan, pack: impl Fn(&Op, WeightShape, &mut [f32]) + Sync) {
        self.data.resize(self.starts[plan.steps.len()], 0.0);
        let mut rest = self.data.as_mut_slice();
        let mut tasks = Vec::with_capacity(plan.steps.len());
        for (i, step) in plan.steps.iter().enumerate() {
            let (slice, tail) = rest.split_at_mut(self.starts[i + 1] - self.starts[i]);
            rest = tail;
            if let Some(shape) = step.op.cpu().packed_weight(graph).filter(|_| !slice.is_empty()) {
                tasks.push((&step.op, shape, slice));
            }
        }
        tasks.into_par_iter().with_max_len(1).for_each(|(op, shape, slice)| pack(op, shape, slice));
        self.valid = true;
    }
}

/// Packs a matrix `(inputs, outputs)` in panels.
pub(super) fn pack_matrix(values: &[f32], inputs: usize, outputs: usize, to: &mut [f32]) {
    for (row, line) in values.chunks_exact(outputs).enumerate() {
        for (panel, part) in line.chunks(PANEL).enumerate() {
            let at = (panel * inputs + row) * PANEL;
            to[at..at + part.len()].copy_from_slice(part);
        }
    }
}

/// Swaps the inputs and outputs of a weight.
fn transpose(shape: WeightShape, values: &[f32], result: &mut [f32]) {
    for (from, to) in
        values.chunks_exact(shape.inputs * shape.outputs).zip(result.chunks_exact_mut(shape.inputs * shape.outputs))
    {
        for (i, row) in from.chunks_exact(shape.outputs).enumerate() {
            for (o, value) in row.iter().enumerate() {
                to[o * shape.inputs + i] = *value;
            }
        }
    }
}
