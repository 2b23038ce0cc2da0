//! Tests of single operations.

use super::*;

#[test]
fn convolutions_match_the_reference() {
    for (channels, outputs) in [(8, 12), (12, 24), (24, 8), (3, 5), (17, 40)] {
        check_op(channels, |g, x, _| {
            g.conv3x3(x, "conv", outputs);
        });
    }
    let (mut graph, x, _) = Graph::new(Shape::new(12, 20, 6));
    let x = graph.conv3x3(x, "a", 48);
    graph.conv3x3(x, "b", 32);
    check(&graph, 5);
    // Register tiles of four panels, of two, of one, and of part of one.
    for outputs in [72, 112, 124] {
        let (mut graph, x, _) = Graph::new(Shape::new(6, 10, 6));
        let x = graph.conv3x3(x, "a", outputs);
        graph.conv1x1(x, "b", outputs);
        check(&graph, 3);
    }
}

#[test]
fn linear_layers_and_vector_additions_match_the_reference() {
    for channels in [8, 12, 24] {
        check_op(channels, |g, x, _| {
            g.conv1x1(x, "linear", 3 + channels);
        });
        check_op(channels, |g, x, t| {
            let v = g.linear(t, "a", 5);
            let v = g.silu(v);
            let v = g.linear(v, "b", channels);
            let y = g.add_vector(x, v);
            let z = g.add_vector(x, v);
            let z = g.conv3x3(z, "c", channels);
            g.concat(y, z);
        });
    }
}

#[test]
fn transposed_convolutions_match_the_reference() {
    for channels in [8, 12, 24] {
        check_op(channels, |g, x, _| {
            g.up_conv2x2(x, "up", channels / 2 + 1);
        });
    }
}

#[test]
fn normalisations_and_activations_match_the_reference() {
    for (channels, groups) in [(8, 8), (12, 4), (24, 1), (24, 8)] {
        check_op(channels, |g, x, _| {
            let x = g.group_norm(x, "norm", groups);
            g.silu(x);
        });
        check_op(channels, |g, x, _| {
            let y = g.group_norm(x, "norm", groups);
            let z = g.silu(y);
            let z = g.concat(z, x);
            g.concat(y, z);
        });
        check_op(channels, |g, x, _| {
            let x = g.silu(x);
            g.group_norm(x, "norm", groups);
        });
    }
}

#[test]
fn pooling_and_concatenation_match_the_reference() {
    for channels in [8, 12, 24] {
        check_op(channels, |g, x, _| {
            let pooled = g.max_pool2x2(x);
            let up = g.up_conv2x2(pooled, "up", 4);
            let both = g.concat(up, x);
            let y = g.conv3x3(both, "conv", 8);
            let again = g.concat(both, y);
            // Reads `x` after the concatenation.
            let z = g.silu(x);
            g.concat(again, z);
        });
        let (mut graph, x, _) = Graph::new(Shape::new(6, 6, channels));
        let y = graph.conv3x3(x, "conv", 4);
        let y = graph.concat(x, y);
        graph.max_pool2x2(y);
        check(&graph, 2);
    }
}

#[test]
fn gated_attention_matches_the_reference() {
    for (channels, heads) in [(8, 1), (12, 3), (24, 4)] {
        check_op(channels, |g, x, _| {
            let q = g.conv1x1(x, "query", channels / 2 * heads);
            let k = g.conv1x1(x, "key", channels / 2 * heads);
            let v = g.conv1x1(x, "value", channels);
            let y = g.attention(q, k, v, heads);
            g.gate(y, x, "gamma");
        });
        check_op(channels, |g, x, _| {
            let small = g.max_pool2x2(x);
            let values = g.silu(small);
            let y = g.attention(x, small, values, heads);
            g.gate(y, x, "gamma");
        });
    }
}

