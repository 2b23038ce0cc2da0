//! The pipeline file: parsed with positions, validated against the parameter types, resolved into values.
//!
//! Pure: text in, a [`Pipeline`] or every one of its errors out. What a stage *does* is not known here.
//!
//! [`load()`] and [`parse`] lead through it: `reader` makes a `tree` in which every value knows its place, `flags` puts
//! the values of the command line over it, `resolve` merges the defaults and holds every stage against the `schema` of
//! its type in [`params`], `references` finds missing stages and cycles and sorts, `sweep` makes instances of stages that
//! are swept, `checks` has what only several values together tell. Each adds to the same list of errors, which
//! [`Diagnostics`] shows.

mod aliases;
mod checks;
mod diagnostics;
mod flags;
mod load;
mod reader;
mod references;
mod resolve;
mod resolved;
mod schema;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;
mod unread;
mod words;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Device, ExecutorKind, Label, Resources, Retry, Site, StageParams};

pub use checks::{MAX_IMAGE_SIZE, check_network};
pub use diagnostics::{Diagnostic, Diagnostics, Position};
pub use flags::Flags;
pub use load::{load, parse};
pub use schema::{file as file_schema, reference};
pub use words::did_you_mean;

/// A valid pipeline: references resolve, there is no cycle, defaults are filled in.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The file it was read from.
    pub file: PathBuf,
    pub name: String,
    pub description: Option<String>,
    pub seed: u64,
    pub device: Device,
    /// Where it says so.
    pub executor: Option<ExecutorKind>,
    /// In an order in which every stage comes after those it names; otherwise as in the file, instances of one stage
    /// together.
    pub stages: Vec<Stage>,
    /// What the file says; where, is told by its positions.
    draft: Arc<load::Source>,
}

impl Pipeline {
    /// For tests of what comes after the file: one that was never written.
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
            draft: Arc::default(),
        }
    }

    /// The whole pipeline as YAML, every default and what the command line says filled in; reads as this pipeline.
    pub fn resolved(&self) -> String {
        self.draft.resolved()
    }

    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.name == name)
    }

    /// The stages that `name` means: the one of that name, or all instances of it.
    pub fn named(&self, name: &str) -> Vec<usize> {
        let is = |stage: &Stage| stage.name == name || stage.base == name;
        (0..self.stages.len()).filter(|&i| is(&self.stages[i])).collect()
    }

    /// Leaves these stages and those that they need.
    pub fn keep(&mut self, wanted: impl IntoIterator<Item = usize>) {
        let mut keep = vec![false; self.stages.len()];
        wanted.into_iter().for_each(|i| keep[i] = true);
        let index: std::collections::HashMap<String, usize> =
            self.stages.iter().enumerate().map(|(i, stage)| (stage.name.clone(), i)).collect();
        // What a stage needs comes before it.
        for i in (0..self.stages.len()).rev() {
            if keep[i] {
                self.stages[i].params.inputs().iter().for_each(|input| keep[index[&input.stage]] = true);
            }
        }
        let mut keep = keep.into_iter();
        self.stages.retain(|_| keep.next().unwrap_or(false));
    }

    /// Where a stage, or with a path such as `model.base_channels` a parameter of it, is given: in the stage, in
    /// `defaults` or on the command line. An empty path is the stage itself. `None` for what is left to its default.
    pub fn position(&self, stage: &Stage, path: &str) -> Option<Position> {
        self.draft.position(stage, path)
    }

    /// As [`Pipeline::position`], of what encloses the parameter where it is left to its default itself.
    pub fn nearest_position(&self, stage: &Stage, path: &str) -> Option<Position> {
        let shorter = std::iter::successors(Some(path), |p| match p.rsplit_once('.') {
            Some((outer, _)) => Some(outer),
            None => (!p.is_empty()).then_some(""),
        });
        shorter.into_iter().find_map(|p| self.position(stage, p))
    }
}

/// One stage of a pipeline, or one instance of a stage that is swept.
#[derive(Debug, Clone)]
pub struct Stage {
    pub name: String,
    /// Its name in the file, which the instances of one stage have in common.
    pub base: String,
    /// The values that tell it from other instances of its stage, by axis; those of stages before it first.
    pub labels: Vec<Label>,
    pub params: StageParams,
    pub resources: Resources,
    pub site: Site,
    pub retry: Retry,
    /// Where in the draft it comes from: the stage, and which combination of it.
    origin: (usize, usize),
}

impl Stage {
    /// For tests of what comes after the file.
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
