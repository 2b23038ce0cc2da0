//! Attention layers, and control layers that show what attention contributes.
//!
//! All layers except the tutorial's start with a normalisation and end with a projection, which is initialised to zero
//! and added to the layer's input.

use super::norm::groups;
use crate::config::{AttentionKind, AttentionParams, Matched};
use crate::nn::Graph;
use crate::nn::graph::{NodeId, Probe, Shape};

/// The position of a layer in the network.
pub(super) struct LayerSite<'a> {
    /// The network's input.
    pub(super) image: NodeId,
    /// The factor between the network's input and the low-resolution image.
    pub(super) scale: usize,
    /// The layer's name: the prefix of its parameters' names.
    pub(super) name: &'a str,
}

/// The kinds of attention that project their input to queries, keys and values, and add a projection of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Projected {
    Mhsa,
    Linear,
    Cross,
    Uniform,
}

/// Appends attention of the requested kind and returns its output, which is `x` for `AttentionKind::None`.
pub(super) fn add_attention(g: &mut Graph, x: NodeId, params: &AttentionParams, site: &LayerSite) -> NodeId {
    let name = site.name;
    let kind = match params.kind {
        AttentionKind::None => return x,
        AttentionKind::Sagan => return sagan(g, x, name),
        AttentionKind::ConvControl => return conv_control(g, x, params, site),
        AttentionKind::Mhsa => Projected::Mhsa,
        AttentionKind::Linear => Projected::Linear,
        AttentionKind::Cross => Projected::Cross,
        AttentionKind::Uniform => Projected::Uniform,
    };
    let shape = g.shape(x);
    let channels = shape.channels;
    let normed = g.group_norm(x, &format!("{name}.norm"), groups(channels));
    let (query_input, key_input) = match kind {
        Projected::Cross => {
            let spacing = g.input_shape().height / shape.height;
            (with_positions(g, normed, spacing), low_resolution_tokens(g, channels, site))
        }
        Projected::Mhsa | Projected::Linear | Projected::Uniform => (normed, normed),
    };
    let q = g.conv1x1(query_input, &format!("{name}.query"), channels);
    let k = g.conv1x1(key_input, &format!("{name}.key"), channels);
    let v = g.conv1x1(key_input, &format!("{name}.value"), channels);
    let attended = match kind {
        Projected::Mhsa | Projected::Cross => g.attention(q, k, v, params.heads),
        Projected::Linear => g.linear_attention(q, k, v, params.heads),
        // With equal weights, every position gets the same mean.
        Projected::Uniform => g.mean_pool(v, shape.height),
    };
    let branch = g.zero_conv1x1(attended, &format!("{name}.proj"), channels);
    let attention = (kind != Projected::Uniform).then_some(attended);
    g.probe(Probe { name: name.to_string(), branch, skip: x, gamma: None, attention, width: None });
    if kind == Projected::Uniform { g.add_vector(x, branch) } else { g.add(branch, x) }
}

/// Appends SAGAN's attention (Zhang et al. 2019): gamma · attention(x) + x with one head, queries and keys of C/8
/// channels, and gamma starting at 0.
fn sagan(g: &mut Graph, x: NodeId, name: &str) -> NodeId {
    let channels = g.shape(x).channels;
    let q = g.conv1x1(x, &format!("{name}.query"), channels / 8);
    let k = g.conv1x1(x, &format!("{name}.key"), channels / 8);
    let v = g.conv1x1(x, &format!("{name}.value"), channels);
    let branch = g.attention(q, k, v, 1);
    let (sum, gamma) = g.gate(branch, x, &format!("{name}.gamma"));
    let (gamma, attention) = (Some(gamma), Some(branch));
    g.probe(Probe { name: name.to_string(), branch, skip: x, gamma, attention, width: None });
    sum
}

/// Appends a control: two 1×1 convolutions with about as many parameters as the attention layer that they replace, to
/// show the effect of the additional parameters alone.
fn conv_control(g: &mut Graph, x: NodeId, params: &AttentionParams, site: &LayerSite) -> NodeId {
    let (channels, name) = (g.shape(x).channels, site.name);
    let width = control_width(g.shape(x), params, site.scale, g.input_shape());
    let y = g.group_norm(x, &format!("{name}.norm"), groups(channels));
    let y = g.conv1x1(y, &format!("{name}.conv1"), width);
    let y = g.silu(y);
    let branch = g.zero_conv1x1(y, &format!("{name}.conv2"), channels);
    let width = Some(width);
    g.probe(Probe { name: name.to_string(), branch, skip: x, gamma: None, attention: None, width });
    g.add(branch, x)
}