/// Covers more queries and keys than fit into one tile, with a partial last tile; queries that another operation reads;
/// and a sum that must not overwrite the output of attention.
#[test]
fn attention_on_larger_images_matches_the_reference() {
    for heads in [1, 2] {
        let (mut graph, x, _) = Graph::new(Shape::new(12, 14, 6));
        let q = graph.conv1x1(x, "query", 4);
        let k = graph.conv1x1(x, "key", 4);
        let v = graph.conv1x1(x, "value", 10);
        graph.attention(q, k, v, heads);
        check(&graph, 2);

        let (mut graph, x, _) = Graph::new(Shape::new(10, 14, 6));
        let x = graph.conv1x1(x, "first", 12);
        let k = graph.conv1x1(x, "key", 12);
        let v = graph.conv1x1(x, "value", 12);
        let y = graph.attention(x, k, v, heads);
        let y = graph.add(y, x);
        let small = graph.max_pool2x2(y);
        let v = graph.conv1x1(small, "small", 6);
        graph.attention(y, small, v, heads);
        check(&graph, 2);
    }
}

#[test]
fn linear_attention_matches_the_reference() {
    for (channels, heads) in [(8, 1), (12, 3), (24, 4), (40, 2)] {
        check_op(channels, |g, x, _| {
            let q = g.conv1x1(x, "query", 5 * heads);
            let k = g.conv1x1(x, "key", 5 * heads);
            let v = g.conv1x1(x, "value", channels);
            let y = g.linear_attention(q, k, v, heads);
            g.gate(y, x, "gamma");
        });
        check_op(channels, |g, x, _| {
            let small = g.max_pool2x2(x);
            let values = g.silu(small);
            let y = g.linear_attention(x, small, values, heads);
            g.gate(y, x, "gamma");
        });
    }
}

#[test]
fn film_normalisations_match_the_reference() {
    for (channels, groups) in [(8, 8), (12, 4), (24, 1), (24, 8)] {
        check_op(channels, |g, x, t| {
            let v = g.linear(t, "film", 2 * channels);
            let y = g.film_norm(x, v, "norm", groups);
            g.silu(y);
        });
        // One FiLM vector for two normalisations, and an input that another operation reads.
        check_op(channels, |g, x, t| {
            let v = g.linear(t, "film", 2 * channels);
            let y = g.film_norm(x, v, "a", groups);
            let z = g.silu(y);
            let z = g.conv3x3(z, "conv", channels);
            let z = g.film_norm(z, v, "b", groups);
            let z = g.silu(z);
            g.concat(z, x);
        });
    }
}

#[test]
fn sums_and_means_match_the_reference() {
    for channels in [8, 12, 24] {
        check_op(channels, |g, x, _| {
            let a = g.silu(x);
            let a = g.conv3x3(a, "a", channels);
            let y = g.add(a, x);
            let b = g.conv1x1(y, "b", channels);
            // Operands that other operations read, and a sum of sums.
            let z = g.add(y, b);
            let z = g.add(z, b);
            g.concat(z, y);
        });
        check_op(channels, |g, x, _| {
            let small = g.mean_pool(x, 2);
            let part = g.mean_pool_of(x, 3..7, 2);
            let both = g.concat(small, part);
            let up = g.up_conv2x2(both, "up", 4);
            g.concat(up, x);
        });
        check_op(channels, |g, x, _| {
            g.mean_pool_of(x, 1..channels - 2, 2);
        });
    }
    let (mut graph, x, _) = Graph::new(Shape::new(12, 12, 6));
    let tokens = graph.mean_pool_of(x, 3..6, 4);
    let x = graph.conv1x1(tokens, "a", 20);
    let mean = graph.mean_pool(x, 3);
    let v = graph.linear(mean, "b", 20);
    graph.add_vector(x, v);
    check(&graph, 3);
}

#[test]
fn time_and_position_encodings_match_the_reference() {
    for channels in [8, 10, 12, 24, 34] {
        check_op(channels, |g, x, t| {
            let wave = g.time_encoding(t, channels);
            let v = g.linear(wave, "v", channels);
            let x = g.add_vector(x, v);
            let encoding = g.position_encoding(g.shape(x), 4);
            let y = g.conv1x1(encoding, "encoding", channels);
            let z = g.add(y, x);
            g.add(z, encoding);
        });
    }
}
