//! Parameters of `compare`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::blobs::{COMPARISON, LOSS, LOSS_CURVES, METRICS, SAMPLES, SUMMARY, TEST_HR, TEST_LR};
use super::claims::Claim;
use super::{Input, Kind};

/// Measures every arm against the high-resolution images, beside bicubic enlargement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareParams {
    /// The arms by the name they have in tables and pictures, each a `sample` stage.
    #[serde(deserialize_with = "arms")]
    #[schemars(with = "BTreeMap<String, String>", extend("minProperties" = 1))]
    pub arms: BTreeMap<String, Arm>,
    /// What the comparison is asked, by a name of each claim. All are answered together, in `summary.json`.
    #[serde(default)]
    pub claims: BTreeMap<String, Claim>,
    /// Test images in `comparison.png`, a row each.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 64))]
    pub rows: usize,
}

fn default_rows() -> usize {
    8
}

/// An arm of a comparison: the stage that the file names, or those of its instances that differ in their seeds alone.
/// Which stages they are does not matter to the result, so their names stay out of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in the file, which the arms of a sweep have in common.
    pub of: String,
    /// Where it lies on the axes of the sweep.
    pub axes: Vec<Label>,
    /// At least one; several have different seeds.
    pub runs: Vec<ArmRun>,
}

/// One `sample` stage of an arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRun {
    /// Its value on the axis of seeds, where that was swept; of several such axes, with commas between.
    pub seed: Option<String>,
    #[serde(skip_serializing)]
    pub stage: String,
}

/// A value on an axis of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    pub axis: String,
    pub value: String,
}

impl Arm {
    /// An arm that nothing sweeps.
    pub fn single(name: &str, stage: &str) -> Self {
        let run = ArmRun { seed: None, stage: stage.to_string() };
        Self { of: name.to_string(), axes: vec![], runs: vec![run] }
    }
}

impl ArmRun {
    /// What its samples are to the comparison.
    pub fn role(&self, arm: &str) -> String {
        match &self.seed {
            None => format!("arms.{arm}"),
            Some(seed) => format!("arms.{arm}[seed={seed}]"),
        }
    }
}

/// As the file has them, the name of a stage each, or as [`StageParams::complete`](super::StageParams::complete) writes
/// them.
fn arms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Arm>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Stage(String),
        Arm(Arm),
    }
    let written = BTreeMap::<String, Written>::deserialize(deserializer)?;
    let arm = |(name, written): (String, Written)| {
        let arm = match written {
            Written::Stage(stage) => Arm::single(&name, &stage),
            Written::Arm(arm) => arm,
        };
        (name, arm)
    };
    Ok(written.into_iter().map(arm).collect())
}

impl Kind for CompareParams {
    const VERSION: u32 = 7;
    const OUTPUTS: &'static [&'static str] = &[METRICS, SUMMARY, COMPARISON, LOSS_CURVES];
    const HEADLINES: &'static [&'static str] = &["psnr_mean", "psnr_sample"];

    fn inputs(&self) -> Vec<Input> {
        let runs = self.arms.iter().flat_map(|(name, arm)| arm.runs.iter().map(move |run| (name, run)));
        runs.map(|(name, run)| Input::of(&run.role(name), &run.stage, &[SAMPLES, TEST_HR, TEST_LR, LOSS])).collect()
    }

    fn rename_inputs(&mut self, rename: &mut dyn FnMut(&mut String)) {
        self.arms.values_mut().flat_map(|arm| &mut arm.runs).for_each(|run| rename(&mut run.stage));
    }
}
