//! Checks that the arms of a comparison can decide its claims.

use std::collections::BTreeSet;

use super::super::diagnostics::{Diagnostic, Errors};
use super::super::text::{alternatives, did_you_mean, quote, quote_whole};
use super::{RESERVED_ARM, Stage, Stages};
use crate::config::StageParams;
use crate::config::claims::Claim;
use crate::config::metrics::{Drawn, Metric, Scope};
use crate::config::names::name_error;
use crate::config::{Arm, ArmRun, CompareParams, LossKind, PredictionType};

/// The maximum number of claims per comparison: each claim is checked against all runs of its arms.
const MAX_CLAIMS: usize = 200;

pub(super) fn check_claims(stage: Stage, params: &CompareParams, stages: &Stages, errors: &mut Errors) {
    if params.claims.len() > MAX_CLAIMS {
        let message = format!("a comparison may have at most {MAX_CLAIMS} claims, found {}", params.claims.len());
        errors.push(Diagnostic::new(stage.span("claims"), message));
        return;
    }
    for (name, claim) in &params.claims {
        if let Some(help) = name_error(name) {
            let key = stage.spans(&format!("claims.{name}")).0;
            errors.push(Diagnostic::new(key, format!("{} is not a valid claim name", quote(name))).help(help));
            continue;
        }
        let checked = ClaimOf { stage, name, claim };
        let arms = [("arm", &claim.arm), ("control", &claim.control)]
            .map(|(role, arm)| checked.arm(role, arm, params, errors));
        let [Some(arm), Some(control)] = arms else { continue };
        if claim.arm == claim.control {
            let message = format!("claim {} compares {} with itself", quote(name), quote(&claim.arm));
            errors.push(Diagnostic::new(checked.field_span("control"), message));
            continue;
        }
        let Some(endpoint) = claim.endpoint(name) else {
            let key = stage.spans(&format!("claims.{name}")).0;
            let endpoints: Vec<String> = Metric::endpoints().map(|metric| metric.to_string()).collect();
            errors.push(
                Diagnostic::new(key, format!("claim {} needs an `endpoint`", quote(name)))
                    .help(format!("one of {}", alternatives(&endpoints))),
            );
            continue;
        };
        checked.pairs(arm, control, errors);
        checked.samples(endpoint, [arm, control], stages, errors);
        checked.noise(endpoint, [arm, control], stages, errors);
        if endpoint.is_of_training() {
            checked.trainings(endpoint, [arm, control], stages, errors);
        }
    }
}

/// Checks the control of the differences.
pub(super) fn check_control(stage: Stage, params: &CompareParams, errors: &mut Errors) {
    if let Some(control) = &params.control
        && control != RESERVED_ARM
        && !params.arms.contains_key(control)
    {
        let help = did_you_mean(control, params.arms.keys().map(String::as_str).chain([RESERVED_ARM]));
        let message = format!("`control` refers to {}, but there is no such arm", quote(control));
        errors.push(Diagnostic::new(stage.span("control"), message).maybe_help(help));
    }
}

struct ClaimOf<'a> {
    stage: Stage<'a>,
    name: &'a str,
    claim: &'a Claim,
}

/// An arm; None for bicubic interpolation.
type Side<'a> = Option<&'a Arm>;