/// Returns the number w of hidden channels of [`conv_control`] that brings its parameter count, w (2C + 1) + 3C,
/// closest to that of the layer that it replaces.
fn control_width(shape: Shape, params: &AttentionParams, scale: usize, image: Shape) -> usize {
    let kind = match params.matches {
        Matched::Sagan => AttentionKind::Sagan,
        Matched::Mhsa => AttentionKind::Mhsa,
        Matched::Linear => AttentionKind::Linear,
        Matched::Cross => AttentionKind::Cross,
    };
    let (mut g, image, _) = Graph::new(image);
    let x = g.position_encoding(shape, 1);
    add_attention(&mut g, x, &AttentionParams { kind, ..params.clone() }, &LayerSite { image, scale, name: "" });
    let (c, count) = (shape.channels, g.parameter_count());
    ((count.saturating_sub(3 * c) + c) / (2 * c + 1)).max(1)
}

/// Adds the encoding of positions that are `spacing` pixels apart.
fn with_positions(g: &mut Graph, x: NodeId, spacing: usize) -> NodeId {
    let encoding = g.position_encoding(g.shape(x), spacing);
    g.add(x, encoding)
}

/// Appends one token per pixel of the low-resolution image. The pixels are recovered as the block means of the enlarged
/// image, from which they differ only because the enlargement sharpens.
fn low_resolution_tokens(g: &mut Graph, channels: usize, site: &LayerSite) -> NodeId {
    let pixels = g.mean_pool_of(site.image, 3..6, site.scale);
    let tokens = g.conv1x1(pixels, &format!("{}.tokens", site.name), channels);
    with_positions(g, tokens, site.scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelParams;
    use crate::model::unet;

    fn model(base_channels: usize, kind: AttentionKind, matches: Matched, resolutions: &[usize]) -> Graph {
        let attention = AttentionParams { kind, matches, resolutions: resolutions.to_vec(), ..Default::default() };
        unet(&ModelParams { base_channels, attention, ..Default::default() }, 32, 4)
    }

    #[test]
    fn a_control_matches_the_parameter_count_of_the_layer_it_replaces() {
        for base_channels in [4, 8, 12, 16, 24, 32, 64] {
            for (matches, kind) in [
                (Matched::Sagan, AttentionKind::Sagan),
                (Matched::Mhsa, AttentionKind::Mhsa),
                (Matched::Linear, AttentionKind::Linear),
                (Matched::Cross, AttentionKind::Cross),
            ] {
                for resolutions in [&[8][..], &[16, 8], &[8, 16, 32]] {
                    if kind == AttentionKind::Sagan && base_channels < 8 {
                        continue;
                    }
                    let control = model(base_channels, AttentionKind::ConvControl, matches, resolutions);
                    let attention = model(base_channels, kind, Matched::default(), resolutions);
                    let [found, expected] = [&control, &attention].map(|graph| graph.parameter_count() as f64);
                    assert!(
                        (found / expected - 1.0).abs() < 0.005,
                        "{kind:?} {base_channels} {resolutions:?}: expected {expected}, found {found}"
                    );
                    assert!(control.probes.iter().all(|probe| probe.width.is_some()));
                }
            }
        }
    }

    #[test]
    fn uniform_attention_has_the_parameters_of_attention_but_fewer_flops() {
        let [uniform, mhsa] =
            [AttentionKind::Uniform, AttentionKind::Mhsa].map(|kind| model(16, kind, Matched::default(), &[8]));
        assert_eq!(uniform.parameter_count(), mhsa.parameter_count());
        assert!(uniform.forward_flops() < mhsa.forward_flops());
    }

    /// The cost of softmax attention is quadratic in the number of positions; that of linear attention is linear.
    #[test]
    fn linear_attention_is_cheaper_on_large_feature_maps() {
        let flops = |kind, resolution| model(16, kind, Matched::default(), &[resolution]).forward_flops() as f64;
        let relative_cost =
            |resolution| flops(AttentionKind::Linear, resolution) / flops(AttentionKind::Mhsa, resolution);
        assert!(relative_cost(32) < 0.6, "{}", relative_cost(32));
        assert!(relative_cost(8) > 0.95, "{}", relative_cost(8));
    }

    #[test]
    fn layers_are_added_at_every_requested_resolution() {
        let graph = model(8, AttentionKind::Mhsa, Matched::default(), &[16, 8]);
        let names: Vec<&str> = graph.probes.iter().map(|probe| probe.name.as_str()).collect();
        assert_eq!(names, ["enc2_attention", "attention", "dec2_attention"]);
    }
}
