//! A parsed pipeline file whose stages are not expanded into instances yet.

use super::diagnostics::Span;
use super::references::Reference;
use super::sweep::{Applied, Sweeps, Variant};
use super::tree::Node;
use crate::config::{Device, ExecutorKind, StageKind, StageParams};

/// The keys at the top level of a pipeline file.
pub(super) const KEYS: [&str; 8] =
    ["name", "description", "seed", "device", "executor", "matrix", "defaults", "stages"];

/// The contents of a file, with each stage validated on its own.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) seed: u64,
    pub(super) device: Device,
    pub(super) executor: Option<ExecutorKind>,
    pub(super) stages: Vec<StageDraft>,
    pub(super) sweeps: Sweeps,
}

/// A stage of the file, before sweeps expand it into instances.
#[derive(Debug)]
pub(super) struct StageDraft {
    pub(super) name: String,
    /// The span of the name.
    pub(super) key: Span,
    /// None if the kind is missing or invalid.
    pub(super) kind: Option<StageKind>,
    /// The parameters merged with the defaults, without `kind` and `matrix`.
    pub(super) node: Node,
    /// The matrices that apply to it.
    pub(super) applied: Applied,
    /// One variant if no matrix applies; empty if the kind is invalid.
    pub(super) variants: Vec<Variant>,
    /// The references of all variants.
    pub(super) references: Vec<Reference>,
}

impl StageDraft {
    /// Returns the parameters of each variant that could be parsed.
    pub(super) fn params(&self) -> impl Iterator<Item = &StageParams> {
        self.variants.iter().filter_map(|variant| Some(&variant.typed.as_ref()?.params))
    }
}

impl Draft {
    /// Returns the value of a parameter of a variant, with the span of its key. For a swept parameter, the span is that
    /// of the value in the matrix. None if the parameter is not set.
    pub(super) fn parameter(&self, stage: usize, variant: usize, path: &str) -> Option<(Span, &Node)> {
        let stage = &self.stages[stage];
        for &(axis, value) in &stage.variants[variant].combination {
            let axis = &self.sweeps.axes[axis];
            let node = &axis.values[value].node;
            if path == axis.parameter {
                return Some((node.span, node));
            }
            if let Some(inner) = path.strip_prefix(&axis.parameter).and_then(|rest| rest.strip_prefix('.')) {
                return node.entry_at(inner).map(|entry| (entry.key, &entry.node));
            }
        }
        stage.node.entry_at(path).map(|entry| (entry.key, &entry.node))
    }
}