impl ClaimOf<'_> {
    /// The span of a field, or of the claim's name if it is not set.
    fn field_span(&self, field: &str) -> super::Span {
        let path = format!("claims.{}.{field}", self.name);
        self.stage.set_span(&path).unwrap_or_else(|| self.stage.spans(&format!("claims.{}", self.name)).0)
    }

    fn arm<'p>(&self, role: &str, arm: &str, params: &'p CompareParams, errors: &mut Errors) -> Option<Side<'p>> {
        match params.arms.get(arm) {
            Some(found) => Some(Some(found)),
            None if arm == RESERVED_ARM => Some(None),
            None => {
                let names = params.arms.keys().map(String::as_str).chain([RESERVED_ARM]);
                // The names of swept arms contain axis values.
                let swept = params.arms.iter().find(|(name, found)| found.of == arm && *name != arm);
                let help = match swept {
                    Some((name, _)) => Some(format!(
                        "it is swept; choose one instance, such as {}",
                        quote_whole(&format!("\"{name}\""))
                    )),
                    None => did_you_mean(arm, names),
                };
                let message =
                    format!("`claims.{}.{role}` refers to {}, but there is no such arm", self.name, quote(arm));
                errors.push(Diagnostic::new(self.field_span(role), message).maybe_help(help));
                None
            }
        }
    }

    /// Checks that the two arms have seeds in common.
    fn pairs(&self, arm: Side, control: Side, errors: &mut Errors) {
        let (Some(arm), Some(control)) = (arm, control) else { return };
        let seeds = |arm: &Arm| -> BTreeSet<Option<String>> { arm.runs.iter().map(|run| run.seed.clone()).collect() };
        let (of_arm, of_control) = (seeds(arm), seeds(control));
        if !of_arm.is_disjoint(&of_control) {
            return;
        }
        let names = [&self.claim.arm, &self.claim.control].map(|name| quote(name));
        let is_swept = |seeds: &BTreeSet<Option<String>>| !seeds.contains(&None);
        let (message, help) = match (is_swept(&of_arm), is_swept(&of_control)) {
            (true, true) => (
                format!("arms {} and {} have no seed in common", names[0], names[1]),
                "claims are decided by differences between runs with the same seed; sweep the same seeds in both"
                    .to_string(),
            ),
            (arm, _) => {
                let [swept, single] = if arm { [0, 1] } else { [1, 0] }.map(|side| names[side].clone());
                (
                    format!("arm {swept} has several seeds, but arm {single} has one"),
                    format!(
                        "claims are decided by differences between runs with the same seed; sweep the seed of {single}, too"
                    ),
                )
            }
        };
        errors.push(Diagnostic::new(self.field_span("control"), message).help(help));
    }

    /// Checks that the endpoint can compare the arms' samples.
    fn samples(&self, endpoint: Metric, sides: [Side; 2], stages: &Stages, errors: &mut Errors) {
        let [Some(arm), Some(control)] = sides.map(|side| drawn(side, stages)) else { return };
        let Some(objection) = endpoint.deciding_metric().objection([arm, control]) else { return };
        let samples = |drawn: Drawn| match (drawn.is_random, drawn.samples) {
            (true, k) => format!("draws samples, K = {k}"),
            (false, 1) => "deterministic".to_string(),
            (false, k) => format!("deterministic, K = {k}"),
        };
        let message = format!(
            "`{endpoint}` cannot decide between {} ({}) and {} ({}): {}",
            quote(&self.claim.arm),
            samples(arm),
            quote(&self.claim.control),
            samples(control),
            objection.reason
        );
        errors.push(Diagnostic::new(self.endpoint_span(), message).help(objection.help));
    }

    /// For endpoints that measure all images together, checks that networks trained with different seeds are sampled with
    /// different noise, because the interval covers only the variation between runs.
    fn noise(&self, endpoint: Metric, sides: [Side; 2], stages: &Stages, errors: &mut Errors) {
        if endpoint.scope() != Scope::Distribution {
            return;
        }
        let names = [("arm", &self.claim.arm), ("control", &self.claim.control)];
        for ((role, name), side) in names.into_iter().zip(sides) {
            let Some(arm) = side.filter(|arm| drawn(Some(arm), stages).is_some_and(|drawn| drawn.is_random)) else {
                continue;
            };
            let seed = |run: &ArmRun| match stages.params(&run.stage) {
                Some(StageParams::Sample(sample)) => sample.seed,
                _ => None,
            };
            let trainings: BTreeSet<&[usize]> = arm.runs.iter().map(|run| run.trainings.as_slice()).collect();
            let mut seeds = arm.runs.iter().map(seed);
            let Some(first) = seeds.next().flatten().filter(|first| seeds.all(|seed| seed == Some(*first))) else {
                continue;
            };
            if trainings.len() > 1 {
                let message = format!(
                    "`{endpoint}` cannot decide claims about {}: all its models are sampled with the same noise, seed {first}",
                    quote(name)
                );
                errors.push(Diagnostic::new(self.field_span(role), message).help(
                    "remove `seed` from the `sample` stage, so that every model is sampled with the seed of its training",
                ));
            }
        }
    }

    /// The span of the endpoint, or of the arm if the endpoint is implied.
    fn endpoint_span(&self) -> super::Span {
        match self.claim.endpoint {
            Some(_) => self.field_span("endpoint"),
            None => self.field_span("arm"),
        }
    }

    /// Checks that both arms were trained, that they share no training run, and that their losses are comparable.
    fn trainings(&self, endpoint: Metric, sides: [Side; 2], stages: &Stages, errors: &mut Errors) {
        for (role, side) in ["arm", "control"].into_iter().zip(sides) {
            if side.is_none() {
                let message = format!("`{RESERVED_ARM}` is not trained and has no `{endpoint}`");
                errors.push(
                    Diagnostic::new(self.field_span(role), message).help("choose another endpoint, such as `crps`"),
                );
                return;
            }
        }
        let [Some(arm), Some(control)] = sides else { return };
        let same_seed = |a: &&ArmRun| control.runs.iter().find(|c| c.seed == a.seed);
        let pairs = arm.runs.iter().filter_map(|a| Some([a, same_seed(&a)?]));
        let objection = shared_training(arm, control, stages)
            .map(|shared| format!("both depend on {shared}, and it is measured in training"))
            .or_else(|| {
                let loss = pairs.into_iter().find_map(|pair| incomparable(pair, stages))?;
                Some(format!("{loss}, so their validation losses are not comparable"))
            });
        if let Some(objection) = objection {
            let names = [&self.claim.arm, &self.claim.control].map(|name| quote(name));
            let message = format!("`{endpoint}` cannot decide between {} and {}: {objection}", names[0], names[1]);
            errors.push(
                Diagnostic::new(self.endpoint_span(), message)
                    .help("choose an endpoint that measures images, such as `crps` or `psnr_mean`"),
            );
        }
    }
}

