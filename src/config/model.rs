//! Parameters of the network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The network: a U-Net.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelParams {
    /// The number of channels that `channel_mults` multiplies.
    #[schemars(range(min = 2, max = 1024))]
    pub base_channels: usize,
    /// The number of channels at each level, as multiples of `base_channels`. Each level has half the resolution of the
    /// previous one.
    #[schemars(length(min = 1, max = 6), inner(range(min = 1, max = 64)))]
    pub channel_mults: Vec<usize>,
    /// Blocks at each level, in the encoder and again in the decoder.
    #[schemars(range(min = 1, max = 16))]
    pub blocks_per_level: usize,
    pub block: Block,
    pub time_embedding: TimeEmbedding,
    /// Initialise the last layer with zeros, so that the untrained network returns zeros.
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
    /// Returns the tutorial's network, corrected.
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
    /// The tutorial's: convolution, normalisation, activation, twice.
    Plain,
    /// Normalisation, activation, convolution, twice, added to the input.
    #[default]
    Residual,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbedding {
    /// Sines and cosines of the time; two layers map them to a scale and a shift in every block.
    #[default]
    Sinusoidal,
    /// The tutorial's: two layers applied to the time itself, added at the deepest level.
    #[serde(rename(serialize = "seed", deserialize = "bottleneck_mlp"), alias = "seed")]
    BottleneckMlp,
}

/// Attention layers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionParams {
    pub kind: AttentionKind,
    /// The number of heads; `sagan` always has one.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// Heights of the feature maps with attention: 32, 16 or 8 for images of 32×32, if the U-Net has that many levels. The
    /// deepest level has one layer, the others one in the encoder and one in the decoder.
    #[schemars(length(min = 1), inner(range(min = 1)))]
    pub resolutions: Vec<usize>,
    /// With `conv_control`: the kind whose number of parameters it matches.
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
    /// No attention: the baseline.
    #[default]
    None,
    /// The tutorial's, from SAGAN (Zhang et al. 2019): one head, queries and keys of C/8 channels, a gate gamma that
    /// starts at 0.
    #[serde(rename(serialize = "seed", deserialize = "sagan"), alias = "seed")]
    Sagan,
    /// Multi-head softmax attention between a normalisation and a projection that is initialised with zeros.
    Mhsa,
    /// Like `mhsa`, but with linear attention (Shen et al. 2021): the cost is proportional to the number of positions,
    /// not to its square, which helps at 32×32 and hardly at 8×8.
    Linear,
    /// Like `mhsa`, but with keys and values from the low-resolution image (the block means of its enlargement) and
    /// with position encodings.
    Cross,
    /// A control: like `mhsa`, but with equal weights for all positions.
    Uniform,
    /// A control: two 1×1 convolutions with as many parameters as the kind in `matches`.
    ConvControl,
}

/// The attention kind whose number of parameters a control matches.
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
