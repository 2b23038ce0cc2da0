//! Every operation composed of dfdx's own, on any of its devices, differentiated by its tape.
//!
//! The reference of the fused kernels and the path of devices without any. Channels-last makes a convolution a gather
//! and one matrix product; see each function.

use anyhow::{Result, ensure};
use dfdx::prelude::*;

use super::graph::{self, Graph, Node, NodeId, Op, ParamId, Shape as ImageShape};
use super::network::count_images;
use super::{
    Backend, Batch, Device, DeviceState, Gradients, ImageTensor, LossTensor, StepSettings, VectorTensor, device_error,
};

type Matrix<D, T = NoneTape> = Tensor<(usize, usize), f32, D, T>;
type Positions<D, T = NoneTape> = Tensor<(usize, usize, usize), f32, D, T>;

/// Runs a graph operation by operation on a dfdx device.
pub struct Composed<D: Device> {
    graph: Graph,
    device: D,
}

impl<D: Device> Composed<D> {
    pub fn new(graph: Graph, device: D) -> Self {
        Self { graph, device }
    }

    fn vector(&self, values: &[f32]) -> Result<VectorTensor<D>> {
        self.device.try_tensor_from_vec(values.to_vec(), (values.len(),)).map_err(device_error)
    }

    fn images(&self, values: &[f32], count: usize, shape: ImageShape) -> Result<ImageTensor<D>> {
        let dims = (count, shape.height, shape.width, shape.channels);
        self.device.try_tensor_from_vec(values.to_vec(), dims).map_err(device_error)
    }

    /// The values of all nodes for images on the host.
    fn run(&self, params: &[VectorTensor<D>], x: &[f32], t: &[f32]) -> Result<Vec<ImageTensor<D>>> {
        let x = self.images(x, count_images(&self.graph, x, t)?, self.graph.input_shape())?;
        Ok(run(&self.graph, params, x, self.vector(t)?, NoneTape).0)
    }
}

impl<D: Device + 'static> Backend for Composed<D> {
    type Device = D;

    fn device(&self) -> &D {
        &self.device
    }

    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn forward(&self, params: &[VectorTensor<D>], x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
        let values = self.run(params, x, t)?;
        let output = values.last().expect("a graph has nodes");
        ensure!(y.len() == output.shape().num_elements(), "room for {} values of {:?}", y.len(), output.shape());
        output.copy_into(y);
        Ok(())
    }

    fn values(&self, params: &[VectorTensor<D>], x: &[f32], t: &[f32], nodes: &[NodeId]) -> Result<Vec<Vec<f32>>> {
        let values = self.run(params, x, t)?;
        Ok(nodes.iter().map(|n| values[n.0].as_vec()).collect())
    }

    fn loss(&self, params: &[VectorTensor<D>], batch: Batch) -> Result<LossTensor<D>> {
        let images = batch.count_images(&self.graph)?;
        let x = self.images(batch.x, images, self.graph.input_shape())?;
        let target = self.images(batch.target, images, self.graph.output_shape())?;
        let (mut values, tape) = run(&self.graph, params, x, self.vector(batch.t)?, OwnedTape::default());
        let y = values.pop().expect("a graph has nodes");
        let shape = *y.shape();
        let error = (y.put_tape(tape) - target).square();
        let error: VectorTensor<D, _> = error.mean::<_, Axes3<1, 2, 3>>();
        debug_assert_eq!(error.shape().0, shape.0);
        Ok((error * self.vector(batch.weights)?).mean())
    }

    fn update(&self, state: &mut DeviceState<D>, mut gradients: Gradients<D>, s: &StepSettings) -> Result<f32> {
        for p in &state.params {
            gradients.try_alloc_for(p).map_err(device_error)?;
        }
        let gradients: Vec<_> = state.params.iter().map(|p| gradients.get(p)).collect();
        let squares: f64 = gradients.iter().map(|g| g.clone().square().sum::<Rank0, _>().as_vec()[0] as f64).sum();
        let norm = squares.sqrt();
        let scale = s.clip.map_or(1.0, |clip| if norm > clip { clip / norm } else { 1.0 });
        state.step += 1;
        let correct = |beta: f64| 1.0 - beta.powi(state.step as i32);
        for (i, g) in gradients.into_iter().enumerate() {
            let g = g * scale as f32;
            let (m, v) = (&mut state.first_moment[i], &mut state.second_moment[i]);
            *m = m.clone() * s.betas[0] as f32 + g.clone() * (1.0 - s.betas[0]) as f32;
            *v = v.clone() * s.betas[1] as f32 + g.square() * (1.0 - s.betas[1]) as f32;
            let denominator = (v.clone() / correct(s.betas[1]) as f32).sqrt() + s.eps as f32;
            let change = m.clone() * (s.lr / correct(s.betas[0])) as f32 / denominator;
            let kept = 1.0 - s.lr * s.weight_decay;
            state.params[i] = state.params[i].clone() * kept as f32 - change;
            state.ema[i] =
                state.ema[i].clone() * s.ema_decay as f32 + state.params[i].clone() * (1.0 - s.ema_decay) as f32;
        }
        Ok(norm as f32)
    }
}

