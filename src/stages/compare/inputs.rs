//! Reads the artifacts of the arms and checks that they are comparable.

use anyhow::{Context as _, bail, ensure};
use indexmap::IndexMap;

use super::Context;
use crate::comparison::{BICUBIC, Curve, LossRow, Measured, read_loss};
use crate::config;
use crate::config::blobs;
use crate::config::{ArmRun, CompareParams, Degradation, DiffusionParams};
use crate::data::images::{lr_degradation, lr_scale};
use crate::data::samples::samples_diffusion;
use crate::data::{Images, Samples};
use crate::store::{Artifact, Digest, Store};

/// One run of an arm.
pub struct Arm<'a> {
    pub(super) name: &'a str,
    pub(super) params: &'a config::Arm,
    pub(super) run: &'a ArmRun,
    /// Whether this seed's images and curves are plotted.
    pub(super) is_first: bool,
    artifact: &'a Artifact,
}

impl Arm<'_> {
    pub(super) fn digest_of(&self, blob: &str) -> Option<Digest> {
        self.artifact.get(blob).cloned()
    }

    fn digest(&self, blob: &str) -> anyhow::Result<&Digest> {
        self.artifact.get(blob).with_context(|| format!("{self} has no {blob}"))
    }

    fn read(&self, blob: &str, store: &Store) -> anyhow::Result<Vec<u8>> {
        store.read(self.digest(blob)?).with_context(|| format!("reading {blob} of {self}"))
    }
}

/// Returns the arms in name order, each with its seeds. Fails if there are none.
pub(super) fn arms<'a>(params: &'a CompareParams, ctx: &'a Context) -> anyhow::Result<Vec<Arm<'a>>> {
    ensure!(!params.arms.is_empty(), "nothing to compare: name a sample stage under `arms`");
    ensure!(
        !params.arms.contains_key(BICUBIC),
        "an arm is named `{BICUBIC}`, which is reserved for bicubic enlargement; give it another name"
    );
    let mut arms = vec![];
    for (name, params) in &params.arms {
        for (index, run) in params.runs.iter().enumerate() {
            let (role, stage) = (run.role(name), &run.stage);
            let artifact =
                ctx.inputs.get(&role).with_context(|| format!("input `{role}` (stage `{stage}`) is missing"))?;
            arms.push(Arm { name, params, run, is_first: index == 0, artifact });
        }
    }
    Ok(arms)
}

/// The images, which are the same for all arms.
pub(super) struct Pairs {
    pub(super) hr: Images,
    pub(super) lr: Images,
    /// The factor by which `lr` is smaller, and the method of degradation.
    pub(super) scale: usize,
    pub(super) degradation: Degradation,
}

impl Pairs {
    /// Reads the first `count` pairs. Fails if there are fewer, or if the arms' pairs differ.
    pub fn read(arms: &[Arm], count: usize, store: &Store) -> anyhow::Result<Self> {
        let first = &arms[0];
        let split = first.run.split;
        let blobs @ [hr_blob, lr_blob] = split.blobs();
        for arm in &arms[1..] {
            ensure!(
                arm.run.split == first.run.split,
                "{first} has {} images and {arm} has {} images; give both sample stages the same `split`",
                first.run.split,
                arm.run.split
            );
            for blob in blobs {
                ensure!(
                    arm.digest(blob)? == first.digest(blob)?,
                    "{first} and {arm} were sampled from different {split} images: their {blob} differ; \
                     give both sample stages the same `data`"
                );
            }
        }
        let read = |blob| {
            let bytes = first.read(blob, store)?;
            Images::from_safetensors(&bytes).with_context(|| format!("{blob} of {first}"))
        };
        let ((hr, _), (lr, metadata)) = (read(hr_blob)?, read(lr_blob)?);
        let of_lr = || format!("{lr_blob} of {first}");
        let (scale, degradation) =
            (lr_scale(&metadata).with_context(of_lr)?, lr_degradation(&metadata).with_context(of_lr)?);
        ensure!(count > 0, "{first} has no {split} images; nothing can be compared");
        ensure!(
            count <= hr.count && count <= lr.count,
            "{first} has samples of {count} images, but there are {} {split} images",
            hr.count.min(lr.count)
        );
        if (lr.height * scale, lr.width * scale) != (hr.height, hr.width) {
            bail!(
                "{split} images of {}×{} are not {scale} times as large as their low-resolution ones of {}×{}",
                hr.width,
                hr.height,
                lr.width,
                lr.height
            );
        }
        Ok(Self { hr: hr.slice(0..count), lr: lr.slice(0..count), scale, degradation })
    }
}

/// Reads the samples and, if stored with them, the diffusion parameters of their model.
pub(super) fn read_samples(arm: &Arm, store: &Store) -> anyhow::Result<(Samples, Option<DiffusionParams>)> {
    let bytes = arm.read(blobs::SAMPLES, store)?;
    let of_arm = || format!("{} of {arm}", blobs::SAMPLES);
    let (samples, metadata) = Samples::from_safetensors(&bytes).with_context(of_arm)?;
    Ok((samples, samples_diffusion(&metadata).with_context(of_arm)?))
}

/// Fails if `arm` and the first arm, with `first_count` images, have different numbers of images.
pub(super) fn same_count(first: &Arm, first_count: usize, arm: &Arm, count: usize) -> anyhow::Result<()> {
    ensure!(
        count == first_count,
        "{first} has {first_count} images, {arm} has {count}; give their sample stages the same `limit`"
    );
    Ok(())
}

/// Reads the losses of the arm's training run; empty if it has none, because a command in place of a sample stage need not
/// have a training run.
pub(super) fn read_losses(arm: &Arm, store: &Store) -> anyhow::Result<Vec<LossRow>> {
    if !arm.artifact.contains_key(blobs::LOSS) {
        return Ok(vec![]);
    }
    let csv = arm.read(blobs::LOSS, store)?;
    read_loss(&csv).with_context(|| format!("{} of {arm}", blobs::LOSS))
}

/// Returns a curve for each training run of the arms' first seeds; arms that sample the same model share a curve.
/// `measured` has the order of the arms.
pub(super) fn curves(arms: &[Arm], measured: &[Measured]) -> Vec<Curve> {
    let mut trainings: IndexMap<&Digest, Curve> = IndexMap::new();
    for (arm, measured) in arms.iter().zip(measured).filter(|(arm, _)| arm.is_first) {
        let Some(digest) = arm.artifact.get(blobs::LOSS) else { continue };
        let diffusion = measured.diffusion.clone();
        let curve = || Curve { name: String::new(), rows: measured.losses.clone(), diffusion };
        let curve = trainings.entry(digest).or_insert_with(curve);
        if !curve.name.is_empty() {
            curve.name.push_str(", ");
        }
        curve.name.push_str(arm.name);
    }
    trainings.into_values().collect()
}
