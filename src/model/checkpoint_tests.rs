//! Tests of writing checkpoints, and of reading valid, damaged and forged ones.

use super::*;
use crate::config::{AttentionKind, AttentionParams};

fn checkpoint(kind: AttentionKind) -> Checkpoint {
    let attention = AttentionParams { kind, resolutions: vec![4], ..Default::default() };
    let model = ModelParams { base_channels: 4, channel_mults: vec![1, 2], attention, ..Default::default() };
    let diffusion = DiffusionParams { residual_scale: Some(2.5), ..Default::default() };
    let graph = crate::model::unet(&model, 8, 4);
    let weights = graph.params.iter().map(|p| (0..p.layout.len()).map(|i| i as f32 / 64.0 - 0.5).collect()).collect();
    let config = Config { model, diffusion, image_size: 8, scale: 4, cost: ModelCost::of(&graph), steps: 3 };
    Checkpoint { config, weights }
}

/// Returns the file with an edited header, and its length updated.
fn with_header(bytes: &[u8], edit: impl FnOnce(&mut String)) -> Vec<u8> {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = String::from_utf8(bytes[8..8 + len].to_vec()).unwrap();
    edit(&mut header);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + len..]].concat()
}

#[test]
fn a_checkpoint_round_trips_through_bytes_and_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for kind in [AttentionKind::None, AttentionKind::Mhsa] {
        let checkpoint = checkpoint(kind);
        let bytes = checkpoint.to_bytes().unwrap();
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), checkpoint);
    }
}

#[test]
fn non_finite_weights_are_refused_with_the_name_of_their_tensor() {
    let good = checkpoint(AttentionKind::None);
    let name = good.graph().params[2].name.clone();
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut diverged = good.clone();
        diverged.weights[2][1] = wrong;
        let error = diverged.to_bytes().unwrap_err().to_string();
        assert!(error.contains(&format!("{name} has {wrong} at index 1")), "{error}");
        // `to_bytes` refuses this weight, so write it into the bytes of a valid file.
        let mut bytes = good.to_bytes().unwrap();
        let (old, new) = (good.weights[2][1].to_le_bytes(), wrong.to_le_bytes());
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let data = file.tensor(&name).unwrap().data();
        let at = data.as_ptr() as usize - bytes.as_ptr() as usize + 4;
        assert_eq!(bytes[at..at + 4], old);
        bytes[at..at + 4].copy_from_slice(&new);
        let error = Checkpoint::from_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("{name} has {wrong} at index 1")), "{error}");
    }
}

#[test]
fn invalid_configurations_are_refused() {
    let bytes = checkpoint(AttentionKind::Mhsa).to_bytes().unwrap();
    for (from, to, expected) in [
        (r#"\"scale\":4"#, r#"\"scale\":0"#, "the scale must be"),
        (r#"\"image_size\":8"#, r#"\"image_size\":31"#, "the scale must be"),
        (r#"\"image_size\":8"#, r#"\"image_size\":4294967296"#, "the image size must be"),
        (r#"\"timesteps\":1000"#, r#"\"timesteps\":9e99"#, "can't be read"),
        (r#"\"timesteps\":1000"#, r#"\"timesteps\":999999999999"#, "`diffusion.timesteps`"),
        (r#"\"residual_scale\":2.5"#, r#"\"residual_scale\":-2.5"#, "`diffusion.residual_scale`"),
        (r#"\"residual_scale\":2.5"#, r#"\"residual_scale\":null"#, "residual_scale` is missing"),
        (r#"\"channel_mults\":[1,2]"#, r#"\"channel_mults\":[]"#, "`model.channel_mults`"),
        (r#"\"heads\":4"#, r#"\"heads\":3"#, "heads"),
        (r#"\"heads\":4"#, r#"\"heads\":0"#, "`model.attention.heads`"),
        (r#"\"resolutions\":[4]"#, r#"\"resolutions\":[5]"#, "no feature map of the U-Net is 5×5"),
        (r#"\"base_channels\":4"#, r#"\"base_channels\":1024"#, "is inconsistent"),
        (r#"\"steps\":3"#, r#"\"steps\":-3"#, "can't be read"),
        ("\"F32\"", "\"F16\"", "not a valid safetensors file"),
        ("\"__metadata__\"", "\"__metadatb__\"", "contains no configuration"),
    ] {
        let wrong = with_header(&bytes, |header| {
            assert!(header.contains(from), "{from} in {header}");
            *header = header.replacen(from, to, 1);
        });
        let error = format!("{:#}", Checkpoint::from_bytes(&wrong).unwrap_err());
        assert!(error.contains(expected), "{to}: {error}");
    }
}

/// Tests a file whose header declares a network of several gigabytes, with a parameter count to match.
#[test]
fn the_declared_network_must_have_the_parameters_of_the_file() {
    let small = checkpoint(AttentionKind::None);
    let graph = |base_channels| {
        let model = ModelParams { base_channels, ..small.config.model.clone() };
        crate::model::unet(&model, 8, 4).parameter_count()
    };
    let (few, many) = (graph(4), graph(1024));
    let forged = with_header(&small.to_bytes().unwrap(), |header| {
        *header = header.replace(r#"\"base_channels\":4"#, r#"\"base_channels\":1024"#);
        *header = header.replace(&format!(r#"\"parameters\":{few}"#), &format!(r#"\"parameters\":{many}"#));
    });
    let error = format!("{:#}", Checkpoint::from_bytes(&forged).unwrap_err());
    assert!(
        error.contains(&format!("with {many} parameters ({} bytes), but contains {} bytes", 4 * many, 4 * few)),
        "{error}"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, forged).unwrap();
    assert!(format!("{:#}", Checkpoint::read(&path).unwrap_err()).contains("but contains"));
    // Wrong header lengths.
    for claimed in [0, 1, 1 << 20, 1 << 40, u64::MAX] {
        let mut bytes = small.to_bytes().unwrap();
        bytes[..8].copy_from_slice(&u64::to_le_bytes(claimed));
        assert!(Checkpoint::from_bytes(&bytes).is_err());
        std::fs::write(&path, &bytes).unwrap();
        assert!(Checkpoint::read(&path).is_err());
    }
    assert!(Checkpoint::from_bytes(b"").is_err() && Checkpoint::from_bytes(&[0; 7]).is_err());
}