/// The values of every node so far, and the one tape that all of them share.
struct Run<'a, D: Device, T: Tape<f32, D>> {
    params: &'a [VectorTensor<D>],
    values: Vec<ImageTensor<D>>,
    tape: Option<T>,
}

/// The values of `graph`'s nodes, apart from the tape they were recorded on.
fn run<D: Device, T: Tape<f32, D> + Merge<T> + Merge<NoneTape>>(
    graph: &Graph,
    params: &[VectorTensor<D>],
    x: ImageTensor<D>,
    t: VectorTensor<D>,
    tape: T,
) -> (Vec<ImageTensor<D>>, T) {
    let mut run = Run { params, values: Vec::with_capacity(graph.nodes.len()), tape: Some(tape) };
    let t = t.clone().reshape_like(&(t.shape().0, 1usize, 1usize, 1usize));
    for node in &graph.nodes {
        let value = match node.op {
            Op::Input => x.clone(),
            Op::Time => t.clone(),
            _ => {
                let (value, tape) = run.apply(node).split_tape();
                run.tape = Some(tape);
                value
            }
        };
        run.values.push(value);
    }
    (run.values, run.tape.expect("every operation hands the tape on"))
}

impl<D: Device, T: Tape<f32, D> + Merge<T> + Merge<NoneTape>> Run<'_, D, T> {
    /// The value of a node, carrying the tape.
    fn taped(&mut self, id: NodeId) -> ImageTensor<D, T> {
        let tape = self.tape.take().expect("one value at a time carries the tape");
        self.values[id.0].clone().put_tape(tape)
    }

    /// The tape, for a value that nothing learns through.
    fn any_tape(&mut self) -> T {
        self.tape.take().expect("one value at a time carries the tape")
    }

    fn param(&self, id: ParamId) -> VectorTensor<D, T> {
        self.params[id.0].retaped::<T>()
    }

    fn matrix(&self, id: ParamId, rows: usize) -> Matrix<D, T> {
        let columns = self.params[id.0].shape().0 / rows;
        self.param(id).reshape_like(&(rows, columns))
    }

    fn apply(&mut self, node: &Node) -> ImageTensor<D, T> {
        match node.op {
            Op::Input | Op::Time => unreachable!("inputs have their values already"),
            Op::Conv3x3 { x, weight, bias } => {
                let (b, h, w, c) = *self.values[x.0].shape();
                let columns: Matrix<D, T> = neighbourhoods(self.taped(x)).reshape_like(&(b * h * w, 9 * c));
                self.affine(columns, weight, bias, (b, h, w))
            }
            Op::Linear { x, weight, bias } => {
                let (b, h, w, c) = *self.values[x.0].shape();
                let rows = self.taped(x).reshape_like(&(b * h * w, c));
                self.affine(rows, weight, bias, (b, h, w))
            }
            Op::UpConv2x2 { x, weight, bias } => {
                let (b, h, w, c) = *self.values[x.0].shape();
                let o = node.shape.channels;
                let y = self.taped(x).reshape_like(&(b * h * w, c)).matmul(self.matrix(weight, c));
                let y: Tensor<(usize, usize, usize, usize, usize), f32, D, T> =
                    y.reshape_like(&(b * h, w, 2usize, 2usize, o));
                let y = y.permute::<_, Axes5<0, 2, 1, 3, 4>>().reshape_like(&(b, 2 * h, 2 * w, o));
                let shape = *y.shape();
                y + self.param(bias).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
            }
            Op::GroupNorm { x, groups, weight, bias } => {
                let x = self.taped(x);
                let shape = *x.shape();
                group_norm(x, groups) * self.param(weight).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
                    + self.param(bias).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
            }
            Op::FilmNorm { x, v, groups, weight, bias } => {
                let x = self.taped(x);
                let shape = *x.shape();
                let part = |channels: std::ops::Range<usize>| -> ImageTensor<D, T> {
                    let v: Matrix<D, T> = self.values[v.0].retaped::<T>().reshape_like(&(shape.0, 2 * shape.3));
                    own_gradient(v).slice((.., channels)).broadcast_like::<_, Axes2<1, 2>>(&shape)
                };
                let y = group_norm(x, groups) * self.param(weight).broadcast_like::<_, Axes3<0, 1, 2>>(&shape)
                    + self.param(bias).broadcast_like::<_, Axes3<0, 1, 2>>(&shape);
                y * (part(0..shape.3) + 1.0) + part(shape.3..2 * shape.3)
            }
            Op::Sinusoid { t } => {
                let device = self.values[t.0].device().clone();
                let waves = graph::sinusoid(node.shape.channels);
                let (b, n) = (self.values[t.0].shape().0, waves.len());
                let waves: Matrix<D> = device.tensor_from_vec(waves, (1, n));
                let t: Matrix<D> = self.values[t.0].clone().reshape_like(&(b, 1usize));
                let angles = t.matmul(waves);
                let both: Matrix<D> = (angles.clone().sin(), angles.cos()).concat_along(Axis::<1>);
                both.reshape_like(&(b, 1usize, 1usize, 2 * n)).put_tape(self.any_tape())
            }
            Op::Positions { cell } => {
                let s = node.shape;
                let places = graph::positions(s, cell);
                let places = self.values[0].device().tensor_from_vec(places, (s.height, s.width, s.channels));
                let shape = (self.values[0].shape().0, s.height, s.width, s.channels);
                places.broadcast_like::<_, Axis<0>>(&shape).put_tape(self.any_tape())
            }
            Op::Silu { x } => {
                let x = self.taped(x);
                x.with_empty_tape().sigmoid() * x
            }
            Op::MaxPool2x2 { x } => max_pool(self.taped(x)),
            Op::MeanPool { x, first, factor: f } => {
                let (b, h, w, _) = *self.values[x.0].shape();
                let c = node.shape.channels;
                let part: ImageTensor<D, T> = own_gradient(self.taped(x)).slice((.., .., .., first..first + c));
                let blocks: Tensor<(usize, usize, usize, usize, usize), f32, D, T> =
                    part.reshape_like(&(b * (h / f), f, w / f, f, c));
                let means: Positions<D, T> = blocks.mean::<_, Axes2<1, 3>>();
                means.reshape_like(&(b, h / f, w / f, c))
            }
            Op::Add { a, b } => self.taped(a) + self.values[b.0].clone(),
            Op::Concat { a, b } => {
                let b = self.values[b.0].retaped::<T>();
                (self.taped(a), b).concat_along(Axis::<3>)
            }
            Op::AddVector { x, v } => {
                let v = self.taped(v);
                let (b, _, _, c) = *v.shape();
                let shape = *self.values[x.0].shape();
                let v: Matrix<D, T> = v.reshape_like(&(b, c));
                v.broadcast_like::<_, Axes2<1, 2>>(&shape) + self.values[x.0].clone()
            }
            Op::Attention { q, k, v, heads } => {
                let (query, key, value) =
                    (*self.values[q.0].shape(), *self.values[k.0].shape(), *self.values[v.0].shape());
                let scale = 1.0 / ((query.3 / heads) as f32).sqrt();
                let q = split_heads(self.taped(q), heads);
                let k = split_heads(self.values[k.0].retaped::<T>(), heads);
                let v = split_heads(self.values[v.0].retaped::<T>(), heads);
                debug_assert_eq!(key.1 * key.2, value.1 * value.2);
                let scores = q.matmul(k.permute::<_, Axes4<0, 1, 3, 2>>()) * scale;
                let weighted = scores.softmax::<Axis<3>>().matmul(v);
                let y = weighted.permute::<_, Axes4<0, 2, 1, 3>>();
                y.reshape_like(&(query.0, query.1, query.2, value.3))
            }
            Op::LinearAttention { q, k, v, heads } => {
                let (b, h, w, d) = *self.values[q.0].shape();
                let keys = self.values[k.0].shape().1 * self.values[k.0].shape().2;
                let q: ImageTensor<D, T> = self.taped(q).reshape_like(&(b, h * w, heads, d / heads));
                let k: ImageTensor<D, T> = self.values[k.0].retaped::<T>().reshape_like(&(b, keys, heads, d / heads));
                // Before they are permuted: dfdx differentiates the softmax of a permuted tensor wrongly.
                let q = q.softmax::<Axis<3>>().permute::<_, Axes4<0, 2, 1, 3>>();
                let k = k.softmax::<Axis<1>>().permute::<_, Axes4<0, 2, 3, 1>>();
                let v = split_heads(self.values[v.0].retaped::<T>(), heads);
                let context = k.matmul(v);
                let y = q.matmul(context).permute::<_, Axes4<0, 2, 1, 3>>();
                y.reshape_like(&(b, h, w, node.shape.channels))
            }
            Op::Gate { branch, skip, gamma } => {
                let branch = self.taped(branch);
                let shape = *branch.shape();
                let gamma = self.param(gamma).reshape_like(&(1usize,)).sum::<Rank0, _>();
                branch * gamma.broadcast_like(&shape) + self.values[skip.0].clone()
            }
        }
    }

    /// rows · weight + bias, as images of `(b, h, w)` positions.
    fn affine(
        &self,
        rows: Matrix<D, T>,
        weight: ParamId,
        bias: ParamId,
        at: (usize, usize, usize),
    ) -> ImageTensor<D, T> {
        let inputs = rows.shape().1;
        let y = rows.matmul(self.matrix(weight, inputs));
        let shape = *y.shape();
        let y = y + self.param(bias).broadcast_like::<_, Axis<0>>(&shape);
        y.reshape_like(&(at.0, at.1, at.2, shape.1))
    }
}

