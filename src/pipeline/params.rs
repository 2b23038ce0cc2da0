//! The typed parameters of every stage kind: what a pipeline file may say, with its defaults.
//!
//! These types are the one description of the file: they are deserialised from it, their JSON Schema validates it, and
//! their serialisation, defaults filled in, goes into stage keys. A field that does not change a stage's result (a
//! thread count, a path, a batch size of sampling) is marked `skip_serializing` and so stays out of the keys.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::claims::Claim;
use super::secret::SecretUrl;

pub use super::command::CommandParams;

/// Gets a dataset and splits it into training, validation and test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "dataset", rename_all = "snake_case", deny_unknown_fields)]
pub enum FetchParams {
    /// CIFAR-10 (Krizhevsky 2009) from its binary archive: 50,000 training and 10,000 test images of 32×32.
    Cifar10(Cifar10Params),
    /// Generated images of 32×32 with edges, textures, repetition and symmetry; needs no network.
    Synthetic(SyntheticParams),
    /// PNG, JPEG and WebP files of any size, in a folder and the folders in it.
    Folder(FolderParams),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cifar10Params {
    /// Where the archive is: an `https:` or `http:` address, or `file:PATH` (relative to the working directory).
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretUrl>,
    /// Further addresses of the same archive, tried in order when the first fails.
    #[serde(skip_serializing)]
    #[schemars(with = "Vec<String>")]
    pub mirrors: Vec<SecretUrl>,
    /// SHA-256 of the archive, in hexadecimal. The official archive's where `url` is not given; needed with a web
    /// address of another archive; with `file:` it is checked where it is given.
    #[serde(skip_serializing)]
    pub sha256: Option<String>,
    /// Validation images, taken from the end of the training images.
    #[schemars(range(min = 1, max = 49_999))]
    pub validation: usize,
    /// At most this many images of each split.
    pub limit: Limits,
}

impl FetchParams {
    /// Height and width of the dataset's images, in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Cifar10(_) | Self::Synthetic(_) => 32,
            Self::Folder(p) => p.size,
        }
    }

    /// Test images that there are at most.
    pub fn most_tests(&self) -> usize {
        match self {
            Self::Cifar10(p) => p.limit.test.unwrap_or(usize::MAX).min(10_000),
            Self::Synthetic(p) => p.test,
            Self::Folder(p) => p.limit.test.unwrap_or(usize::MAX),
        }
    }
}

impl Default for Cifar10Params {
    fn default() -> Self {
        Self { url: None, mirrors: vec![], sha256: None, validation: 1000, limit: Limits::default() }
    }
}

/// At most this many images of each split, the first ones; all where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Training images.
    #[schemars(range(min = 1))]
    pub train: Option<usize>,
    /// Validation images.
    #[schemars(range(min = 1))]
    pub validation: Option<usize>,
    /// Test images.
    #[schemars(range(min = 1))]
    pub test: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SyntheticParams {
    /// Training images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub train: usize,
    /// Validation images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub validation: usize,
    /// Test images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub test: usize,
}

