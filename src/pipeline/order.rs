//! Checks the references between stages and sorts the stages topologically.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use indexmap::IndexSet;

use super::diagnostics::{Diagnostic, Errors, Span};
use super::draft::StageDraft;
use super::references::{Reference, Wants};
use super::text::{did_you_mean, list, odd_character, quote};
use crate::config::{Blobs, StageKind, StageParams, blobs};

/// Checks every reference and sorts the stages topologically, otherwise in the order of the file.
pub(super) fn check_and_sort(stages: Vec<StageDraft>, errors: &mut Errors) -> Vec<StageDraft> {
    let index: HashMap<&str, usize> = stages.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
    // The existing targets of each stage's references.
    let mut edges: Vec<Vec<(usize, Span)>> = vec![];
    let outputs: Vec<OnceCell<Option<HashSet<&str>>>> = stages.iter().map(|_| OnceCell::new()).collect();
    for stage in &stages {
        let mut targets = vec![];
        let reads = OnceCell::new();
        for reference in &stage.references {
            match index.get(reference.target.as_str()) {
                Some(&target) => {
                    let produced = || outputs[target].get_or_init(|| self::outputs(&stages[target])).as_ref();
                    let read = |reference: &Reference| {
                        let all = reads.get_or_init(|| reads_of(stage));
                        all.get(&(reference.role.clone(), reference.target.clone())).cloned().unwrap_or_default()
                    };
                    check_target(stage, reference, &stages[target], (produced, read), &stages, errors);
                    targets.push((target, reference.span));
                }
                None if errors.is_full() => {}
                None => {
                    let candidates = stages.iter().filter(|s| is_candidate(&reference.wants, s));
                    let help = odd_character(&reference.target)
                        .or_else(|| did_you_mean(&reference.target, candidates.map(|s| s.name.as_str())))
                        .or_else(|| did_you_mean(&reference.target, stages.iter().map(|s| s.name.as_str())))
                        .or_else(|| match reference.wants {
                            Wants::Kinds(ref kinds) => only_one(&stages, kinds[0]),
                            Wants::Artifact | Wants::Blob(_) => None,
                        });
                    let target = quote(&reference.target);
                    let message = format!("`{}` refers to {target}, but there is no such stage", reference.role);
                    errors.push(Diagnostic::new(reference.span, message).maybe_help(help));
                }
            }
        }
        edges.push(targets);
    }
    report_cycles(&stages, &edges, errors);
    let order = topological_order(&edges);
    let mut stages: Vec<Option<StageDraft>> = stages.into_iter().map(Some).collect();
    order.into_iter().filter_map(|i| stages[i].take()).collect()
}

/// Whether a stage could be the intended target of a misspelled reference.
fn is_candidate(wants: &Wants, stage: &StageDraft) -> bool {
    match wants {
        Wants::Kinds(kinds) => stage.kind.is_some_and(|kind| kinds.contains(&kind)),
        Wants::Artifact | Wants::Blob(_) => true,
    }
}

/// Checks the kind and the outputs of a reference's target.
fn check_target<'a>(
    stage: &StageDraft,
    reference: &Reference,
    target: &StageDraft,
    // The outputs of the target, and the outputs that the stage reads.
    (produced, read): (impl FnOnce() -> Option<&'a HashSet<&'a str>>, impl FnOnce(&Reference) -> Vec<String>),
    stages: &[StageDraft],
    errors: &mut Errors,
) {
    match (&reference.wants, target.kind) {
        _ if errors.is_full() => {}
        // `select` passes on the weights of a `train` stage, so a command cannot replace its comparison.
        (Wants::Kinds(_), Some(StageKind::Command)) if stage.kind != Some(StageKind::Select) => {
            let Some(produced) = produced() else { return };
            check_blobs(stage, reference, target, produced, &read(reference), errors);
        }
        (Wants::Kinds(wanted), Some(kind)) if !wanted.contains(&kind) => {
            wrong_kind(reference, wanted, target, kind, stages, errors);
        }
        (Wants::Blob(blob), _) => {
            let Some(outputs) = produced() else { return };
            if !outputs.contains(blob.as_str()) {
                let mut outputs: Vec<&str> = outputs.iter().copied().collect();
                outputs.sort_unstable();
                let message = format!("stage {} has no output {}", quote(&target.name), quote(blob));
                let help = did_you_mean(blob, outputs.iter().copied());
                let help = help.unwrap_or_else(|| format!("its outputs: {}", list(&outputs)));
                errors.push(Diagnostic::new(reference.span, message).help(help));
            }
        }
        _ => {}
    }
}