/// The 3×3 neighbourhood of every position, `(B, H·W·9, C)`: a row of zeros is appended and gathered where the
/// neighbour lies outside.
fn neighbourhoods<D: Device, T: Tape<f32, D> + Merge<NoneTape> + Merge<T>>(x: ImageTensor<D, T>) -> Positions<D, T> {
    let device = x.device().clone();
    let (b, h, w, c) = *x.shape();
    let mut indices = Vec::with_capacity(h * w * 9);
    for (y, x) in (0..h as isize).flat_map(|y| (0..w as isize).map(move |x| (y, x))) {
        for (dy, dx) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))) {
            let (y, x) = (y + dy, x + dx);
            let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
            indices.push(if inside { y as usize * w + x as usize } else { h * w });
        }
    }
    let indices = device.tensor_from_vec(indices.repeat(b), (b, h * w * 9));
    let zeros: Positions<D> = device.zeros_like(&(b, 1, c));
    let x: Positions<D, T> = x.reshape_like(&(b, h * w, c));
    let padded: Positions<D, T> = (x, zeros).concat_along(Axis::<1>);
    padded.gather(indices)
}

/// (x − mean) / √(variance + ε), a group of channels of an image at a time.
fn group_norm<D: Device, T: Tape<f32, D> + Merge<T>>(x: ImageTensor<D, T>, groups: usize) -> ImageTensor<D, T> {
    let (b, h, w, c) = *x.shape();
    let x: ImageTensor<D, T> = x.reshape_like(&(b, h * w, groups, c / groups));
    let shape = *x.shape();
    let mean = x.with_empty_tape().mean::<(usize, usize), Axes2<1, 3>>();
    let x = x - mean.broadcast_like::<_, Axes2<1, 3>>(&shape);
    let variance = x.with_empty_tape().square().mean::<(usize, usize), Axes2<1, 3>>();
    let deviation = (variance + 1e-5).sqrt().broadcast_like::<_, Axes2<1, 3>>(&shape);
    (x / deviation).reshape_like(&(b, h, w, c))
}

fn max_pool<D: Device, T: Tape<f32, D>>(x: ImageTensor<D, T>) -> ImageTensor<D, T> {
    let (b, h, w, c) = *x.shape();
    let rows = x.reshape_like(&(b, h / 2, 2usize, w / 2, 2usize * c));
    let rows: ImageTensor<D, T> = rows.max::<_, Axis<2>>();
    rows.reshape_like(&(b, h / 2, w / 2, 2usize, c)).max::<_, Axis<3>>()
}

/// A copy for `slice`, whose gradient on the CPU replaces what others have added to its input's.
fn own_gradient<S: Shape, D: Device, T: Tape<f32, D>>(x: Tensor<S, f32, D, T>) -> Tensor<S, f32, D, T> {
    x * 1.0
}

/// `(B, H, W, heads · D)` to `(B, heads, H·W, D)`.
fn split_heads<D: Device, T: Tape<f32, D>>(x: ImageTensor<D, T>, heads: usize) -> ImageTensor<D, T> {
    let (b, h, w, c) = *x.shape();
    let x: ImageTensor<D, T> = x.reshape_like(&(b, h * w, heads, c / heads));
    x.permute::<_, Axes4<0, 2, 1, 3>>()
}
