//! The paired differences between an arm and its control.

use super::convergence::{Convergence, Effort, reached};
use super::independence;
use super::measured::{BICUBIC, Measured};
use crate::config::metrics::{Metric, Unit};

pub(super) type Pair<'a> = (&'a Measured, &'a Measured);

/// Pairs that share training runs, directly or through other pairs, and none with pairs outside. They count as one
/// observation, however many there are.
pub(super) type Replicate<'a> = Vec<Pair<'a>>;

/// Pairs the seeds that both arms have. Bicubic enlargement is deterministic and pairs with every seed.
pub(super) fn pairs<'a>(arm: &str, control: &str, measured: &'a [Measured]) -> Vec<Pair<'a>> {
    let of = |name: &str| measured.iter().filter(|m| m.name == name).collect::<Vec<_>>();
    let (arms, controls) = (of(arm), of(control));
    let is_pair = |a: &Measured, b: &Measured| a.seed == b.seed || [a, b].iter().any(|m| m.name == BICUBIC);
    let with = |a: &'a Measured| controls.iter().filter(move |c| is_pair(a, c)).map(move |c| (a, *c));
    arms.into_iter().flat_map(with).collect()
}

/// Groups the pairs into replicates.
pub(super) fn replicates(pairs: Vec<Pair>) -> Vec<Replicate> {
    independence::group(pairs, |(arm, control)| [&arm.trainings[..], &control.trainings].concat())
}

/// Returns the differences in the endpoint's unit: one row per replicate (the mean of its pairs), one column per image;
/// positive if the arm is better. `None` if a value is missing, not finite, or not comparable.
pub(super) fn differences(endpoint: Metric, replicates: &[Replicate]) -> Option<Vec<Vec<f64>>> {
    let mut values: Vec<Vec<[Vec<f64>; 2]>> = vec![];
    for replicate in replicates {
        values.push(replicate.iter().map(|pair| values_of_pair(endpoint, pair)).collect::<Option<_>>()?);
    }
    let all = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let of_controls = |pairs: &Vec<[Vec<f64>; 2]>| all(&pairs.iter().map(|[_, c]| all(c)).collect::<Vec<_>>());
    let unit = match endpoint.unit() {
        Unit::Percent => 100.0 / all(&values.iter().map(of_controls).collect::<Vec<_>>()),
        Unit::Decibel | Unit::One => 1.0,
    };
    let sign = if endpoint.is_higher_better() { unit } else { -unit };
    let row = |pairs: &Vec<[Vec<f64>; 2]>| -> Vec<f64> {
        let difference = |column: usize| all(&pairs.iter().map(|[a, c]| a[column] - c[column]).collect::<Vec<_>>());
        (0..pairs[0][0].len()).map(|column| sign * difference(column)).collect()
    };
    let rows: Vec<Vec<f64>> = values.iter().map(row).collect();
    rows.iter().all(|row| !row.is_empty() && row.iter().all(|d| d.is_finite())).then_some(rows)
}

/// Returns the reason why the endpoint cannot compare an arm with its control, if there is one.
pub(super) fn objection(endpoint: Metric, (arm, control): &Pair) -> Option<String> {
    if endpoint.is_of_training() {
        return objection_to_losses(arm, control)
            .map(|reason| format!("{endpoint} is measured in training, and {reason}"));
    }
    let metric = endpoint.deciding_metric();
    let Some(objection) = metric.objection([arm.drawn(), control.drawn()]) else {
        return objection_to_values(metric, arm, control);
    };
    let is_assumed = [arm, control].iter().any(|of| of.name != BICUBIC && of.diffusion.is_none());
    let assumed = match is_assumed {
        true => {
            ". The outputs of a command count as random draws, unless the metadata of its samples.safetensors has \
             `diffusion` with the value `{\"objective\": \"regression\"}`"
        }
        false => "",
    };
    Some(format!("{endpoint} cannot compare these arms: {}{assumed}", objection.reason))
}

/// Returns the reason why the values of two arms show nothing about their difference, if there is one.
fn objection_to_values(metric: Metric, arm: &Measured, control: &Measured) -> Option<String> {
    let heading = metric.declaration().heading;
    let values = [arm, control].map(|of| (of.name.as_str(), of.values(metric)));
    match &values {
        [(_, Some(a)), (_, Some(b))] => {
            // Estimates for infinitely many samples can be equal although the samples differ.
            let is_shared = metric != Metric::PsnrMeanLimit && !a.is_empty() && a == b;
            is_shared.then(|| {
                format!("{heading} has identical values for both arms, so it cannot show a difference between them")
            })
        }
        [(name, None), _] | [_, (name, None)] if metric == Metric::PsnrMeanLimit => Some(format!(
            "the error of the mean of infinitely many samples of {name} is too small to be estimated from its samples; \
             draw more samples per image"
        )),
        [(name, None), _] | [_, (name, None)] => Some(format!("{name} has no value of {heading}")),
    }
}

/// Returns the reason why the losses of two arms cannot be compared, if there is one.
fn objection_to_losses(arm: &Measured, control: &Measured) -> Option<&'static str> {
    if arm.trainings.iter().any(|training| control.trainings.contains(training)) {
        return Some("both arms depend on the same training run");
    }
    if arm.loss_digest.is_some() && arm.loss_digest == control.loss_digest {
        return Some("both arms have the same loss.csv");
    }
    // If both kinds are unknown, only the parameters in the metadata of the samples can be compared.
    let is_comparable = match (arm.loss_kind, control.loss_kind) {
        (None, None) => arm.diffusion == control.diffusion,
        (arm, control) => arm == control,
    };
    (!is_comparable).then_some(
        "the losses of the arms are not comparable, because the arms differ in data, validation images or diffusion \
         parameters, or only one loss comes from a command",
    )
}

/// Returns the endpoint of the arm and of its control, for the same number of images.
fn values_of_pair(endpoint: Metric, &(arm, control): &Pair) -> Option<[Vec<f64>; 2]> {
    if objection(endpoint, &(arm, control)).is_some() {
        return None;
    }
    if endpoint.is_convergence() {
        let Convergence { arm, control, .. } = reached(arm, control)?;
        let effort = |e: Effort| if endpoint == Metric::StepsToLoss { Some(e.steps) } else { e.flops };
        return Some([vec![effort(arm)?], vec![effort(control)?]]);
    }
    Some([arm.values(endpoint.deciding_metric())?, control.values(endpoint.deciding_metric())?])
}
