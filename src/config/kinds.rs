//! The list of stage kinds.

use std::fmt;

use schemars::{Schema, schema_for};
use serde::{Deserialize, Serialize};

use super::stage::{Input, Kind};
use super::{CommandParams, CompareParams, DegradeParams, FetchParams, SampleParams, SelectParams, TrainParams};

macro_rules! kinds {
    ($($kind:ident: $params:ty;)*) => {
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
                match self { $(Self::$kind => <$params>::NAME),* }
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
            pub const fn references(self) -> &'static [(&'static str, &'static [&'static str])] {
                match self { $(Self::$kind => <$params>::REFERENCES),* }
            }

            /// Returns the kind with this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|kind| kind.name() == name)
            }

            /// Returns the JSON Schema of the parameters, without `kind` itself.
            pub fn schema(self) -> Schema {
                match self { $(Self::$kind => schema_for!($params)),* }
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
    Fetch: FetchParams;
    Degrade: DegradeParams;
    Train: TrainParams;
    Sample: SampleParams;
    Compare: CompareParams;
    Select: SelectParams;
    Command: CommandParams;
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_kinds() {
        for kind in StageKind::ALL {
            assert_eq!(StageKind::named(kind.name()), Some(kind));
            let mut targets = kind.references().iter().flat_map(|(_, targets)| *targets);
            assert!(targets.all(|target| StageKind::named(target).is_some()), "{kind}");
        }
    }
}
