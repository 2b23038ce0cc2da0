//! What a stage kind declares: each implements [`Kind`] next to its parameters, and is listed in `kinds`.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a stage kind declares with its parameters. Code for a kind is also in `stages` (its computation) and `pipeline`
/// (which combinations of parameters are valid, and which parameters refer to other stages).
pub trait Kind: Serialize + DeserializeOwned + JsonSchema {
    /// The name in pipeline files.
    const NAME: &'static str;
    /// The version of what a stage of this kind computes, part of its keys. Raise it with every change of results; the
    /// keys of later stages change only if the bytes that they read change.
    const VERSION: u32;
    /// The blobs that every stage of this kind writes, unless it declares its own.
    const OUTPUTS: &'static [&'static str];
    /// Further blobs that some stages of this kind write.
    const OPTIONAL_OUTPUTS: &'static [&'static str] = &[];
    /// Whether it runs a network, so that its result depends on the class of device.
    const RUNS_NETWORK: bool = false;
    /// Whether its outputs and metrics are the user's own.
    const IS_USER_DEFINED: bool = false;
    /// The parameters that name one stage each, with the names of the kinds that the stage can have.
    const REFERENCES: &'static [(&'static str, &'static [&'static str])] = &[];
    /// Metrics to show first, in order of preference.
    const HEADLINES: &'static [&'static str] = &[];
    /// Parameters (JSON pointers) that the run time is proportional to.
    const TIME_LINEAR: &'static [&'static str] = &[];
    /// Parameters (JSON pointers) whose square the run time is proportional to.
    const TIME_QUADRATIC: &'static [&'static str] = &[];

    /// Returns the blobs that this stage writes.
    fn outputs(&self) -> Vec<&str> {
        Self::OUTPUTS.to_vec()
    }

    /// Returns what this stage reads from other stages.
    fn inputs(&self) -> Vec<Input>;

    /// Calls `rename` with the name of every stage in [`inputs`](Self::inputs), in their order.
    fn rename_inputs(&mut self, rename: &mut dyn FnMut(&mut String));

    /// Returns the seed of a stage that draws random numbers: the pipeline's unless it has its own.
    fn seed(&self, _pipeline: u64) -> Option<u64> {
        None
    }
}

/// An artifact of another stage that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What the artifact is to the stage: the name of the parameter, or `arms.NAME` for an arm.
    pub role: String,
    /// The stage that writes it.
    pub stage: String,
    /// The blobs that are read from it; the content of others does not matter.
    pub blobs: Blobs,
}

impl Input {
    /// Creates an input from which these blobs are read.
    pub(super) fn of(role: &str, stage: &str, blobs: &[&'static str]) -> Self {
        let blobs = Blobs::Only(blobs.iter().map(|&name| name.into()).collect());
        Self { role: role.to_string(), stage: stage.to_string(), blobs }
    }
}

/// Which blobs of an artifact are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blobs {
    All,
    Only(Vec<Cow<'static, str>>),
}

impl Blobs {
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|n| n == name),
        }
    }
}
