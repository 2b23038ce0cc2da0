//! The U-Net: levels of halved resolution, blocks of convolutions, a time embedding, and attention at the requested
//! resolutions.
//!
//! With plain blocks and the tutorial's time embedding, it is the tutorial's network with its mistakes corrected, and
//! its parameters have the names of the PyTorch reference. `attention` contains the attention layers.

use super::attention::{LayerSite, add_attention};
use super::norm::groups;
use crate::config::{Block, ModelParams, TimeEmbedding};
use crate::nn::Graph;
use crate::nn::graph::{NodeId, Shape};

/// The number of input channels: three of the noisy image, then three of the enlarged low-resolution image.
const INPUT_CHANNELS: usize = 6;

/// Builds the U-Net for square images of `size` pixels that are `scale` times larger than their low-resolution images.
/// It maps `(size, size, 6)` and a time to `(size, size, 3)`. `size` must be divisible by 2 once per level after the
/// first.
pub fn unet(params: &ModelParams, size: usize, scale: usize) -> Graph {
    let (graph, image, t) = Graph::new(Shape::new(size, size, INPUT_CHANNELS));
    let mut net = Builder { graph, params, image, scale, film: None };
    if params.time_embedding == TimeEmbedding::Sinusoidal {
        net.film = Some(net.sinusoidal_embedding(t));
    }
    let deepest = params.channel_mults.len() - 1;
    let mut x = image;
    if params.block == Block::Residual {
        x = net.graph.conv3x3(x, "stem", net.channels(0));
    }
    let mut skips = vec![];
    for level in 0..deepest {
        let name = format!("enc{}", level + 1);
        x = net.blocks(x, &name, level);
        x = net.add_attention(x, &format!("{name}_attention"));
        skips.push(x);
        x = match params.block {
            Block::Plain => net.graph.max_pool2x2(x),
            Block::Residual => net.graph.mean_pool(x, 2),
        };
    }
    x = net.blocks(x, "bottleneck", deepest);
    if params.time_embedding == TimeEmbedding::BottleneckMlp {
        x = net.add_time(x, t);
    }
    x = net.add_attention(x, "attention");
    for (level, skip) in skips.into_iter().enumerate().rev() {
        let (number, outputs) = (level + 1, net.channels(level));
        x = net.graph.up_conv2x2(x, &format!("upconv{number}"), outputs);
        x = net.graph.concat(x, skip);
        x = net.blocks(x, &format!("dec{number}"), level);
        x = net.add_attention(x, &format!("dec{number}_attention"));
    }
    let g = &mut net.graph;
    if params.block == Block::Residual {
        x = g.group_norm(x, "out_norm", groups(g.shape(x).channels));
        x = g.silu(x);
    }
    if params.zero_output {
        g.zero_conv1x1(x, "out", 3)
    } else {
        g.conv1x1(x, "out", 3)
    };
    net.graph
}

struct Builder<'a> {
    graph: Graph,
    params: &'a ModelParams,
    image: NodeId,
    scale: usize,
    /// The time embedding from which every block computes its scales and shifts.
    film: Option<NodeId>,
}