/// Describes a training run that both arms depend on. `None` if they share none.
fn shared_training(arm: &Arm, control: &Arm, stages: &Stages) -> Option<String> {
    let shares = |a: &ArmRun, c: &ArmRun| a.trainings.iter().any(|training| c.trainings.contains(training));
    let pairs = arm.runs.iter().flat_map(|a| control.runs.iter().map(move |c| (a, c)));
    let (a, c) = pairs.into_iter().find(|(a, c)| shares(a, c))?;
    let [of_arm, of_control] = [a, c].map(|run| train_stages(&run.stage, stages));
    Some(match of_arm.intersection(&of_control).next() {
        Some(stage) => format!("the training run of {}", quote(stage)),
        None => "the same training run".to_string(),
    })
}

/// Returns the `train` stages upstream of a stage.
fn train_stages<'a>(stage: &str, stages: &'a Stages) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut upstream = vec![stage.to_string()];
    let mut at = 0;
    while let Some(name) = upstream.get(at).cloned() {
        at += 1;
        let Some((name, instance)) = stages.by_name.get_key_value(name.as_str()) else { continue };
        if let StageParams::Train(_) = instance.typed.params {
            found.insert(*name);
        }
        for input in instance.typed.params.inputs() {
            if !upstream.contains(&input.stage) {
                upstream.push(input.stage);
            }
        }
    }
    found
}

/// Returns the reason why the validation losses of two runs are not comparable, if there is one.
pub(super) fn incomparable([arm, control]: [&ArmRun; 2], stages: &Stages) -> Option<String> {
    if arm.has_comparable_loss(control) {
        return None;
    }
    let kind = |run: &ArmRun| {
        let StageParams::Sample(sample) = stages.params(&run.stage)? else { return None };
        let (_, training) = *stages.models(&sample.model).first()?;
        Some(LossKind::new(&training.diffusion, training.validation.images, training.data.clone()))
    };
    if let [Some(arm), Some(control)] = [kind(arm), kind(control)] {
        return Some(format!("they differ in `{}`", arm.difference(&control)?));
    }
    let is_of_command = |run: &ArmRun| {
        let of_sample = match stages.params(&run.stage) {
            Some(StageParams::Sample(sample)) => stages.params(&sample.model),
            params => params,
        };
        matches!(of_sample, Some(StageParams::Command(_)))
    };
    let command = [arm, control].into_iter().find(|run| is_of_command(run))?;
    Some(format!("the losses of {} come from a command", quote(&command.stage)))
}

/// Returns the samples of an arm; `None` if they are unknown.
pub(super) fn drawn(side: Side, stages: &Stages) -> Option<Drawn> {
    let Some(arm) = side else { return Some(Drawn::BICUBIC) };
    let StageParams::Sample(sample) = stages.params(&arm.runs.first()?.stage)? else { return None };
    let objective = stages.models(&sample.model).first()?.1.diffusion.objective;
    // A regression model computes one sample, whatever the parameter is.
    let samples = if objective == PredictionType::Regression { 1 } else { sample.samples };
    Some(Drawn::new(samples, Some(objective)))
}
