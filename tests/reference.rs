//! Compares networks, schedules and samplers with values that PyTorch computed, which are stored in `tests/fixtures`
//! with the scripts that computed them. `SRPIPE_FIXTURES` selects another file; its shapes determine base channels and
//! batch size.

mod fixtures;

use std::convert::Infallible;

use sha2::{Digest, Sha256};
use srpipe::config::Device;
use srpipe::config::*;
use srpipe::diffusion::{Schedule, Step, sample, steps};
use srpipe::model::{Checkpoint, Config, ModelCost, unet};
use srpipe::nn::composed::ComposedBackend;
use srpipe::nn::{Batch, Graph, Network, StepSettings, TrainState, create_network_on};

use fixtures::Fixtures;

/// Creates a network on a backend.
type Open = fn(Graph, &TrainState) -> Box<dyn Network>;

/// Creates a network with the composed operations on the CPU.
fn composed(graph: Graph, state: &TrainState) -> Box<dyn Network> {
    create_network_on(ComposedBackend::new(graph, dfdx::prelude::Cpu::default()).unwrap(), state).unwrap()
}

/// Creates a network on the device in `SRPIPE_TEST_DEVICE`, such as `cuda`, or by default with the CPU kernels that
/// pipelines use.
fn on_test_device(graph: Graph, state: &TrainState) -> Box<dyn Network> {
    let device = std::env::var("SRPIPE_TEST_DEVICE").map_or(Device::Cpu, |text| text.parse().unwrap());
    srpipe::nn::create_network(device, graph, state).unwrap()
}

/// A network with the weights of the reference, on the backend of `open`.
struct Reference<'a> {
    fixtures: &'a Fixtures,
    /// The prefix of its tensor names.
    name: String,
    network: Box<dyn Network>,
    weight_decay: f64,
}

impl<'a> Reference<'a> {
    fn new(fixtures: &'a Fixtures, name: &str, graph: Graph, weight_decay: f64, open: Open) -> Self {
        let mut state = TrainState::initial(&graph, |_, n| vec![0.0; n]);
        state.weights = graph.params.iter().map(|p| fixtures.f32(&format!("{name}.w.{}", p.name))).collect();
        Self { fixtures, name: name.to_string(), network: open(graph, &state), weight_decay }
    }

    /// Creates the tutorial's network from the original fixtures.
    fn tutorial(fixtures: &'a Fixtures, kind: AttentionKind, open: Open) -> Self {
        let name = if kind == AttentionKind::Sagan { "unet.seed" } else { "unet.none" };
        let base_channels = fixtures.shape(&format!("{name}.w.enc1.0.weight"))[0];
        Self::new(fixtures, name, unet(&ModelParams::tutorial(base_channels, kind), 32, 4), 0.0, open)
    }

    /// Returns an f32 tensor of the reference.
    fn get(&self, key: &str) -> Vec<f32> {
        self.fixtures.f32(&format!("{}.{key}", self.name))
    }

    /// Returns an image tensor in channels-last layout.
    fn images(&self, key: &str) -> Vec<f32> {
        let shape = self.fixtures.shape(&format!("{}.{key}", self.name));
        let (n, c, p) = (shape[0], shape[1], shape[2] * shape[3]);
        let values = self.get(key);
        let at = |i: usize| values[(i / (c * p)) * c * p + (i % c) * p + i / c % p];
        (0..n * c * p).map(at).collect()
    }

