//! Stages that name stages: whether those exist and are of the right kind, cycles, and the order of the stages.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use indexmap::IndexSet;

use super::diagnostics::{Diagnostic, Errors, Span};
use super::resolve::StageDraft;
use super::tree::{Entry, Node};
use super::words::{did_you_mean, list, odd_character, quote};
use crate::config::command::split;
use crate::config::{Blobs, StageKind, StageParams, blobs};

/// A stage's parameter that names another stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    /// The parameter: `data`, `arms.baseline`.
    role: String,
    target: String,
    span: Span,
    wants: Wants,
}

/// What a reference must lead to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Wants {
    /// A stage of this kind, or a `command` that makes the same blobs.
    Kind(StageKind),
    /// Any stage.
    Artifact,
    /// A stage that makes this blob.
    Blob(String),
}

impl Wants {
    fn fits(&self, stage: &StageDraft) -> bool {
        match self {
            Self::Kind(kind) => stage.kind == Some(*kind),
            Self::Artifact | Self::Blob(_) => true,
        }
    }
}

/// The stages that a stage's parameters name.
pub(super) fn references(kind: StageKind, params: &Node) -> Vec<Reference> {
    let below = |key: &str| params.entry([key]).and_then(|e| e.node.as_mapping()).into_iter().flatten();
    let role = |key: &str, name: &str| format!("{key}.{}", quote(name).trim_matches('`'));
    match kind {
        StageKind::Compare => {
            let reference = |(name, entry): (&String, &Entry)| {
                let target = entry.node.as_text()?.to_string();
                let wants = Wants::Kind(StageKind::Sample);
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
        StageKind::Fetch | StageKind::Degrade | StageKind::Train | StageKind::Sample => {}
    }
    let reference = |&(role, kind): &(&str, StageKind)| {
        let node = &params.entry([role])?.node;
        let (target, wants) = (node.as_text()?.to_string(), Wants::Kind(kind));
        Some(Reference { role: role.to_string(), target, span: node.span, wants })
    };
    kind.references().iter().filter_map(reference).collect()
}

/// Checks every reference and puts the stages into an order in which each comes after those it names, otherwise that
/// of the file.
pub(super) fn check_and_sort(stages: Vec<StageDraft>, errors: &mut Errors) -> Vec<StageDraft> {
    let index: HashMap<&str, usize> = stages.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
    // What each stage names, where that exists.
    let mut edges: Vec<Vec<(usize, Span)>> = vec![];
    let outputs: Vec<OnceCell<Option<HashSet<&str>>>> = stages.iter().map(|_| OnceCell::new()).collect();
    for stage in &stages {
        let mut named = vec![];
        let reads = OnceCell::new();
        for reference in &stage.references {
            match index.get(reference.target.as_str()) {
                Some(&target) => {
                    let made = || outputs[target].get_or_init(|| self::outputs(&stages[target])).as_ref();
                    let read = |reference: &Reference| {
                        let all = reads.get_or_init(|| reads_of(stage));
                        all.get(&(reference.role.clone(), reference.target.clone())).cloned().unwrap_or_default()
                    };
                    check_target(stage, reference, &stages[target], (made, read), &stages, errors);
                    named.push((target, reference.span));
                }
                None if errors.is_full() => {}
                None => {
                    let fitting = stages.iter().filter(|s| reference.wants.fits(s));
                    let help = odd_character(&reference.target)
                        .or_else(|| did_you_mean(&reference.target, fitting.map(|s| s.name.as_str())))
                        .or_else(|| did_you_mean(&reference.target, stages.iter().map(|s| s.name.as_str())))
                        .or_else(|| match reference.wants {
                            Wants::Kind(kind) => only_one(&stages, kind),
                            Wants::Artifact | Wants::Blob(_) => None,
                        });
                    let message = format!("`{}` names {}, which is no stage", reference.role, quote(&reference.target));
                    errors.push(Diagnostic::new(reference.span, message).maybe_help(help));
                }
            }
        }
        edges.push(named);
    }
    report_cycles(&stages, &edges, errors);
    let order = topological_order(&edges);
    let mut stages: Vec<Option<StageDraft>> = stages.into_iter().map(Some).collect();
    order.into_iter().filter_map(|i| stages[i].take()).collect()
}

fn check_target<'a>(
    stage: &StageDraft,
    reference: &Reference,
    target: &StageDraft,
    // The outputs of the target, and those that the stage reads.
    (made, read): (impl FnOnce() -> Option<&'a HashSet<&'a str>>, impl FnOnce(&Reference) -> Vec<String>),
    stages: &[StageDraft],
    errors: &mut Errors,
) {
    match (&reference.wants, target.kind) {
        _ if errors.is_full() => {}
        (Wants::Kind(_), Some(StageKind::Command)) => {
            let Some(made) = made() else { return };
            check_blobs(stage, reference, target, made, &read(reference), errors);
        }
        (Wants::Kind(wants), Some(kind)) if kind != *wants => {
            wrong_kind(reference, *wants, target, kind, stages, errors);
        }
        (Wants::Blob(blob), _) => {
            let Some(outputs) = made() else { return };
            if !outputs.contains(blob.as_str()) {
                let mut outputs: Vec<&str> = outputs.iter().copied().collect();
                outputs.sort_unstable();
                let message = format!("stage {} makes no {}", quote(&target.name), quote(blob));
                let help = did_you_mean(blob, outputs.iter().copied());
                let help = help.unwrap_or_else(|| format!("it makes {}", list(&outputs)));
                errors.push(Diagnostic::new(reference.span, message).help(help));
            }
        }
        _ => {}
    }
}

/// The blobs that a stage makes, whichever of its variants is run; None where its parameters are in error.
fn outputs(stage: &StageDraft) -> Option<HashSet<&str>> {
    let mut variants = stage.params().map(StageParams::outputs);
    let mut common: HashSet<&str> = variants.next()?.into_iter().collect();
    for outputs in variants {
        let outputs: HashSet<&str> = outputs.into_iter().collect();
        common.retain(|name| outputs.contains(name));
    }
    Some(common)
}

/// Returns the outputs that a stage's variants read, by role and target, without duplicates.
fn reads_of(stage: &StageDraft) -> HashMap<(String, String), Vec<String>> {
    let mut all: HashMap<(String, String), IndexSet<String>> = HashMap::new();
    for input in stage.params().flat_map(StageParams::inputs) {
        if let Blobs::Only(names) = input.blobs {
            all.entry((input.role, input.stage)).or_default().extend(names.into_iter().map(Cow::into_owned));
        }
    }
    all.into_iter().map(|(key, names)| (key, names.into_iter().collect())).collect()
}

/// A command can replace a stage of another kind if it produces the outputs that are read.
fn check_blobs(
    stage: &StageDraft,
    reference: &Reference,
    target: &StageDraft,
    made: &HashSet<&str>,
    read: &[String],
    errors: &mut Errors,
) {
    // The losses of an arm are optional.
    let optional = |name: &str| stage.kind == Some(StageKind::Compare) && name == blobs::LOSS;
    let missing: Vec<&str> = read.iter().map(String::as_str).filter(|n| !made.contains(n) && !optional(n)).collect();
    if !missing.is_empty() {
        let message = format!(
            "`{}` reads {}, which the command {} does not make",
            reference.role,
            list(&missing),
            quote(&target.name)
        );
        errors.push(Diagnostic::new(reference.span, message).help("declare them as its `outputs`"));
    }
}

fn wrong_kind(
    reference: &Reference,
    wants: StageKind,
    target: &StageDraft,
    kind: StageKind,
    stages: &[StageDraft],
    errors: &mut Errors,
) {
    let message = format!(
        "`{}` must name a {} stage, {} is a {} stage",
        reference.role,
        wants.name(),
        quote(&target.name),
        kind.name()
    );
    let error = Diagnostic::new(reference.span, message).maybe_help(only_one(stages, wants));
    errors.push(error);
}

/// The only stage of a kind is what was meant.
fn only_one(stages: &[StageDraft], kind: StageKind) -> Option<String> {
    let mut fitting = stages.iter().filter(|s| s.kind == Some(kind));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Some(format!("the {} stage is {}", kind.name(), quote(&only.name))),
        (None, _) => Some(format!("there is no {} stage yet; add one", kind.name())),
        _ => None,
    }
}

