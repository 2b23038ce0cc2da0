//! The `select` stage: passes on the model of the best arm of a comparison on validation images.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use super::{Context, Outcome, StageEvent, input};
use crate::comparison::{Summary, selection};
use crate::config::{EvaluationSplit, SelectParams, blobs};

/// Ranks the arms, and outputs the digests of the weights and losses of the best one.
///
/// The metrics of the outcome are the selected arm's value and the number of candidates.
pub(super) fn run(params: &SelectParams, ctx: &Context) -> anyhow::Result<Outcome> {
    let summary = Summary::from_json(&ctx.store.read(input(ctx, "from", blobs::SUMMARY)?)?)
        .with_context(|| format!("{} of stage `{}`", blobs::SUMMARY, params.from))?;
    ensure!(
        summary.split == EvaluationSplit::Validation,
        "stage `{}` compares {} images; select on validation images",
        params.from,
        summary.split
    );
    let candidates =
        selection::rank(&summary, params.by.deciding_metric()).with_context(|| format!("stage `{}`", params.from))?;
    let best = &candidates[0];
    let role = SelectParams::role(&best.arm);
    let text = format!("selected {}", selection::describe(&candidates));
    (ctx.report)(StageEvent::Message { text });
    let mut outcome = Outcome {
        outputs: BTreeMap::new(),
        metrics: BTreeMap::from([
            (params.by.to_string(), best.value),
            ("candidates".to_string(), candidates.len() as f64),
        ]),
    };
    for blob in [blobs::EMA, blobs::WEIGHTS, blobs::LOSS] {
        outcome.outputs.insert(blob.to_string(), input(ctx, &role, blob)?.clone());
    }
    outcome.outputs.insert(blobs::SELECTION.to_string(), ctx.store.put(&selection::to_csv(&candidates)?)?);
    Ok(outcome)
}