impl Default for SyntheticParams {
    fn default() -> Self {
        Self { train: 4096, validation: 256, test: 256 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderParams {
    /// The folder, relative to the working directory.
    #[serde(skip_serializing)]
    pub path: String,
    /// Height and width of the images that are made of the files, in pixels.
    #[serde(default = "default_size")]
    #[schemars(range(min = 8, max = 1024))]
    pub size: usize,
    #[serde(default)]
    pub fit: Fit,
    /// Files for validation; a tenth of all where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub validation: Option<usize>,
    /// Files for testing; a tenth of all where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub test: Option<usize>,
    /// What becomes of files that cannot be decoded, or are smaller than `size` where nothing is scaled.
    #[serde(default)]
    pub broken: Broken,
    /// At most this many images of each split.
    #[serde(default)]
    pub limit: Limits,
}

impl FolderParams {
    /// No split has more images than these.
    pub fn most_of_a_split(&self) -> usize {
        let Limits { train, validation, test } = self.limit;
        [train, validation, test].into_iter().map(|limit| limit.unwrap_or(usize::MAX)).max().unwrap_or(usize::MAX)
    }
}

fn default_size() -> usize {
    32
}

/// How a file of any size becomes square images of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// One image: the central square, scaled (Lanczos, antialiased).
    #[default]
    Cover,
    /// One image: the central `size`×`size` pixels, not scaled.
    Crop,
    /// As many images as fit side by side, not scaled; those of a file stay in one split. Where `limit` is less than
    /// all, they are from all over all files.
    Tiles,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// The stage fails and names them.
    #[default]
    Refuse,
    /// They are named in the log and left out.
    Skip,
}

/// Makes the low-resolution image of every image of a dataset, rounded to 8 bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DegradeParams {
    /// The `fetch` stage whose images are degraded.
    #[serde(skip_serializing)]
    pub input: String,
    /// How many times smaller the low-resolution image is: 2, 4 or 8.
    #[serde(default = "default_scale")]
    #[schemars(extend("enum" = [2, 4, 8]))]
    pub scale: usize,
    #[serde(default)]
    pub method: DegradeMethod,
}

fn default_scale() -> usize {
    4
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DegradeMethod {
    /// The mean of each block of pixels.
    #[default]
    Area,
    /// Keys' cubic kernel (a = -0.5), widened by the scale against aliasing, as PIL and MATLAB do.
    Bicubic,
    /// The tutorial's: bilinear between the central pixels, without antialiasing.
    Bilinear,
}

/// Trains a model on pairs of low- and high-resolution images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainParams {
    /// The `degrade` stage whose pairs are learned.
    #[serde(skip_serializing)]
    pub data: String,
    /// Instead of the pipeline's seed: initial weights, batches, times and noise.
    #[serde(default, skip_serializing)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub model: ModelParams,
    #[serde(default)]
    pub diffusion: DiffusionParams,
    #[serde(default)]
    pub optim: OptimParams,
    #[serde(default)]
    pub heldout: HeldoutParams,
}

/// The network: a U-Net.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelParams {
    /// Channels that `channel_mults` multiplies.
    #[schemars(range(min = 2, max = 1024))]
    pub base_channels: usize,
    /// By level, each of half the resolution of the one before: the channels, as multiples of `base_channels`.
    #[schemars(length(min = 1, max = 6), inner(range(min = 1, max = 64)))]
    pub channel_mults: Vec<usize>,
    /// Blocks on the way down and again on the way up, at each level.
    #[schemars(range(min = 1, max = 16))]
    pub blocks_per_level: usize,
    pub block: Block,
    pub time_embedding: TimeEmbedding,
    /// The last layer starts at zero, and so the network's first answer.
    pub zero_output: bool,
    pub attention: AttentionParams,
}

impl Default for ModelParams {
    fn default() -> Self {
        Self {
            base_channels: 32,
            channel_mults: vec![1, 2, 4],
            blocks_per_level: 1,
            block: Block::default(),
            time_embedding: TimeEmbedding::default(),
            zero_output: true,
            attention: AttentionParams::default(),
        }
    }
}