/// Reports each cycle that a depth-first walk in the order of the file closes, with its path. Iterative: a file may
/// chain more stages than the call stack holds.
fn report_cycles(stages: &[StageDraft], edges: &[Vec<(usize, Span)>], errors: &mut Errors) {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        OnPath,
        Done,
    }
    let mut states = vec![State::New; stages.len()];
    // The position of each stage on the path.
    let mut depths = vec![0; stages.len()];
    for root in 0..stages.len() {
        if states[root] != State::New {
            continue;
        }
        depths[root] = 0;
        states[root] = State::OnPath;
        // Stages from the root to the current one, with how many of their references are walked.
        let mut path = vec![(root, 0)];
        while let Some((stage, walked)) = path.last_mut() {
            let Some(&(target, span)) = edges[*stage].get(*walked) else {
                states[*stage] = State::Done;
                path.pop();
                continue;
            };
            *walked += 1;
            if errors.is_full() {
                return;
            }
            match states[target] {
                State::Done => {}
                State::New => {
                    states[target] = State::OnPath;
                    depths[target] = path.len();
                    path.push((target, 0));
                }
                State::OnPath => {
                    let message = format!("circular dependency: {}", cycle(stages, &path[depths[target]..]));
                    errors.push(
                        Diagnostic::new(span, message).help("this reference closes the cycle; name a stage before it"),
                    );
                }
            }
        }
    }
}

