//! The `degrade` stage: creates the low-resolution version of every image of a dataset.

use anyhow::Context as _;

use super::{Context, Interrupted, Outcome};
use crate::config::DegradeParams;
use crate::config::blobs;
use crate::data::images::{Images, lr_metadata};
use crate::data::resample;

/// The high-resolution blob of each split and the low-resolution blob computed from it.
const SPLITS: [(&str, &str); 3] = [
    (blobs::TRAIN_HR, blobs::TRAIN_LR),
    (blobs::VALIDATION_HR, blobs::VALIDATION_LR),
    (blobs::TEST_HR, blobs::TEST_LR),
];

/// Passes on the `*_hr` blobs of role `input` by digest and adds the `*_lr` blobs, with scale and method in their
/// headers.
pub(super) fn run(params: &DegradeParams, ctx: &Context) -> anyhow::Result<Outcome> {
    let input = ctx.inputs.get("input").context("the stage was given no artifact as `input`")?;
    let mut outcome = Outcome::default();
    let metadata = lr_metadata(params.scale, params.degradation());
    for (hr, lr) in SPLITS {
        if (ctx.interrupted)() {
            return Err(Interrupted.into());
        }
        let digest = input.get(hr).with_context(|| format!("stage `{}` has no output {hr}", params.input))?;
        let doing = || format!("reading {hr} of stage `{}`", params.input);
        let (images, _) = Images::from_safetensors(&ctx.store.read(digest).with_context(doing)?).with_context(doing)?;
        let small = resample::degrade(&images, params.scale, params.degradation())
            .with_context(|| format!("degrading {hr}"))?;
        outcome.outputs.insert(hr.to_string(), digest.clone());
        outcome.outputs.insert(lr.to_string(), ctx.store.put(&small.to_safetensors(&metadata))?);
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DegradeMethod;
    use crate::data::Metadata;
    use crate::data::images::{lr_degradation, lr_scale};
    use crate::stages::testing::Bench;
    use crate::store::Artifact;

    fn params(scale: usize) -> DegradeParams {
        DegradeParams { input: "data".to_string(), scale, method: DegradeMethod::Area, sigma: None }
    }

    fn bench() -> Bench {
        let mut bench = Bench::new();
        let mut artifact = Artifact::new();
        for (i, (hr, _)) in SPLITS.iter().enumerate() {
            let pixels = (0..(i + 1) * 192).map(|p| (p * 7 % 256) as u8).collect();
            let bytes = Images::new(i + 1, 8, 8, pixels).to_safetensors(&Metadata::new());
            artifact.insert(hr.to_string(), bench.store.put(&bytes).unwrap());
        }
        bench.inputs.insert("input".to_string(), artifact);
        bench
    }

    #[test]
    fn the_outputs_are_the_input_images_and_their_low_resolution_images() {
        let bench = bench();
        let outcome = run(&params(4), &bench.context(&|| false)).unwrap();
        assert_eq!(outcome.outputs.len(), 6);
        for (hr, lr) in SPLITS {
            assert_eq!(outcome.outputs[hr], bench.inputs["input"][hr]);
            let (large, _) = bench.images(&outcome, hr);
            let (small, metadata) = bench.images(&outcome, lr);
            assert_eq!(small, resample::degrade(&large, 4, DegradeMethod::Area).unwrap());
            assert_eq!(
                (lr_scale(&metadata).unwrap(), lr_degradation(&metadata).unwrap()),
                (4, DegradeMethod::Area.into())
            );
        }
    }

    #[test]
    fn invalid_scales_and_missing_inputs_are_errors() {
        let mut bench = bench();
        let error = format!("{:#}", run(&params(3), &bench.context(&|| false)).unwrap_err());
        assert!(error.contains("train_hr.safetensors") && error.contains("divides both sides"), "{error}");
        assert!(run(&params(4), &bench.context(&|| true)).unwrap_err().is::<Interrupted>());
        bench.inputs.get_mut("input").unwrap().remove(blobs::TEST_HR);
        let error = run(&params(4), &bench.context(&|| false)).unwrap_err().to_string();
        assert_eq!(error, "stage `data` has no output test_hr.safetensors");
    }
}
