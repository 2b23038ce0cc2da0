//! Parses, validates and resolves pipeline files.
//!
//! Pure except for [`load()`], which reads the file: takes text and returns a [`Pipeline`], or all of its errors. It is
//! independent of what a stage computes.
//!
//! [`load()`] and [`parse`] run these steps, which all add to one list of errors, shown by [`Diagnostics`]:
//!
//! 1. `reader` parses the YAML into a `tree` in which every value has a span.
//! 2. `flags` applies `--set` and `--sweep`.
//! 3. `resolve` builds a `draft`: it merges the defaults, reads the matrices (`sweep`), and validates every stage
//!    against its `schema`, which is derived from the parameter types in [`config`](crate::config).
//! 4. `order` checks the `references` between stages, reports cycles, and sorts the stages topologically.
//! 5. `instances` expands swept stages into instances, and `trainings` sets which trainings each arm depends on.
//! 6. `checks` validates what depends on several values or stages.
//!
//! `resolved_yaml` writes the resolved pipeline as YAML. `normalize` resets parameters that have no effect, and
//! `complete_params` serialises all parameters of a stage. `aliases` declares older spellings.
//! `text` formats names and lists in messages.

mod aliases;
mod checks;
mod complete_params;
mod diagnostics;
mod draft;
mod flags;
mod instances;
mod load;
mod normalize;
mod order;
mod reader;
mod references;
mod resolve;
mod resolved_yaml;
mod schema;
mod sweep;
#[cfg(test)]
mod tests;
mod text;
mod trainings;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Device, ExecutorKind, Label, Resources, Retry, Site, StageParams};

pub use aliases::{current_path, current_value, older_path, rename_yaml_keys};
pub use checks::check_network;
pub use diagnostics::{Diagnostic, Diagnostics, Position};
pub use flags::Flags;
pub use load::{load, parse};
pub use schema::{file as file_schema, reference};
pub use text::did_you_mean;

/// A valid pipeline: references resolve, there is no cycle, defaults are filled in.
#[derive(Debug, Clone)]
pub struct Pipeline {
    file: PathBuf,
    pub name: String,
    pub description: Option<String>,
    pub seed: u64,
    pub device: Device,
    /// None if the file does not specify one.
    pub executor: Option<ExecutorKind>,
    /// In topological order: every stage comes after its inputs. Otherwise in the order of the file, with the instances
    /// of a stage next to each other.
    pub stages: Vec<Stage>,
    /// The sources, for positions and for the resolved pipeline.
    source: Arc<load::Source>,
}

impl Pipeline {
    /// Creates a pipeline without a file.
    #[cfg(test)]
    pub fn of_stages(stages: Vec<Stage>) -> Self {
        Self {
            file: PathBuf::new(),
            name: "test".to_string(),
            description: None,
            seed: 0,
            device: Device::Cpu,
            executor: None,
            stages,
            source: Arc::default(),
        }
    }

    /// Returns the pipeline as YAML with all defaults and flags filled in. Parsing it gives the same pipeline.
    pub fn resolved(&self) -> String {
        self.source.resolved()
    }

    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.name == name)
    }

    /// Returns the indices of the stages that `name` selects: a single stage, or all instances of a swept stage.
    pub fn named(&self, name: &str) -> Vec<usize> {
        let is_selected = |stage: &Stage| stage.name == name || stage.base == name;
        (0..self.stages.len()).filter(|&i| is_selected(&self.stages[i])).collect()
    }

    /// Keeps these stages and their dependencies; removes all others.
    pub fn keep(&mut self, wanted: impl IntoIterator<Item = usize>) {
        let mut keep = vec![false; self.stages.len()];
        wanted.into_iter().for_each(|i| keep[i] = true);
        let index: std::collections::HashMap<String, usize> =
            self.stages.iter().enumerate().map(|(i, stage)| (stage.name.clone(), i)).collect();
        // Dependencies come before the stages that need them.
        for i in (0..self.stages.len()).rev() {
            if keep[i] {
                self.stages[i].params.inputs().iter().for_each(|input| keep[index[&input.stage]] = true);
            }
        }
        let mut keep = keep.into_iter();
        self.stages.retain(|_| keep.next().unwrap_or(false));
    }

    /// Returns where a parameter of a stage, such as `model.base_channels`, is set: in the stage, in `defaults` or on
    /// the command line. None if it has its default value. An empty path stands for the stage itself.
    pub fn position(&self, stage: &Stage, path: &str) -> Option<Position> {
        self.source.position(stage, &current_path(stage.params.kind(), path))
    }

    /// Like [`Pipeline::position`], but falls back to the closest enclosing mapping that is set.
    pub fn nearest_position(&self, stage: &Stage, path: &str) -> Option<Position> {
        let enclosing = std::iter::successors(Some(path), |p| match p.rsplit_once('.') {
            Some((outer, _)) => Some(outer),
            None => (!p.is_empty()).then_some(""),
        });
        enclosing.into_iter().find_map(|p| self.position(stage, p))
    }
}

/// A stage of a pipeline, or an instance of a swept stage.
#[derive(Debug, Clone)]
pub struct Stage {
    pub name: String,
    /// The name in the file, which all instances of a stage share.
    pub base: String,
    /// The axis values that identify the instance; those inherited from inputs come first.
    pub labels: Vec<Label>,
    pub params: StageParams,
    pub resources: Resources,
    pub site: Site,
    pub retry: Retry,
    /// The indices of the stage and of its variant in the draft.
    origin: (usize, usize),
}

impl Stage {
    /// Creates a stage with default resources.
    #[cfg(test)]
    pub fn new(name: &str, params: StageParams) -> Self {
        Self {
            name: name.to_string(),
            base: name.to_string(),
            labels: vec![],
            params,
            resources: Resources::default(),
            site: Site::default(),
            retry: Retry::default(),
            origin: (0, 0),
        }
    }
}
