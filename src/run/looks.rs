//! What comparisons of earlier runs showed.

use std::collections::HashSet;

use crate::comparison::{Summary, looks};
use crate::config::{StageKind, blobs};
use crate::plan::Preimage;
use crate::runs::{RunDir, RunRecord, StudyLook};
use crate::store::{Key, Store};

/// The maximum number of truncated digests in a record; beyond it, the oldest looks are dropped.
const MAX_DIGESTS: usize = 4_000;

/// The maximum number of pipelines whose latest run is read.
const MAX_PIPELINES: usize = 8;

/// Returns what comparisons of all pipelines showed before a new run, the oldest first.
///
/// Every run records what was shown before it, so it suffices to read the latest run of each of the pipelines that ran
/// most recently. On a loaded machine, finding them took 3 ms with 500 runs of one pipeline and 26 ms with 500 pipelines,
/// and reading a long record 2 ms.
pub(super) fn before(store: &Store) -> Vec<StudyLook> {
    let mut latest: Vec<RunDir> = store.pipelines().iter().filter_map(|pipeline| store.latest_run(pipeline)).collect();
    // Ids sort by time.
    latest.sort_by(|a, b| b.id().cmp(a.id()));
    let records = latest.iter().take(MAX_PIPELINES).filter_map(|run| run.record().ok());
    let mut all: Vec<StudyLook> =
        records.flat_map(|record| [of_run(store, &record), record.earlier_looks].concat()).collect();
    // Looks in records of older development versions have no arms.
    all.retain(|look| !look.arms.is_empty());
    all.sort_by(|a, b| a.run.cmp(&b.run));
    // A comparison that several runs show counts as that of the first one.
    let mut seen: HashSet<String> = HashSet::new();
    all.retain(|look| serde_json::to_string(&(&look.arms, &look.claims)).is_ok_and(|text| seen.insert(text)));
    truncate(all)
}

/// Drops the oldest looks if there are too many digests. Keeps at least the newest one.
fn truncate(looks: Vec<StudyLook>) -> Vec<StudyLook> {
    let size = |look: &StudyLook| -> usize { look.arms.values().map(|arm| arm.samples.len() + arm.losses.len()).sum() };
    let mut digests = 0;
    let mut newest: Vec<StudyLook> = vec![];
    for look in looks.into_iter().rev() {
        digests += size(&look);
        if digests > MAX_DIGESTS && !newest.is_empty() {
            break;
        }
        newest.push(look);
    }
    newest.reverse();
    newest
}

/// Returns what the comparisons of a run showed.
fn of_run(store: &Store, record: &RunRecord) -> Vec<StudyLook> {
    let compared = record.stages.iter().filter(|stage| stage.kind == StageKind::Compare);
    compared.filter_map(|stage| of_comparison(store, &record.id, stage.key.as_ref()?)).collect()
}

fn of_comparison(store: &Store, run: &str, key: &Key) -> Option<StudyLook> {
    let action = store.action(key).ok()??;
    let summary = store.read(action.outputs.get(blobs::SUMMARY)?).ok()?;
    let summary: Summary = serde_json::from_slice(&summary).ok()?;
    looks::look(run, &summary.claims, &Preimage::of(&action)?.inputs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runs::{ArmData, DataSet};
    use crate::store::Digest;

    fn of(run: usize, digests: usize) -> StudyLook {
        let mut samples = DataSet::default();
        (0..digests).for_each(|i| samples.insert(&Digest::of(format!("{run} {i}").as_bytes())));
        let data = ArmData { samples, losses: DataSet::default() };
        StudyLook { run: format!("{run}"), arms: BTreeMap::from([("a".to_string(), data)]), claims: vec![] }
    }

    #[test]
    fn the_oldest_looks_are_dropped() {
        let looks = [of(1, 10), of(2, MAX_DIGESTS - 10), of(3, 10)];
        assert_eq!(truncate(looks[..2].to_vec()), looks[..2]);
        assert_eq!(truncate(looks.to_vec()), looks[1..]);
        assert_eq!(truncate(vec![of(1, MAX_DIGESTS + 1)]).len(), 1);
    }
}