/// Returns the outputs that all variants of a stage have in common; None if its parameters are invalid.
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
    produced: &HashSet<&str>,
    read: &[String],
    errors: &mut Errors,
) {
    // The losses of an arm are optional.
    let optional = |name: &str| stage.kind == Some(StageKind::Compare) && name == blobs::LOSS;
    let missing: Vec<&str> =
        read.iter().map(String::as_str).filter(|n| !produced.contains(n) && !optional(n)).collect();
    if !missing.is_empty() {
        let message = format!(
            "`{}` reads {}, which the command {} does not produce",
            reference.role,
            list(&missing),
            quote(&target.name)
        );
        errors.push(Diagnostic::new(reference.span, message).help("add them to the `outputs` of the command"));
    }
}

fn wrong_kind(
    reference: &Reference,
    wanted: &[StageKind],
    target: &StageDraft,
    kind: StageKind,
    stages: &[StageDraft],
    errors: &mut Errors,
) {
    let message = format!(
        "`{}` must refer to a {} stage, but {} is a {} stage",
        reference.role,
        wanted.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or "),
        quote(&target.name),
        kind.name()
    );
    let error = Diagnostic::new(reference.span, message).maybe_help(only_one(stages, wanted[0]));
    errors.push(error);
}

/// Suggests the stage of this kind, if there is only one.
fn only_one(stages: &[StageDraft], kind: StageKind) -> Option<String> {
    let mut candidates = stages.iter().filter(|s| s.kind == Some(kind));
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Some(format!("the only {} stage is {}", kind.name(), quote(&only.name))),
        (None, _) => Some(format!("the pipeline has no {} stage; add one", kind.name())),
        _ => None,
    }
}

/// Reports each cycle that a depth-first search in the order of the file finds, with its path. Iterative, because a
/// file may chain more stages than fit on the call stack.
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
        // The stages from the root to the current one, with the number of references followed so far.
        let mut path = vec![(root, 0)];
        while let Some((stage, followed)) = path.last_mut() {
            let Some(&(target, span)) = edges[*stage].get(*followed) else {
                states[*stage] = State::Done;
                path.pop();
                continue;
            };
            *followed += 1;
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
                        Diagnostic::new(span, message)
                            .help("this reference closes the cycle; refer to an earlier stage instead"),
                    );
                }
            }
        }
    }
}

/// Formats a cycle as `a → b → a`; the middle of a long one is elided.
fn cycle(stages: &[StageDraft], path: &[(usize, usize)]) -> String {
    let name = |&(stage, _): &(usize, usize)| quote(&stages[stage].name);
    let names = |part: &[(usize, usize)]| part.iter().map(name).collect::<Vec<_>>().join(" → ");
    let shown = match path.len() {
        0..12 => names(path),
        n => format!("{} → … → {}", names(&path[..6]), names(&path[n - 4..])),
    };
    shown + " → " + &path.first().map_or(String::new(), name)
}

/// Sorts topologically with Kahn's algorithm, always taking the earliest ready stage. Stages that depend on a cycle
/// come last.
fn topological_order(edges: &[Vec<(usize, Span)>]) -> Vec<usize> {
    let mut waits_for: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut readers = vec![vec![]; edges.len()];
    for (stage, targets) in edges.iter().enumerate() {
        targets.iter().for_each(|&(target, _)| readers[target].push(stage));
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
    fn stages_are_sorted_topologically_and_otherwise_keep_their_order() {
        let span = Span { source: 0, start: 0, end: 0 };
        let edges = |lists: &[&[usize]]| -> Vec<Vec<(usize, Span)>> {
            lists.iter().map(|l| l.iter().map(|&t| (t, span)).collect()).collect()
        };
        assert_eq!(topological_order(&edges(&[&[], &[0], &[0], &[1, 2]])), [0, 1, 2, 3]);
        assert_eq!(topological_order(&edges(&[&[3], &[], &[1, 1], &[2]])), [1, 2, 3, 0]);
        assert_eq!(topological_order(&edges(&[&[], &[2], &[1], &[0]])), [0, 3, 1, 2]);
    }
}
