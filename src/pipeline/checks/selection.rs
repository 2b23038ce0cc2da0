//! Checks the candidates of selections, and comparisons that contain selected models.

use super::super::diagnostics::{Diagnostic, Errors};
use super::super::text::quote;
use super::claims::{drawn, incomparable};
use super::{Stage, Stages};
use crate::config::metrics::Metric;
use crate::config::{Arm, CompareParams, EvaluationSplit, SampleParams, SelectParams, StageParams};

/// An arm to select from.
struct CandidateArm<'a> {
    name: &'a str,
    arm: &'a Arm,
    /// The parameters of its first `sample` stage.
    sample: &'a SampleParams,
}

pub(super) fn check_select(stage: Stage, params: &SelectParams, stages: &Stages, errors: &mut Errors) {
    let Some(StageParams::Compare(compare)) = stages.params(&params.from) else { return };
    let mut candidates: Vec<CandidateArm> = vec![];
    for (name, arm) in &compare.arms {
        let Some(run) = arm.runs.first() else { continue };
        let Some(StageParams::Sample(sample)) = stages.params(&run.stage) else {
            let message = format!("arm {} of {} has no model to select", quote(name), quote(&params.from));
            let help = "`select` passes on the model of a `train` stage, so every arm must be a `sample` stage";
            errors.push(Diagnostic::new(stage.span("from"), message).help(help));
            return;
        };
        if sample.split != EvaluationSplit::Validation {
            let message = format!(
                "{} compares {} images; images that a model is selected on cannot also show how good it is",
                quote(&params.from),
                sample.split
            );
            let mut error = Diagnostic::new(stage.span("from"), message)
                .help("set `split: validation` in the `sample` stages of the comparison");
            if let Some(sampled) = stages.stage(&run.stage) {
                error = error.related(sampled.key(), format!("samples {} images", sample.split));
            }
            errors.push(error);
            return;
        }
        if !params.candidates.contains_key(name) {
            let message = format!("arm {} of {} lacks a seed that other arms have", quote(name), quote(&params.from));
            let help = "sweep the same seeds in the `train` stages of all arms";
            errors.push(Diagnostic::new(stage.span("from"), message).help(help));
            return;
        }
        candidates.push(CandidateArm { name, arm, sample });
    }
    let Some((first, others)) = candidates.split_first() else { return };
    if params.by.is_convergence() {
        let message = format!("`{}` compares two arms, so it cannot select one of several", params.by);
        errors.push(Diagnostic::new(stage.span("by"), message).help("choose another metric, such as `crps`"));
        return;
    }
    for other in others {
        if let Some(error) = difference_in_sampling(stage, params, first, other).or_else(|| {
            let (reason, help) = objection(params.by, first, other, stages)?;
            let message = format!(
                "`{}` cannot select between {} and {}: {reason}",
                params.by,
                quote(first.name),
                quote(other.name)
            );
            Some(Diagnostic::new(stage.span("by"), message).help(help))
        }) {
            errors.push(error);
            return;
        }
    }
    let mut models: Vec<(&str, &str)> = vec![];
    for (arm, candidate) in &params.candidates {
        if let Some((other, _)) = models.iter().find(|(_, model)| *model == candidate.stage) {
            let message =
                format!("arms {} and {} sample the same model, {}", quote(other), quote(arm), quote(&candidate.stage));
            let help = "`select` selects between models; compare samplers with `compare` alone";
            errors.push(Diagnostic::new(stage.span("from"), message).help(help));
            return;
        }
        models.push((arm, &candidate.stage));
    }
}

/// Returns an error for the first sampling parameter in which two arms differ. A selection passes on models without
/// their samplers, so it must not depend on them.
fn difference_in_sampling(
    stage: Stage,
    params: &SelectParams,
    a: &CandidateArm,
    b: &CandidateArm,
) -> Option<Diagnostic> {
    let differs = [
        ("sampler", a.sample.sampler != b.sample.sampler),
        ("samples", a.sample.samples != b.sample.samples),
        ("weights", a.sample.weights != b.sample.weights),
    ];
    let (parameter, _) = differs.into_iter().find(|(_, differs)| *differs)?;
    let message =
        format!("arms {} and {} of {} differ in `{parameter}`", quote(a.name), quote(b.name), quote(&params.from));
    let help = "`select` selects between models; sample all of them in the same way";
    Some(Diagnostic::new(stage.span("from"), message).help(help))
}

/// Returns the reason why a metric cannot rank two arms, and what to do.
fn objection(by: Metric, a: &CandidateArm, b: &CandidateArm, stages: &Stages) -> Option<(String, &'static str)> {
    if by.is_of_training() {
        let runs = [a.arm.runs.first()?, b.arm.runs.first()?];
        let reason = format!("{}, so their validation losses are not comparable", incomparable(runs, stages)?);
        return Some((reason, "choose a metric that measures images, such as `crps`"));
    }
    let drawn = [drawn(Some(a.arm), stages)?, drawn(Some(b.arm), stages)?];
    by.deciding_metric().objection(drawn).map(|objection| (objection.reason.to_string(), objection.help))
}

/// Checks that all arms sample the same split, and that no claim is about a selected model.
pub(super) fn check_arms(stage: Stage, params: &CompareParams, errors: &mut Errors) {
    let runs = || params.arms.iter().flat_map(|(name, arm)| arm.runs.iter().map(move |run| (name, arm, run)));
    if let Some((first, _, of_first)) = runs().next()
        && let Some((other, arm, of_other)) = runs().find(|(.., run)| run.split != of_first.split)
    {
        let message = format!(
            "arms must have the same images, but {} samples {} images and {} samples {} images",
            quote(other),
            of_other.split,
            quote(first),
            of_first.split
        );
        errors.push(
            Diagnostic::new(stage.span(&format!("arms.{}", arm.of)), message)
                .help("set the same `split` in the `sample` stages of all arms"),
        );
    }
    for (name, claim) in &params.claims {
        let is_selected =
            |arm: &&String| params.arms.get(*arm).is_some_and(|arm| arm.runs.iter().any(|run| run.is_selected));
        if let Some(arm) = [&claim.arm, &claim.control].into_iter().find(is_selected) {
            let message = format!(
                "claim {} is about {}, whose model was selected by the results of the same training runs: the \
                 selection favours it, so a verdict would be wrong too often",
                quote(name),
                quote(arm)
            );
            errors.push(Diagnostic::new(stage.spans(&format!("claims.{name}")).0, message).help(
                "to test the selected parameters, train them as an arm of their own with seeds that the selection did \
                 not use",
            ));
        }
    }
}