impl Builder<'_> {
    fn channels(&self, level: usize) -> usize {
        self.params.base_channels * self.params.channel_mults[level]
    }

    /// Appends a sinusoidal time embedding followed by two linear layers.
    fn sinusoidal_embedding(&mut self, t: NodeId) -> NodeId {
        let (g, base) = (&mut self.graph, self.params.base_channels);
        let waves = g.time_encoding(t, base.next_multiple_of(2));
        let hidden = g.linear(waves, "time_embed.0", 4 * base);
        let hidden = g.silu(hidden);
        let embedding = g.linear(hidden, "time_embed.2", 4 * base);
        g.silu(embedding)
    }

    /// Adds the tutorial's time embedding to `x`: two linear layers on the time itself.
    fn add_time(&mut self, x: NodeId, t: NodeId) -> NodeId {
        let (g, base) = (&mut self.graph, self.params.base_channels);
        let hidden = g.linear(t, "time_embed.0", base);
        let hidden = g.silu(hidden);
        let embedding = g.linear(hidden, "time_embed.2", g.shape(x).channels);
        g.add_vector(x, embedding)
    }

    /// Appends the blocks of one level, named `name`, `name_2`, `name_3` and so on.
    fn blocks(&mut self, x: NodeId, name: &str, level: usize) -> NodeId {
        let outputs = self.channels(level);
        (0..self.params.blocks_per_level).fold(x, |x, i| {
            let name = if i == 0 { name.to_string() } else { format!("{name}_{}", i + 1) };
            match self.params.block {
                Block::Plain => self.plain_block(x, &name, outputs),
                Block::Residual => self.residual_block(x, &name, outputs),
            }
        })
    }

    /// Appends a plain block: 3×3 convolution, group normalisation and SiLU, twice.
    fn plain_block(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let x = self.graph.conv3x3(x, &format!("{name}.0"), outputs);
        let x = self.graph.group_norm(x, &format!("{name}.1"), groups(outputs));
        let x = self.graph.silu(x);
        let x = self.graph.conv3x3(x, &format!("{name}.3"), outputs);
        let x = self.conditioned_norm(x, &format!("{name}.4"), &format!("{name}.film"));
        self.graph.silu(x)
    }

    /// Appends a residual block: group normalisation, SiLU and 3×3 convolution, twice; then the sum with the block's
    /// input.
    fn residual_block(&mut self, x: NodeId, name: &str, outputs: usize) -> NodeId {
        let inputs = self.graph.shape(x).channels;
        let y = self.graph.group_norm(x, &format!("{name}.norm1"), groups(inputs));
        let y = self.graph.silu(y);
        let y = self.graph.conv3x3(y, &format!("{name}.conv1"), outputs);
        let y = self.conditioned_norm(y, &format!("{name}.norm2"), &format!("{name}.film"));
        let y = self.graph.silu(y);
        let y = self.graph.conv3x3(y, &format!("{name}.conv2"), outputs);
        let skip = if inputs == outputs { x } else { self.graph.conv1x1(x, &format!("{name}.skip"), outputs) };
        self.graph.add(y, skip)
    }

    /// Appends a normalisation, with FiLM conditioning on the time if the time embedding reaches every block.
    fn conditioned_norm(&mut self, x: NodeId, name: &str, film: &str) -> NodeId {
        let channels = self.graph.shape(x).channels;
        match self.film {
            None => self.graph.group_norm(x, name, groups(channels)),
            Some(time) => {
                let v = self.graph.linear(time, film, 2 * channels);
                self.graph.film_norm(x, v, name, groups(channels))
            }
        }
    }

    /// Appends attention if it was requested at the resolution of `x`.
    fn add_attention(&mut self, x: NodeId, name: &str) -> NodeId {
        let size = self.graph.shape(x).height;
        if !self.params.attention.resolutions.contains(&size) {
            return x;
        }
        let site = LayerSite { image: self.image, scale: self.scale, name };
        add_attention(&mut self.graph, x, &self.params.attention, &site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AttentionKind, AttentionParams};

    #[test]
    fn tutorial_networks_have_the_size_of_the_pytorch_reference() {
        let count = |kind| {
            let graph = unet(&ModelParams::tutorial(32, kind), 32, 4);
            (graph.parameter_count(), graph.forward_flops() as f64 / 1e6, graph.training_flops() as f64 / 1e6)
        };
        let (none, sagan) = (count(AttentionKind::None), count(AttentionKind::Sagan));
        assert_eq!((none.0, sagan.0), (473_027, 493_668));
        assert!((none.1 - 200.9).abs() < 0.2 && (sagan.1 - 204.7).abs() < 0.2, "{} {}", none.1, sagan.1);
        assert!((none.2 - 599.0).abs() < 0.5 && (sagan.2 - 610.0).abs() < 1.0, "{} {}", none.2, sagan.2);
    }

    #[test]
    fn every_kind_of_network_outputs_an_image() {
        for block in [Block::Plain, Block::Residual] {
            for time_embedding in [TimeEmbedding::BottleneckMlp, TimeEmbedding::Sinusoidal] {
                for (channel_mults, blocks_per_level) in [(vec![1], 1), (vec![1, 3], 2), (vec![1, 2, 2, 4], 1)] {
                    let params = ModelParams {
                        base_channels: 4,
                        channel_mults,
                        blocks_per_level,
                        block,
                        time_embedding,
                        zero_output: true,
                        attention: AttentionParams { kind: AttentionKind::Mhsa, ..Default::default() },
                    };
                    let graph = unet(&params, 16, 2);
                    assert_eq!(graph.output_shape(), Shape::new(16, 16, 3));
                    let mut names: Vec<&str> = graph.params.iter().map(|p| p.name.as_str()).collect();
                    names.sort();
                    names.dedup();
                    assert_eq!(names.len(), graph.params.len(), "{params:?}");
                }
            }
        }
    }
}
