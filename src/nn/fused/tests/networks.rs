//! Tests of whole networks: the tutorial's U-Net and its training steps.

use super::*;

/// Appends two 3×3 convolutions, each followed by normalisation and activation.
fn block(g: &mut Graph, x: NodeId, name: &str, outputs: usize) -> NodeId {
    let mut y = x;
    for i in [0, 3] {
        y = g.conv3x3(y, &format!("{name}.{i}"), outputs);
        let groups = (1..=8).rev().find(|n| outputs.is_multiple_of(*n)).unwrap();
        y = g.group_norm(y, &format!("{name}.{}", i + 1), groups);
        y = g.silu(y);
    }
    y
}

/// Builds the tutorial's U-Net, with or without attention in its bottleneck.
fn unet(size: usize, base: usize, attention: bool) -> Graph {
    let (mut graph, x, t) = Graph::new(Shape::new(size, size, 6));
    let g = &mut graph;
    let e1 = block(g, x, "enc1", base);
    let pooled = g.max_pool2x2(e1);
    let e2 = block(g, pooled, "enc2", 2 * base);
    let pooled = g.max_pool2x2(e2);
    let z = block(g, pooled, "bottleneck", 4 * base);
    let v = g.linear(t, "time_embed.0", base);
    let v = g.silu(v);
    let v = g.linear(v, "time_embed.2", 4 * base);
    let mut z = g.add_vector(z, v);
    if attention {
        let q = g.conv1x1(z, "attention.query", base / 2);
        let k = g.conv1x1(z, "attention.key", base / 2);
        let v = g.conv1x1(z, "attention.value", 4 * base);
        let y = g.attention(q, k, v, 1);
        (z, _) = g.gate(y, z, "attention.gamma");
    }
    let up = g.up_conv2x2(z, "upconv2", 2 * base);
    let d2 = g.concat(up, e2);
    let d2 = block(g, d2, "dec2", 2 * base);
    let up = g.up_conv2x2(d2, "upconv1", base);
    let d1 = g.concat(up, e1);
    let d1 = block(g, d1, "dec1", base);
    g.conv1x1(d1, "out", 3);
    graph
}

#[test]
fn the_tutorial_unet_matches_the_reference() {
    check(&unet(32, 8, true), 2);
    check(&unet(8, 16, false), 9);
    // Channel counts that are not multiples of the vector width.
    check(&unet(12, 6, true), 3);
    check(&unet(8, 10, true), 1);
}

/// Returns the network's state after three training steps.
fn trained(graph: &Graph, data: &Data, clip: Option<f64>, mut network: Box<dyn Network>) -> TrainState {
    for step in 0..3 {
        let settings = StepSettings {
            lr: 1e-3 * (step + 1) as f64,
            clip,
            weight_decay: 0.3,
            ema_decay: 0.9,
            ..Default::default()
        };
        network.train_step(data.batch(), 1, &settings).unwrap();
    }
    assert_eq!(graph.params.len(), network.state().weights.len());
    network.state()
}

#[test]
fn optimiser_steps_match_the_reference() {
    // With at least two channels per group: a bias before the normalisation of a single channel has a gradient of zero,
    // and Adam would amplify its rounding errors to full steps.
    let graph = unet(8, 16, true);
    let data = Data::new(&graph, 4);
    for clip in [None, Some(0.1)] {
        let reference =
            create_network_on(ComposedBackend::new(graph.clone(), Cpu::default()).unwrap(), &state(&graph)).unwrap();
        let reference = trained(&graph, &data, clip, reference);
        let ours = trained(&graph, &data, clip, fused(&graph, Isa::best()));
        for (a, b) in [(&ours.weights, &reference.weights), (&ours.ema, &reference.ema)] {
            for (a, b) in a.iter().zip(b) {
                assert!(distance(a, b) < 1e-3, "{}", distance(a, b));
            }
        }
        assert_eq!(ours.step, 3);
    }
}

/// Creates the network on both backends, with the same state.
fn both(graph: &Graph) -> [Box<dyn Network>; 2] {
    let reference =
        create_network_on(ComposedBackend::new(graph.clone(), Cpu::default()).unwrap(), &state(graph)).unwrap();
    [reference, fused(graph, Isa::best())]
}

/// Loshchilov and Hutter 2019, algorithm 2: w − lr · (Adam's step) − lr · λ · w, with the decay decoupled from the
/// gradient.
#[test]
fn weight_decay_shrinks_every_weight() {
    let graph = unet(8, 16, true);
    let data = Data::new(&graph, 4);
    let start = state(&graph).weights;
    let stepped = |weight_decay: f64| {
        both(&graph).map(|mut network| {
            network.train_step(data.batch(), 1, &StepSettings { weight_decay, ..Default::default() }).unwrap();
            network.state().weights
        })
    };
    for (plain, decayed) in stepped(0.0).iter().zip(stepped(30.0)) {
        for ((plain, decayed), start) in
            plain.iter().flatten().zip(decayed.iter().flatten()).zip(start.iter().flatten())
        {
            let expected = plain - 1e-3 * 30.0 * start;
            assert!((decayed - expected).abs() < 1e-6, "{decayed} {expected}");
        }
    }
}

#[test]
fn a_step_in_micro_batches_equals_a_step_with_the_whole_batch() {
    let graph = unet(8, 16, true);
    let data = Data::new(&graph, 4);
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let stepped = |micro_batches: usize| {
        both(&graph).map(|mut network| {
            let report = network.train_step(data.batch(), micro_batches, &StepSettings::default()).unwrap();
            (report, network.state().first_moment)
        })
    };
    let whole = stepped(1);
    for micro_batches in [2, 4] {
        for ((report, moments), (whole_report, expected)) in stepped(micro_batches).iter().zip(&whole) {
            assert!((report.loss / whole_report.loss - 1.0).abs() < 1e-5, "{report:?} {whole_report:?}");
            assert!(
                (report.gradient_norm / whole_report.gradient_norm - 1.0).abs() < 1e-4,
                "{report:?} {whole_report:?}"
            );
            for (moments, expected) in moments.iter().zip(expected) {
                let gap = norm(&mut moments.iter().zip(expected).map(|(a, b)| a - b));
                assert!(
                    gap <= 1e-3 * norm(&mut expected.iter().copied()) + 1e-7,
                    "{micro_batches} micro-batches: {gap}"
                );
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads_or_the_instruction_set() {
    let graph = unet(16, 16, true);
    let data = Data::new(&graph, 11);
    let with = |threads: usize, isa: Isa| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let run = || {
            let y = fused(&graph, isa).predict(Weights::Raw, &data.x, &data.t).unwrap();
            (y, trained(&graph, &data, Some(1.0), fused(&graph, isa)))
        };
        let result = std::sync::Mutex::new(None);
        pool.in_place_scope(|scope| scope.spawn(|_| *result.lock().unwrap() = Some(run())));
        result.into_inner().unwrap().unwrap()
    };
    let one = with(1, Isa::best());
    assert_eq!(one, with(2, Isa::best()));
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        assert_eq!(one, with(3, isa), "{}", isa.name());
    }
}