    /// Compares output, gradients and losses.
    fn check(mut self) {
        let (x, t, target, y) = (self.images("x"), self.get("t"), self.images("target"), self.images("y"));
        let output = self.network.predict(Weights::Raw, &x, &t).unwrap();
        let gap = output.iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(gap < 1e-4, "{}: outputs differ by {gap}", self.name);

        let weights = vec![1.0; t.len()];
        let batch = Batch { x: &x, t: &t, target: &target, weights: &weights };
        let (_, gradients) = self.network.gradients(batch).unwrap();
        for (gradient, param) in gradients.iter().zip(&self.network.graph().params) {
            let expected = self.get(&format!("g.{}", param.name));
            let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| (v as f64).powi(2)).sum::<f64>().sqrt();
            let gap = norm(&mut gradient.iter().zip(&expected).map(|(a, b)| a - b));
            let size = norm(&mut expected.iter().copied());
            let bound = if size < 1e-6 { 1e-6 } else { 1e-3 * size };
            assert!(gap <= bound, "{}: gradient of {} differs by {gap} of {size}", self.name, param.name);
        }

        let settings = StepSettings { lr: 1e-3, weight_decay: self.weight_decay, ..Default::default() };
        for (i, expected) in self.get("losses").into_iter().enumerate() {
            let loss = self.network.train_step(batch, 1, &settings).unwrap().loss;
            assert!((loss - expected).abs() < 1e-4, "{}: loss {loss} at step {i}, expected {expected}", self.name);
        }
    }
}

#[test]
fn the_tutorials_unets_match_pytorch() {
    let fixtures = Fixtures::read();
    for kind in [AttentionKind::None, AttentionKind::Sagan] {
        for open in [composed as Open, on_test_device] {
            Reference::tutorial(&fixtures, kind, open).check();
        }
    }
}

/// Covers every kind of block, embedding and attention: outputs, gradients, parameter and operation counts, and AdamW
/// steps.
#[test]
fn every_kind_of_network_matches_pytorch() {
    let fixtures = Fixtures::models();
    let header: serde_json::Value = serde_json::from_str(&fixtures.metadata("models")).unwrap();
    let size = |key: &str| header[key].as_u64().unwrap() as usize;
    // The fixtures must be computed with the `unet.py` that users load checkpoints with.
    let digest: String =
        Sha256::digest(include_bytes!("../docs/unet.py")).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header["unet"], digest, "run: python3 tests/fixtures/make_models.py tests/fixtures/models.safetensors");
    let models = header["models"].as_object().unwrap();
    assert!(models.len() >= 10, "{}", models.len());
    for (name, params) in models {
        let params: ModelParams = serde_json::from_value(params.clone()).unwrap();
        let graph = unet(&params, size("size"), size("scale"));
        let cost = ModelCost::of(&graph);
        assert_eq!(cost.parameters, fixtures.counts(&format!("{name}.count"))[0], "{name}");
        let flops = [cost.forward_flops, cost.training_flops].map(|flops| flops as usize);
        let expected = fixtures.counts(&format!("{name}.flops"));
        match params.attention.kind {
            // PyTorch's layer also computes unused queries and keys, and projects the same mean at every position.
            AttentionKind::Uniform => assert!(flops[0] < expected[0] && flops[1] < expected[1], "{name}"),
            _ => assert_eq!(flops[..], expected, "{name}"),
        }
        let mut names: Vec<String> = graph.params.iter().map(|p| p.name.clone()).collect();
        names.sort();
        let mut expected = fixtures.names();
        expected.retain_mut(|n| n.strip_prefix(&format!("{name}.w.")).map(str::to_string).map(|s| *n = s).is_some());
        expected.sort();
        assert_eq!(names, expected, "{name}");
        for open in [composed as Open, on_test_device] {
            Reference::new(&fixtures, name, graph.clone(), 0.1, open).check();
        }
    }
}

