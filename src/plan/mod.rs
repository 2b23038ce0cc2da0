//! The dependency graph of a pipeline's stages, with the key and the state of each stage.
//!
//! Pure: does not access files or clocks. Cached results come from an [`ActionCache`]: the store, or a map.
//!
//! - [`Preimage`]: everything that a stage's result depends on. Its SHA-256 is the stage's [`Key`](crate::store::Key).
//! - [`states`]: which stages are cached, ready or waiting. A key contains the *content* of the inputs, so it is
//!   unknown until they are cached. An input that is recomputed with the same bytes does not change the keys of its
//!   dependents.
//! - [`explain`]: why each stage runs, based on the most similar past result, and how long it will take.

#[cfg(test)]
mod edit_tests;
mod explain;
mod key;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::config::{Blobs, Resources, Retry, Site, StageKind, StageParams};
use crate::pipeline::Pipeline;

pub use explain::{Difference, Explanation, Field, History, Reason, explain, leaves};
use key::KEY_FORMAT;
pub use key::{BackendClass, Preimage};
pub use state::{ActionCache, Sources, StageState, advance, state_of, states};

/// The stages of a pipeline as a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In topological order.
    pub stages: Vec<PlannedStage>,
}

/// A stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStage {
    pub name: String,
    /// The name in the file, which all instances of a swept stage share.
    pub base: String,
    /// Whether it is an instance of a swept stage.
    pub is_swept: bool,
    pub kind: StageKind,
    #[serde(serialize_with = "StageParams::serialize_complete")]
    pub params: StageParams,
    /// The outputs of other stages that it reads.
    inputs: Vec<PlannedInput>,
    /// The indices of the stages that it reads, ascending.
    pub dependencies: Vec<usize>,
    /// The indices of the stages that read it, ascending.
    pub dependents: Vec<usize>,
    /// None if it draws no random numbers.
    seed: Option<u64>,
    pub resources: Resources,
    pub site: Site,
    pub retry: Retry,
}

/// An input of a stage. `stage` is an index into [`Plan::stages`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PlannedInput {
    role: String,
    stage: usize,
    blobs: Blobs,
}

/// Builds the plan of a pipeline.
///
/// # Panics
/// Panics unless the stages are sorted topologically, which a [`Pipeline`] guarantees.
pub fn plan(pipeline: &Pipeline) -> Plan {
    let mut stages: Vec<PlannedStage> = Vec::with_capacity(pipeline.stages.len());
    let mut index = HashMap::new();
    for (i, stage) in pipeline.stages.iter().enumerate() {
        let input = |input: crate::config::Input| {
            let Some(&stage) = index.get(input.stage.as_str()) else {
                panic!("stage {:?} reads {:?}, which does not come before it", stage.name, input.stage);
            };
            PlannedInput { role: input.role, stage, blobs: input.blobs }
        };
        let inputs: Vec<_> = stage.params.inputs().into_iter().map(input).collect();
        let mut dependencies: Vec<usize> = inputs.iter().map(|input| input.stage).collect();
        dependencies.sort_unstable();
        dependencies.dedup();
        for &dependency in &dependencies {
            stages[dependency].dependents.push(i);
        }
        index.insert(stage.name.as_str(), i);
        stages.push(PlannedStage {
            name: stage.name.clone(),
            base: stage.base.clone(),
            is_swept: !stage.labels.is_empty(),
            kind: stage.params.kind(),
            params: stage.params.clone(),
            inputs,
            dependencies,
            dependents: vec![],
            seed: stage.params.seed(pipeline.seed),
            resources: stage.resources,
            site: stage.site.clone(),
            retry: stage.retry,
        });
    }
    Plan { stages }
}
