//! Parameters of `compare`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::blobs::{COMPARISON, LOSS, LOSS_CURVES, METRICS, SAMPLES, SUMMARY};
use super::claims::Claim;
use super::{EvaluationSplit, Input, Kind};

/// Compares every arm, and bicubic enlargement, with the high-resolution images of the split that the arms sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareParams {
    /// The arms: for each name in tables and pictures, a `sample` stage.
    #[serde(deserialize_with = "arms")]
    #[schemars(with = "BTreeMap<String, String>", extend("minProperties" = 1))]
    pub arms: BTreeMap<String, Arm>,
    /// The claims by name. All claims of the pipeline file are tested together, unless `family` separates them; the
    /// verdicts are in `summary.json`.
    #[serde(default)]
    pub claims: BTreeMap<String, Claim>,
    /// The name of the family of claims that share an error rate. By default, all claims of the file are one family;
    /// give comparisons that answer unrelated questions different names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The planned numbers of seeds and looks. Each claim is tested at the look that matches its own number of seeds.
    /// Without a plan, verdicts are marked as exploratory if the claim was already answered and seeds were added since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<SeedPlan>,
    /// The arm, or `bicubic`, with which all other arms are compared by each metric that ranks arms. Defaults to the
    /// control of the claims, if they all have the same one. The differences are exploratory and give no verdicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// The number of claims of the family in the whole file, set when the file is loaded.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(skip)]
    pub claims_in_family: usize,
    /// Whether the file has claims of other families, set when the file is loaded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(skip)]
    pub has_other_families: bool,
    /// The number of images in `comparison.png`, one per row.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 64))]
    pub rows: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn default_rows() -> usize {
    8
}

/// The plan of a study: its number of seeds, and the looks at which claims are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeedPlan {
    /// The number of seeds of the whole study, at least 6.
    #[schemars(range(min = 6, max = 1000))]
    pub plan: usize,
    /// The number of times that the claims are tested: at evenly spaced numbers of seeds, the last time at all of them.
    /// Each look gets a share of the 5 % error rate.
    #[serde(default = "one_look")]
    #[schemars(range(min = 1, max = 20))]
    pub looks: usize,
}

fn one_look() -> usize {
    1
}

impl CompareParams {
    /// Returns the control of the differences that are tested without a claim.
    pub fn control(&self) -> Option<&str> {
        let mut controls = self.claims.values().map(|claim| claim.control.as_str());
        let first = controls.next();
        self.control.as_deref().or(first.filter(|first| controls.all(|control| control == *first)))
    }
}

/// An arm of a comparison: the stage in the file, or those of its instances that differ only in their seeds. The names of
/// the stages do not change the result, so they are not part of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// The name in the file, common to the arms of a sweep.
    pub of: String,
    /// Its axis values, if it is an instance of a sweep.
    pub axes: Vec<Label>,
    /// At least one; several have different seeds.
    pub runs: Vec<ArmRun>,
}

/// One `sample` stage of an arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRun {
    /// Its seed, if seeds are swept; with several seed axes, their values separated by commas.
    pub seed: Option<String>,
    /// The training runs that its samples depend on, numbered across the arms of the comparison and in ascending order;
    /// set when the file is loaded. Runs that share a training run are not independent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trainings: Vec<usize>,
    /// The split whose images it samples, set when the file is loaded.
    #[serde(default, skip_serializing_if = "EvaluationSplit::is_test")]
    pub split: EvaluationSplit,
    /// Whether its model was selected by the results of the training runs that it depends on; set when the file is
    /// loaded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_selected: bool,
    /// The kind of its validation loss, numbered across the arms of the comparison; set when the file is loaded. `None`
    /// if it is unknown, because a command computes the losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_kind: Option<usize>,
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
    /// Returns an arm that is not swept.
    pub fn single(name: &str, stage: &str) -> Self {
        Self { of: name.to_string(), axes: vec![], runs: vec![ArmRun::new(None, stage)] }
    }
}

impl ArmRun {
    /// Creates a run on the test images, with unknown training runs and losses.
    pub fn new(seed: Option<String>, stage: &str) -> Self {
        let split = EvaluationSplit::Test;
        Self { seed, trainings: vec![], split, is_selected: false, loss_kind: None, stage: stage.to_string() }
    }

    /// Whether the validation losses of two runs are comparable. It is unknown what the losses of commands measure, so
    /// they are comparable only with one another.
    pub fn has_comparable_loss(&self, other: &Self) -> bool {
        self.loss_kind == other.loss_kind
    }

    /// Returns the role of its samples as an input of the comparison.
    pub fn role(&self, arm: &str) -> String {
        match &self.seed {
            None => format!("arms.{arm}"),
            Some(seed) => format!("arms.{arm}[seed={seed}]"),
        }
    }
}

/// Reads arms as in the file, where each is the name of a stage, or as written by
/// [`StageParams::complete`](super::StageParams::complete).
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
    const NAME: &'static str = "compare";
    const VERSION: u32 = 9;
    const OUTPUTS: &'static [&'static str] = &[METRICS, SUMMARY, COMPARISON, LOSS_CURVES];
    const HEADLINES: &'static [&'static str] = &["psnr_mean", "psnr_sample"];

    fn inputs(&self) -> Vec<Input> {
        let runs = self.arms.iter().flat_map(|(name, arm)| arm.runs.iter().map(move |run| (name, run)));
        let input = |(name, run): (&String, &ArmRun)| {
            let [hr, lr] = run.split.blobs();
            Input::of(&run.role(name), &run.stage, &[SAMPLES, hr, lr, LOSS])
        };
        runs.map(input).collect()
    }

    fn rename_inputs(&mut self, rename: &mut dyn FnMut(&mut String)) {
        self.arms.values_mut().flat_map(|arm| &mut arm.runs).for_each(|run| rename(&mut run.stage));
    }
}
