//! Stage kinds. Each implements [`Kind`] next to its parameters, and is listed once, in `kinds!` below.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;

/// What srpipe needs to know about a stage kind, apart from how it is computed (`stages`) and which combinations of
/// parameters are valid (`pipeline::checks`).
pub trait Kind: Serialize + DeserializeOwned {
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
    /// The parameters that name one stage each, with the kind that the stage must have.
    const REFERENCES: &'static [(&'static str, StageKind)] = &[];
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

macro_rules! kinds {
    ($($kind:ident: $name:literal, $params:ty;)*) => {
        /// The parameters of a stage.
        // There are few of them, one per stage.
        #[allow(clippy::large_enum_variant)]
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum StageParams {
            $($kind($params)),*
        }

        /// A stage kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum StageKind {
            $($kind),*
        }

        impl StageKind {
            pub const ALL: [Self; [$(Self::$kind),*].len()] = [$(Self::$kind),*];

            /// Returns the name in pipeline files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// See [`Kind::VERSION`].
            pub const fn version(self) -> u32 {
                match self { $(Self::$kind => <$params>::VERSION),* }
            }

            /// See [`Kind::OUTPUTS`].
            pub const fn outputs(self) -> &'static [&'static str] {
                match self { $(Self::$kind => <$params>::OUTPUTS),* }
            }

            /// See [`Kind::OPTIONAL_OUTPUTS`].
            pub const fn optional_outputs(self) -> &'static [&'static str] {
                match self { $(Self::$kind => <$params>::OPTIONAL_OUTPUTS),* }
            }

            /// See [`Kind::RUNS_NETWORK`].
            pub const fn runs_network(self) -> bool {
                match self { $(Self::$kind => <$params>::RUNS_NETWORK),* }
            }

            /// See [`Kind::IS_USER_DEFINED`].
            pub const fn is_user_defined(self) -> bool {
                match self { $(Self::$kind => <$params>::IS_USER_DEFINED),* }
            }

            /// See [`Kind::REFERENCES`].
            pub const fn references(self) -> &'static [(&'static str, StageKind)] {
                match self { $(Self::$kind => <$params>::REFERENCES),* }
            }

            /// See [`Kind::HEADLINES`].
            pub const fn headlines(self) -> &'static [&'static str] {
                match self { $(Self::$kind => <$params>::HEADLINES),* }
            }

            /// Returns [`Kind::TIME_LINEAR`] and [`Kind::TIME_QUADRATIC`].
            pub const fn time(self) -> [&'static [&'static str]; 2] {
                match self { $(Self::$kind => [<$params>::TIME_LINEAR, <$params>::TIME_QUADRATIC]),* }
            }
        }

        impl StageParams {
            /// Reads the parameters of a stage of this kind.
            pub fn from_yaml(kind: StageKind, yaml: serde_yaml::Value) -> Result<Self, serde_yaml::Error> {
                Ok(match kind { $(StageKind::$kind => Self::$kind(serde_yaml::from_value(yaml)?)),* })
            }

            pub fn kind(&self) -> StageKind {
                match self { $(Self::$kind(_) => StageKind::$kind),* }
            }

            /// Returns the parameters that change the result, as they are hashed into keys.
            pub fn to_semantic_json(&self) -> serde_json::Value {
                let value = match self { $(Self::$kind(params) => serde_json::to_value(params)),* };
                value.expect("parameters are JSON")
            }

            /// See [`Kind::outputs`].
            pub fn outputs(&self) -> Vec<&str> {
                match self { $(Self::$kind(params) => params.outputs()),* }
            }

            /// See [`Kind::inputs`].
            pub fn inputs(&self) -> Vec<Input> {
                match self { $(Self::$kind(params) => params.inputs()),* }
            }

            /// See [`Kind::rename_inputs`].
            pub fn rename_inputs(&mut self, mut rename: impl FnMut(&mut String)) {
                match self { $(Self::$kind(params) => params.rename_inputs(&mut rename)),* }
            }

            /// See [`Kind::seed`].
            pub fn seed(&self, pipeline: u64) -> Option<u64> {
                match self { $(Self::$kind(params) => params.seed(pipeline)),* }
            }

            /// See [`Kind::RUNS_NETWORK`].
            pub fn runs_network(&self) -> bool {
                self.kind().runs_network()
            }
        }
    };
}

kinds! {
    Fetch: "fetch", FetchParams;
    Degrade: "degrade", DegradeParams;
    Train: "train", TrainParams;
    Sample: "sample", SampleParams;
    Compare: "compare", CompareParams;
    Command: "command", CommandParams;
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
