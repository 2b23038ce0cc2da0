//! What has to be done: the graph of a pipeline's stages, the key of each, and from what is known its state.
//!
//! Pure: no files, no clocks. What is known comes through [`Known`], which the store answers and in tests a map.
//!
//! - [`Preimage`]: everything that a stage's result depends on; its SHA-256 is the stage's [`Key`](crate::store::Key).
//! - [`explain`]: why a stage runs, by what differs from what was made before, and about how long it takes.
//! - [`states`]: which stages are known, which can run, which wait. A key holds the *content* of inputs, so it is known
//!   only when they are; an input made again with the same bytes changes nothing below it.

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

pub use explain::{Difference, Explanation, Field, History, Reason, explain};
pub use key::{BackendClass, KEY_FORMAT, Preimage};
pub use state::{Known, Sources, StageState, advance, state_of, states};

/// The stages of a pipeline as a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Each after those that it reads.
    pub stages: Vec<PlannedStage>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStage {
    pub name: String,
    /// Its name in the file, which the instances of a swept stage have in common.
    pub base: String,
    /// Whether it is one of the instances of a sweep.
    pub is_swept: bool,
    pub kind: StageKind,
    #[serde(serialize_with = "StageParams::serialize_complete")]
    pub params: StageParams,
    /// What it reads of other stages.
    pub inputs: Vec<PlannedInput>,
    /// The stages that it reads, ascending.
    pub dependencies: Vec<usize>,
    /// The stages that read it, ascending.
    pub dependents: Vec<usize>,
    /// Where it draws random numbers.
    pub seed: Option<u64>,
    pub resources: Resources,
    pub site: Site,
    pub retry: Retry,
}

/// An input, its stage by index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedInput {
    pub role: String,
    pub stage: usize,
    pub blobs: Blobs,
}

/// The graph of a pipeline. Panics unless each stage comes after those it names, which a [`Pipeline`] promises.
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
