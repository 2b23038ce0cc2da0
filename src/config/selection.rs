//! Parameters of `select`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blobs::{EMA, LOSS, SELECTION, SUMMARY, WEIGHTS};
use super::metrics::Metric;
use super::{CompareParams, Input, Kind};

/// Selects the best model of a comparison on validation images, and passes on its weights. With several seeds, the
/// stage has one instance per seed. Each passes on the model trained with its seed, from the arm with the best mean
/// over all seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectParams {
    /// The `compare` stage whose arms are the candidates. Their `sample` stages need `split: validation`.
    #[serde(skip_serializing)]
    pub from: String,
    /// The metric by which the best arm is selected.
    pub by: Metric,
    /// The candidates by arm, set when the file is loaded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(skip)]
    pub candidates: BTreeMap<String, CandidateModel>,
}

/// A model to select from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CandidateModel {
    /// The `train` stage.
    #[serde(skip_serializing)]
    pub stage: String,
}

impl SelectParams {
    /// Returns the role of a candidate as an input of the selection.
    pub fn role(arm: &str) -> String {
        format!("candidates.{arm}")
    }
}

impl Kind for SelectParams {
    const NAME: &'static str = "select";
    const VERSION: u32 = 1;
    const OUTPUTS: &'static [&'static str] = &[SELECTION, EMA, WEIGHTS, LOSS];
    const REFERENCES: &'static [(&'static str, &'static [&'static str])] = &[("from", &[CompareParams::NAME])];

    fn inputs(&self) -> Vec<Input> {
        let candidate = |(arm, candidate): (&String, &CandidateModel)| {
            Input::of(&Self::role(arm), &candidate.stage, &[EMA, WEIGHTS, LOSS])
        };
        let from = Input::of("from", &self.from, &[SUMMARY]);
        [from].into_iter().chain(self.candidates.iter().map(candidate)).collect()
    }

    fn rename_inputs(&mut self, rename: &mut dyn FnMut(&mut String)) {
        rename(&mut self.from);
        self.candidates.values_mut().for_each(|candidate| rename(&mut candidate.stage));
    }
}
