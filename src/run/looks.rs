//! The answers to claims in earlier runs.

use crate::comparison::{ClaimAnswer, Summary, looks};
use crate::config::{StageKind, blobs};
use crate::plan::Preimage;
use crate::runs::{RunRecord, StudyLook};
use crate::store::{Key, Store};

/// The maximum number of looks in a record; the oldest are dropped.
const MAX_LOOKS: usize = 500;

/// Returns the looks before a new run of the pipeline: those recorded by its latest run, and those of that run.
pub(super) fn before(store: &Store, pipeline: &str) -> Vec<StudyLook> {
    let Some(record) = store.latest_run(pipeline).and_then(|run| run.record().ok()) else { return vec![] };
    let mut all = record.earlier_looks.clone();
    for look in of_run(store, &record) {
        if !all.contains(&look) {
            all.push(look);
        }
    }
    all.split_off(all.len().saturating_sub(MAX_LOOKS))
}

/// Returns the looks at the comparisons of a run.
fn of_run(store: &Store, record: &RunRecord) -> Vec<StudyLook> {
    let compared = record.stages.iter().filter(|stage| stage.kind == StageKind::Compare);
    compared
        .filter_map(|stage| Some((stage.name.as_str(), stage.key.as_ref()?)))
        .filter_map(|(name, key)| of_comparison(store, name, key))
        .flatten()
        .collect()
}

fn of_comparison(store: &Store, stage: &str, key: &Key) -> Option<Vec<StudyLook>> {
    let action = store.action(key).ok()??;
    let summary = store.read(action.outputs.get(blobs::SUMMARY)?).ok()?;
    let summary: Summary = serde_json::from_slice(&summary).ok()?;
    let inputs = Preimage::of(&action)?.inputs;
    Some(summary.claims.iter().filter_map(|answer: &ClaimAnswer| looks::look(stage, answer, &inputs)).collect())
}
