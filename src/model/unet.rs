//! The tutorial's U-Net, corrected: two levels below the image's resolution, a time embedding added at the bottleneck,
//! and there, where it was asked for, attention. Its parameters have the names of the PyTorch reference.

use crate::nn::Graph;
use crate::nn::graph::{NodeId, Shape};
use crate::pipeline::params::{AttentionKind, ModelParams};

/// Channels of the input: the noisy image's, then those of the enlarged low-resolution image.
pub const INPUT_CHANNELS: usize = 6;

/// The U-Net for square images of `size` pixels, a multiple of 4: `(size, size, 6)` and a time to `(size, size, 3)`.
pub fn unet(params: &ModelParams, size: usize) -> Graph {
    let c = params.base_channels;
    let (mut graph, x, t) = Graph::new(Shape::new(size, size, INPUT_CHANNELS));
    let g = &mut graph;
    let enc1 = block(g, x, "enc1", c);
    let down1 = g.max_pool2x2(enc1);
    let enc2 = block(g, down1, "enc2", 2 * c);
    let down2 = g.max_pool2x2(enc2);
    let bottleneck = block(g, down2, "bottleneck", 4 * c);

    let hidden = g.linear(t, "time_embed.0", c);
    let hidden = g.silu(hidden);
    let embedding = g.linear(hidden, "time_embed.2", 4 * c);
    let timed = g.add_vector(bottleneck, embedding);
    let attended = match params.attention.kind {
        AttentionKind::None => timed,
        AttentionKind::Seed => seed_attention(g, timed),
    };

    let up2 = g.up_conv2x2(attended, "upconv2", 2 * c);
    let skip2 = g.concat(up2, enc2);
    let dec2 = block(g, skip2, "dec2", 2 * c);
    let up1 = g.up_conv2x2(dec2, "upconv1", c);
    let skip1 = g.concat(up1, enc1);
    let dec1 = block(g, skip1, "dec1", c);
    g.conv1x1(dec1, "out", 3);
    graph
}

/// Twice: 3×3 convolution, group normalisation, SiLU.
fn block(g: &mut Graph, x: NodeId, name: &str, outputs: usize) -> NodeId {
    [(0, 1), (3, 4)].into_iter().fold(x, |x, (convolution, norm)| {
        let x = g.conv3x3(x, &format!("{name}.{convolution}"), outputs);
        let x = g.group_norm(x, &format!("{name}.{norm}"), groups(outputs));
        g.silu(x)
    })
}

/// Groups of a normalisation: the largest divisor of the channels up to 8.
fn groups(channels: usize) -> usize {
    (1..=8).rev().find(|&g| channels.is_multiple_of(g)).unwrap_or(1)
}

/// gamma · attention(x) + x with one head, queries and keys of C/8 channels, gamma starting at 0.
fn seed_attention(g: &mut Graph, x: NodeId) -> NodeId {
    let channels = g.shape(x).channels;
    let q = g.conv1x1(x, "attention.query", channels / 8);
    let k = g.conv1x1(x, "attention.key", channels / 8);
    let v = g.conv1x1(x, "attention.value", channels);
    let attended = g.attention(q, k, v, 1);
    g.gate(attended, x, "attention.gamma")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::params::AttentionParams;

    #[test]
    fn sizes_are_those_of_the_pytorch_reference() {
        let count = |kind| {
            let params = ModelParams { base_channels: 32, attention: AttentionParams { kind } };
            let graph = unet(&params, 32);
            (graph.parameter_count(), graph.forward_flops() as f64 / 1e6)
        };
        let (none, seed) = (count(AttentionKind::None), count(AttentionKind::Seed));
        assert_eq!((none.0, seed.0), (473_027, 493_668));
        assert!((none.1 - 200.9).abs() < 0.2 && (seed.1 - 204.7).abs() < 0.2, "{} {}", none.1, seed.1);
    }

    #[test]
    fn groups_divide_the_channels() {
        assert_eq!([2, 3, 8, 10, 12, 14, 48].map(groups), [2, 3, 8, 5, 6, 7, 8]);
    }
}