/// `load_state_dict` is strict: a checkpoint must have exactly the names and shapes of the reference.
#[test]
fn a_checkpoint_is_a_state_dict() {
    let fixtures = Fixtures::read();
    for (name, kind) in [("none", AttentionKind::None), ("seed", AttentionKind::Sagan)] {
        let base_channels = fixtures.shape(&format!("unet.{name}.w.enc1.0.weight"))[0];
        let model = ModelParams::tutorial(base_channels, kind);
        let diffusion = DiffusionParams { residual_scale: Some(4.0), ..Default::default() };
        let mut weights = vec![];
        let graph = unet(&model, 32, 4);
        for p in &graph.params {
            weights.push(fixtures.f32(&format!("unet.{name}.w.{}", p.name)));
        }
        let config = Config { model, diffusion, image_size: 32, scale: 4, cost: ModelCost::of(&graph), steps: 7 };
        let checkpoint = Checkpoint { config, weights };
        let bytes = checkpoint.to_bytes().unwrap();
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint);

        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names = fixtures.names();
        names.retain_mut(|n| n.strip_prefix(&format!("unet.{name}.w.")).map(str::to_string).map(|s| *n = s).is_some());
        names.sort();
        let mut ours: Vec<String> = file.names().into_iter().map(str::to_string).collect();
        ours.sort();
        assert_eq!(ours, names);
        for (tensor, view) in file.tensors() {
            assert_eq!(view.shape(), fixtures.shape(&format!("unet.{name}.w.{tensor}")), "{tensor}");
            let values: Vec<u8> =
                fixtures.f32(&format!("unet.{name}.w.{tensor}")).iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(view.data(), values, "{tensor}");
        }
    }
}

/// Returns a schedule with 1000 timesteps and betas from 1e-4 to 0.02.
fn schedule(schedule: ScheduleKind) -> Schedule {
    Schedule::new(&DiffusionParams { schedule, ..Default::default() })
}

#[test]
fn schedules_match_pytorch() {
    let fixtures = Fixtures::read();
    for (name, schedule) in [("linear", schedule(ScheduleKind::Linear)), ("cosine", schedule(ScheduleKind::Cosine))] {
        for (t, expected) in fixtures.f64(&format!("schedule.{name}")).into_iter().enumerate() {
            let gap = (schedule.alpha_bar(t) - expected).abs();
            assert!(gap < 1e-12, "{name} differs by {gap:e} at {t}");
        }
    }
}

/// Denoises like the script of the fixtures: ε̂ = tanh(x) (t + 1) / T, with x̂_0 clamped to [-1, 1].
fn toy_denoiser(x: &[f64], step: Step) -> Result<Vec<f64>, Infallible> {
    let (a, s) = (step.alpha_bar.sqrt(), (1.0 - step.alpha_bar).sqrt());
    let x0 = |x: &f64| ((x - s * x.tanh() * (step.t + 1) as f64 / 1000.0) / a).clamp(-1.0, 1.0);
    Ok(x.iter().map(x0).collect())
}

fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    let gap = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(gap < 1e-9, "the chains end {gap:e} apart");
}

#[test]
fn ddim_matches_the_reference_chain() {
    let fixtures = Fixtures::read();
    let mut x = fixtures.f64("ddim.x_T");
    let params = SamplerParams { method: SamplerMethod::Ddim, steps: 25, ..Default::default() };
    let no_noise = |_| unreachable!("eta is 0");
    let steps = steps(&schedule(ScheduleKind::Linear), &params);
    sample(&params, &steps, &mut x, toy_denoiser, no_noise).unwrap();
    assert_close(&x, &fixtures.f64("ddim.x_0"));
}

#[test]
fn ddpm_matches_the_reference_chain() {
    let fixtures = Fixtures::read();
    let (mut x, z) = (fixtures.f64("ddpm.x_49"), fixtures.f64("ddpm.z"));
    let params = SamplerParams { method: SamplerMethod::Ddpm, steps: 1000, ..Default::default() };
    let steps = steps(&schedule(ScheduleKind::Linear), &params);
    let n = x.len();
    let noise = |step: Step| z[(49 - step.t) * n..][..n].to_vec();
    sample(&params, &steps[950..], &mut x, toy_denoiser, noise).unwrap();
    assert_close(&x, &fixtures.f64("ddpm.x_0"));
}