impl ModelParams {
    /// The tutorial's network, corrected.
    pub fn tutorial(base_channels: usize, kind: AttentionKind) -> Self {
        Self {
            base_channels,
            block: Block::Plain,
            time_embedding: TimeEmbedding::Seed,
            zero_output: false,
            attention: AttentionParams { kind, ..Default::default() },
            ..Default::default()
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// The tutorial's: twice convolution, normalisation, activation.
    Plain,
    /// Twice normalisation, activation, convolution, added to the input.
    #[default]
    Residual,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbedding {
    /// Sines and cosines of the time, through two layers to a scale and a shift in every block.
    #[default]
    Sinusoidal,
    /// The tutorial's: the time itself through two layers, added at the deepest level.
    Seed,
}

/// Layers in which distant parts of a map see each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionParams {
    pub kind: AttentionKind,
    /// Parts of the channels that attend on their own; the tutorial's attention has one, whatever is said here.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// Heights of the maps that have a layer: of 32×32 images 32, 16 or 8, if the U-Net has so many levels. The deepest
    /// has one, the others one on the way down and one on the way up.
    #[schemars(length(min = 1), inner(range(min = 1)))]
    pub resolutions: Vec<usize>,
    /// With `conv_control`: the kind whose parameters it has.
    pub matches: Matched,
}

impl Default for AttentionParams {
    fn default() -> Self {
        Self { kind: AttentionKind::None, heads: 4, resolutions: vec![8], matches: Matched::default() }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttentionKind {
    /// None: the baseline.
    #[default]
    None,
    /// The tutorial's: one head, queries and keys of C/8 channels, a gate gamma that starts at 0.
    Seed,
    /// Heads of softmax attention between a normalisation and a projection that starts at zero.
    Mhsa,
    /// The same with linear attention (Shen et al. 2021): its cost grows with the places, not with their square. That
    /// pays at 32×32, hardly at 8×8.
    Linear,
    /// The same, to the low-resolution image (as the means of its enlargement's blocks), with position encodings.
    Cross,
    /// A control: as `mhsa`, all weights equal.
    Uniform,
    /// A control: two 1×1 convolutions with the parameters of the kind that `matches` names.
    ConvControl,
}

/// What a control has the parameters of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Matched {
    Seed,
    #[default]
    Mhsa,
    Linear,
    Cross,
}

/// The noise process and what the network learns of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiffusionParams {
    pub schedule: ScheduleKind,
    /// Steps T of the noise process.
    #[schemars(range(min = 2, max = 100_000))]
    pub timesteps: usize,
    /// Linear and quadratic schedule: the first beta at T = 1000, scaled by 1000/T for other T.
    #[schemars(range(min = 1e-8, max = 0.5))]
    pub beta_start: f64,
    /// Linear and quadratic schedule: the last beta at T = 1000, scaled by 1000/T for other T.
    #[schemars(range(min = 1e-8, max = 0.999))]
    pub beta_end: f64,
    pub objective: Objective,
    pub target: Target,
    /// Target `residual`: the factor on the residual, so that it fills [-1, 1] as an image does. Where nothing is
    /// said, half the reciprocal of its standard deviation over the training images.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1000))]
    pub residual_scale: Option<f64>,
    pub loss_weighting: LossWeighting,
    /// The signal-to-noise ratio at which `min_snr` cuts off.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub min_snr_gamma: f64,
}

impl Default for DiffusionParams {
    fn default() -> Self {
        Self {
            schedule: ScheduleKind::default(),
            timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            objective: Objective::default(),
            target: Target::default(),
            residual_scale: None,
            loss_weighting: LossWeighting::default(),
            min_snr_gamma: 5.0,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Betas on a line (Ho et al. 2020).
    Linear,
    /// Squared cosine alpha-bar (Nichol and Dhariwal 2021, eq. 17).
    #[default]
    Cosine,
    /// A falling sigmoid of alpha-bar from -3 to 3 (Chen 2023, section 2.2).
    Sigmoid,
    /// Roots of the betas on a line (Song et al. 2021, appendix D).
    Quadratic,
}

impl ScheduleKind {
    /// Whether it goes from `beta_start` to `beta_end`.
    pub fn has_betas(self) -> bool {
        matches!(self, Self::Linear | Self::Quadratic)
    }
}

/// What the squared error at each time is multiplied by in training; the held-out loss is never weighted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossWeighting {
    /// 1 at every time.
    #[default]
    None,
    /// The signal-to-noise ratio, at most `min_snr_gamma`, as a weight on the clean image's error (Hang et al. 2023).
    MinSnr,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The noise (Ho et al. 2020).
    Eps,
    /// The clean image.
    X0,
    /// Velocity (Salimans and Ho 2022): sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0.
    #[default]
    V,
    /// No diffusion: one pass from the low-resolution image to the mean of the high-resolution ones.
    Regression,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The high-resolution image in [-1, 1].
    Image,
    /// The high-resolution image less the bicubically enlarged low-resolution one, times `residual_scale`.
    #[default]
    Residual,
}

/// The optimiser and how long it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimParams {
    /// Peak learning rate of AdamW.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 10))]
    pub lr: f64,
    /// Images in an optimiser step.
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
    /// Parts in which a batch goes through the network, their gradients added: less memory for the same step.
    #[schemars(range(min = 1, max = 65_536))]
    pub accumulate: usize,
    /// Optimiser steps; or say `epochs` or `budget`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub steps: Option<u64>,
    /// Passes over the training images; or say `steps` or `budget`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: Option<u64>,
    /// Seconds of training at `gflops`; or say `steps` or `epochs`. All trainings of the file with one budget take the
    /// same number of steps, which the costliest of them has time for.
    #[serde(skip_serializing)]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub budget: Option<u64>,
    /// With `budget`: the machine's speed in training, in billions of operations a second, as `srpipe bench` measures
    /// it. Stated, not measured in the run, because the same file must mean the same steps.
    #[serde(skip_serializing)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gflops: Option<f64>,
    /// The fraction of the steps in which the learning rate rises from 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup: f64,
    pub decay: Decay,
    /// Gradients are scaled down to this global norm; null leaves them.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: Option<f64>,
    /// Decay d of the weights' moving average, min(d, (1 + n)/(10 + n)) at step n.
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub ema: f64,
    /// Adam's decay rates of the first and second moment.
    #[schemars(inner(range(min = 0.0, max = 0.999_999)))]
    pub betas: [f64; 2],
    /// Of AdamW (Loshchilov and Hutter 2019): each step takes this fraction, times the learning rate, off every weight.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    /// Mirror images left to right at random.
    pub flips: bool,
}

impl Default for OptimParams {
    fn default() -> Self {
        Self {
            lr: 2e-3,
            batch_size: 16,
            accumulate: 1,
            steps: None,
            epochs: None,
            budget: None,
            gflops: None,
            warmup: 0.05,
            decay: Decay::default(),
            clip: Some(1.0),
            ema: 0.999,
            betas: [0.9, 0.999],
            weight_decay: 0.0,
            flips: true,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// The learning rate stays.
    None,
    /// The learning rate falls to 0 along half a cosine after the warm-up.
    #[default]
    Cosine,
}

/// The loss on validation images while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeldoutParams {
    /// Steps from one measurement to the next; one is made at the end as well.
    #[schemars(range(min = 1))]
    pub every: u64,
    /// At most this many validation images.
    #[schemars(range(min = 1))]
    pub images: usize,
}

impl Default for HeldoutParams {
    fn default() -> Self {
        Self { every: 100, images: 256 }
    }
}

/// Super-resolves the test images with a trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleParams {
    /// The `train` stage whose model samples.
    #[serde(skip_serializing)]
    pub model: String,
    /// The `degrade` stage whose test images are super-resolved.
    #[serde(skip_serializing)]
    pub data: String,
    /// Instead of the pipeline's seed: the noise of the chains.
    #[serde(default, skip_serializing)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub sampler: SamplerParams,
    /// Samples K of each test image; a regression model has one answer and makes one.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1, max = 256))]
    pub samples: usize,
    #[serde(default)]
    pub weights: Weights,
    /// At most this many test images; all where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
    /// Chains run at once; changes speed and memory, not the result.
    #[serde(default = "default_sample_batch", skip_serializing)]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
}

fn default_samples() -> usize {
    4
}

fn default_sample_batch() -> usize {
    64
}

/// The way from noise to an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerParams {
    pub method: SamplerMethod,
    /// Network evaluations a sample; at most the model's timesteps.
    #[schemars(range(min = 1, max = 100_000))]
    pub steps: usize,
    /// DDIM: 0 is deterministic, 1 has the noise of DDPM.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
    pub spacing: Spacing,
    /// Correct each estimate of the clean image so that the means of its blocks are the low-resolution image: exactly,
    /// but for values that the range of grey levels then cuts off.
    pub project_lr: bool,
}

impl Default for SamplerParams {
    fn default() -> Self {
        Self { method: SamplerMethod::default(), steps: 25, eta: 0.0, spacing: Spacing::default(), project_lr: false }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplerMethod {
    /// Ancestral sampling (Ho et al. 2020, algorithm 2).
    Ddpm,
    /// Implicit sampling (Song et al. 2021, eq. 12).
    #[default]
    Ddim,
    /// DPM-Solver++ of second order, multistep (Lu et al. 2022, algorithm 2); deterministic.
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
}

/// Which of the T times are visited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// From T - 1 downwards in equal strides.
    #[default]
    Trailing,
    /// From 0 upwards in equal strides; leaves out the noisiest times.
    Leading,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The moving average of the weights.
    #[default]
    Ema,
    /// The weights of the last step.
    Raw,
}

/// Measures every arm against the high-resolution images, beside bicubic enlargement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareParams {
    /// The arms by the name they have in tables and pictures, each a `sample` stage.
    #[serde(deserialize_with = "arms")]
    #[schemars(with = "BTreeMap<String, String>", extend("minProperties" = 1))]
    pub arms: BTreeMap<String, Arm>,
    /// What the comparison is asked, by a name of each claim. All are answered together, in `summary.json`.
    #[serde(default)]
    pub claims: BTreeMap<String, Claim>,
    /// Test images in `comparison.png`, a row each.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 64))]
    pub rows: usize,
}

fn default_rows() -> usize {
    8
}

/// An arm of a comparison: the stage that the file names, or those of its instances that differ in their seeds alone.
/// Which stages they are does not matter to the result, so their names stay out of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in the file, which the arms of a sweep have in common.
    pub of: String,
    /// Where it lies on the axes of the sweep.
    pub axes: Vec<Label>,
    /// At least one; several have different seeds.
    pub runs: Vec<ArmRun>,
}

