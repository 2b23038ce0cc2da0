//! Records what a comparison showed about arms with several seeds. Later claims on the same data can be exploratory.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::SeedPlan;
use crate::store::Digest;

/// What a comparison showed. Records of older development versions have other fields, which are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StudyLook {
    /// The id of the first run that showed this comparison. Ids sort by time.
    #[serde(default)]
    pub run: String,
    /// The arms with several seeds. Metrics of all of them are shown, whether or not there is a claim.
    #[serde(default)]
    pub arms: BTreeMap<String, ArmData>,
    /// The claims that were answered about these arms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimLook>,
}

/// Identifies the data of an arm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmData {
    pub samples: DataSet,
    /// The losses of its training runs; empty if unknown.
    #[serde(default, skip_serializing_if = "DataSet::is_empty")]
    pub losses: DataSet,
}

/// A claim that was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimLook {
    pub arm: String,
    pub control: String,
    pub endpoint: String,
    /// The number of independent replicates; 0 if the effect could not be measured.
    pub n: usize,
    pub margin: f64,
    pub family_claims: usize,
    /// The planned seeds and looks, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<SeedPlan>,
}

/// A set of truncated digests, serialised as one string to keep records small.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct DataSet(BTreeSet<String>);

/// The number of hexadecimal digits of a truncated digest.
const DIGITS: usize = 12;

impl DataSet {
    pub fn insert(&mut self, digest: &Digest) {
        self.0.insert(digest.to_string().chars().take(DIGITS).collect());
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl From<String> for DataSet {
    fn from(text: String) -> Self {
        Self(text.split_whitespace().map(str::to_string).collect())
    }
}

impl From<DataSet> for String {
    fn from(set: DataSet) -> Self {
        set.0.into_iter().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_compact_and_older_ones_are_readable() {
        let mut samples = DataSet::default();
        for text in ["b", "a"] {
            samples.insert(&Digest::of(text.as_bytes()));
        }
        let arms = BTreeMap::from([("a".to_string(), ArmData { samples, losses: DataSet::default() })]);
        let look = StudyLook { run: "r".to_string(), arms, claims: vec![] };
        let json = serde_json::to_string(&look).unwrap();
        assert_eq!(json, r#"{"run":"r","arms":{"a":{"samples":"3e23e8160039 ca978112ca1b"}}}"#);
        assert_eq!(serde_json::from_str::<StudyLook>(&json).unwrap(), look);
        let old = r#"{"stage":"s","claim":"c","question":["a","b","crps"],"n":6,"samples":["1","2"]}"#;
        assert_eq!(serde_json::from_str::<StudyLook>(old).unwrap(), StudyLook::default());
    }
}
