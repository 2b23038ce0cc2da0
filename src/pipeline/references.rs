//! Finds the parameters of a stage that refer to other stages.

use super::diagnostics::Span;
use super::text::quote;
use super::tree::{Entry, Node};
use crate::config::StageKind;
use crate::config::command::split;

/// A parameter of a stage that refers to another stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    /// The path of the parameter, such as `data` or `arms.baseline`.
    pub(super) role: String,
    pub(super) target: String,
    pub(super) span: Span,
    pub(super) wants: Wants,
}

/// The required target of a reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wants {
    /// A stage of one of these kinds, or a `command` with the outputs that the stage reads.
    Kinds(Vec<StageKind>),
    /// Any stage.
    Artifact,
    /// A stage with this output.
    Blob(String),
}

/// Returns the references in a stage's parameters.
pub(super) fn references(kind: StageKind, params: &Node) -> Vec<Reference> {
    let below = |key: &str| params.entry([key]).and_then(|e| e.node.as_mapping()).into_iter().flatten();
    let role = |key: &str, name: &str| format!("{key}.{}", quote(name).trim_matches('`'));
    match kind {
        StageKind::Compare => {
            let reference = |(name, entry): (&String, &Entry)| {
                let target = entry.node.as_text()?.to_string();
                let wants = Wants::Kinds(vec![StageKind::Sample]);
                Some(Reference { role: role("arms", name), target, span: entry.node.span, wants })
            };
            return below("arms").filter_map(reference).collect();
        }
        StageKind::Command => {
            let reference = |(name, entry): (&String, &Entry)| {
                let (target, blob) = split(entry.node.as_text()?);
                let wants = blob.map_or(Wants::Artifact, |blob| Wants::Blob(blob.to_string()));
                Some(Reference { role: role("inputs", name), target: target.to_string(), span: entry.node.span, wants })
            };
            return below("inputs").filter_map(reference).collect();
        }
        StageKind::Fetch | StageKind::Degrade | StageKind::Train | StageKind::Sample | StageKind::Select => {}
    }
    let reference = |&(role, kinds): &(&str, &[&str])| {
        let node = &params.entry([role])?.node;
        let wants = Wants::Kinds(kinds.iter().filter_map(|kind| StageKind::named(kind)).collect());
        let target = node.as_text()?.to_string();
        Some(Reference { role: role.to_string(), target, span: node.span, wants })
    };
    kind.references().iter().filter_map(reference).collect()
}