/// One `sample` stage of an arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRun {
    /// Its value on the axis of seeds, where that was swept; of several such axes, with commas between.
    pub seed: Option<String>,
    #[serde(skip_serializing)]
    pub stage: String,
}

/// A value on an axis of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    pub axis: String,
    pub value: String,
}

impl Arm {
    /// An arm that nothing sweeps.
    pub fn single(name: &str, stage: &str) -> Self {
        let run = ArmRun { seed: None, stage: stage.to_string() };
        Self { of: name.to_string(), axes: vec![], runs: vec![run] }
    }
}

impl ArmRun {
    /// What its samples are to the comparison.
    pub fn role(&self, arm: &str) -> String {
        match &self.seed {
            None => format!("arms.{arm}"),
            Some(seed) => format!("arms.{arm}[seed={seed}]"),
        }
    }
}

/// As the file has them, the name of a stage each, or as [`StageParams::complete`](super::StageParams::complete) writes
/// them.
fn arms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Arm>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Stage(String),
        Arm(Arm),
    }
    let written = BTreeMap::<String, Written>::deserialize(deserializer)?;
    let arm = |(name, written): (String, Written)| {
        let arm = match written {
            Written::Stage(stage) => Arm::single(&name, &stage),
            Written::Arm(arm) => arm,
        };
        (name, arm)
    };
    Ok(written.into_iter().map(arm).collect())
}