/// `a → b → a`, the middle left out where it is long.
fn cycle(stages: &[StageDraft], path: &[(usize, usize)]) -> String {
    let name = |&(stage, _): &(usize, usize)| quote(&stages[stage].name);
    let names = |part: &[(usize, usize)]| part.iter().map(name).collect::<Vec<_>>().join(" → ");
    let shown = match path.len() {
        0..12 => names(path),
        n => format!("{} → … → {}", names(&path[..6]), names(&path[n - 4..])),
    };
    shown + " → " + &path.first().map_or(String::new(), name)
}

/// Kahn's algorithm, always the earliest ready stage next. Those that wait for a cycle come last.
fn topological_order(edges: &[Vec<(usize, Span)>]) -> Vec<usize> {
    let mut waits_for: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut readers = vec![vec![]; edges.len()];
    for (stage, named) in edges.iter().enumerate() {
        named.iter().for_each(|&(target, _)| readers[target].push(stage));
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..edges.len()).filter(|&i| waits_for[i] == 0).map(Reverse).collect();
    let mut order = vec![];
    while let Some(Reverse(stage)) = ready.pop() {
        order.push(stage);
        for &reader in &readers[stage] {
            waits_for[reader] -= 1;
            if waits_for[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    order.extend((0..edges.len()).filter(|&i| waits_for[i] > 0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_topological_and_otherwise_that_of_the_file() {
        let span = Span { source: 0, start: 0, end: 0 };
        let edges = |lists: &[&[usize]]| -> Vec<Vec<(usize, Span)>> {
            lists.iter().map(|l| l.iter().map(|&t| (t, span)).collect()).collect()
        };
        assert_eq!(topological_order(&edges(&[&[], &[0], &[0], &[1, 2]])), [0, 1, 2, 3]);
        assert_eq!(topological_order(&edges(&[&[3], &[], &[1, 1], &[2]])), [1, 2, 3, 0]);
        assert_eq!(topological_order(&edges(&[&[], &[2], &[1], &[0]])), [0, 3, 1, 2]);
    }
}
