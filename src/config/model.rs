//! Parameters of the network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
            time_embedding: TimeEmbedding::BottleneckMlp,
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
    #[serde(rename(serialize = "seed", deserialize = "bottleneck_mlp"), alias = "seed")]
    BottleneckMlp,
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
    /// The tutorial's, from SAGAN (Zhang et al. 2019): one head, queries and keys of C/8 channels, a gate gamma that
    /// starts at 0.
    #[serde(rename(serialize = "seed", deserialize = "sagan"), alias = "seed")]
    Sagan,
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
    #[serde(rename(serialize = "seed", deserialize = "sagan"), alias = "seed")]
    Sagan,
    #[default]
    Mhsa,
    Linear,
    Cross,
}
