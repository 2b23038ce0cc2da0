//! The best arm of a summary, and `selection.csv`.

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::measured::BICUBIC;
use super::summary::Summary;
use crate::config::metrics::{Better, Metric};

/// A candidate of a selection: a row of `selection.csv`, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// 1 for the selected arm.
    pub rank: usize,
    pub arm: String,
    /// The metric of the selection.
    pub metric: String,
    /// The split of the images.
    pub split: String,
    /// The mean over images and seeds.
    pub value: f64,
    /// The standard deviation over the seeds; absent with fewer than two.
    pub sd: Option<f64>,
    pub seeds: usize,
}

/// Ranks the arms of a comparison by a metric, best first; equal arms are in name order. Bicubic enlargement is not
/// ranked.
///
/// # Errors
/// Fails if an arm lacks the metric, or if there is no arm.
pub fn rank(summary: &Summary, metric: Metric) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates = vec![];
    for (name, arm) in summary.arms.iter().filter(|(name, _)| *name != BICUBIC) {
        let value = arm.figures.get(metric).with_context(|| format!("arm `{name}` has no `{metric}`"))?;
        candidates.push(Candidate {
            rank: 0,
            arm: name.clone(),
            metric: metric.to_string(),
            split: summary.split.to_string(),
            value,
            sd: arm.sd.as_ref().and_then(|sd| sd.get(metric)),
            seeds: arm.seeds.len().max(1),
        });
    }
    ensure!(!candidates.is_empty(), "the comparison has no arm to select");
    // The smallest cost is the best.
    let cost = |value: f64| match metric.declaration().better {
        Better::Higher => -value,
        Better::Lower => value,
        Better::One => (value - 1.0).abs(),
    };
    candidates.sort_by(|a, b| cost(a.value).total_cmp(&cost(b.value)));
    candidates.iter_mut().enumerate().for_each(|(index, candidate)| candidate.rank = index + 1);
    Ok(candidates)
}

/// Writes `selection.csv`.
pub fn to_csv(candidates: &[Candidate]) -> anyhow::Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(vec![]);
    for candidate in candidates {
        csv.serialize(candidate).context("writing the candidates as CSV")?;
    }
    csv.into_inner().context("writing the candidates as CSV")
}

/// Reads the output of [`to_csv`].
pub fn read_csv(bytes: &[u8]) -> anyhow::Result<Vec<Candidate>> {
    csv::Reader::from_reader(bytes)
        .deserialize()
        .collect::<Result<_, _>>()
        .context("reading the candidates of a selection")
}

/// Describes a selection in a sentence without a full stop, such as "a, the best of 3 by crps on the validation images:
/// 1.2; next: b, 1.3". Empty if there are no candidates.
pub fn describe(candidates: &[Candidate]) -> String {
    let [best, others @ ..] = candidates else { return String::new() };
    // One digit more than in tables, because the best candidates may be close.
    let decimals = best.metric.parse().map_or(4, |metric: Metric| metric.declaration().decimals + 1);
    let value = |candidate: &Candidate| match candidate.sd {
        Some(sd) => format!("{:.decimals$} ± {sd:.decimals$}", candidate.value),
        None => format!("{:.decimals$}", candidate.value),
    };
    let next = others.first().map(|next| format!("; next: {}, {}", next.arm, value(next))).unwrap_or_default();
    format!(
        "{}, the best of {} by {} on the {} images: {}{next}",
        best.arm,
        candidates.len(),
        best.metric,
        best.split,
        value(best)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::testing::{floors, measured, with_seeds};

    #[test]
    fn the_best_mean_is_first_in_the_direction_of_the_metric() {
        let summary = Summary::of(&measured(), floors());
        let of = |metric| rank(&summary, metric).unwrap();
        for metric in [Metric::PsnrMean, Metric::PsnrSample] {
            let ranked = of(metric);
            assert!(ranked.windows(2).all(|pair| pair[0].value >= pair[1].value), "{ranked:?}");
            assert!(ranked.iter().all(|candidate| candidate.arm != BICUBIC));
            assert_eq!(
                ranked.iter().map(|candidate| candidate.rank).collect::<Vec<_>>(),
                Vec::from_iter(1..=ranked.len())
            );
        }
        let error = rank(&Summary::of(&measured()[..1], floors()), Metric::PsnrMean).unwrap_err().to_string();
        assert_eq!(error, "the comparison has no arm to select");
    }

    #[test]
    fn candidates_survive_a_round_trip_through_csv() {
        let candidates = rank(&Summary::of(&with_seeds(), floors()), Metric::PsnrMean).unwrap();
        assert!(candidates.iter().any(|candidate| candidate.sd.is_some()));
        assert_eq!(read_csv(&to_csv(&candidates).unwrap()).unwrap(), candidates);
    }
}
