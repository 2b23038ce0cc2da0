//! Which runs count as independent, and what varies between them.

use indexmap::IndexMap;

use super::measured::Measured;
use crate::store::Digest;

/// Groups items that share a training run, directly or through other items. Items without a training run are groups of
/// their own.
pub(super) fn group<T>(items: Vec<T>, trainings: impl Fn(&T) -> Vec<usize>) -> Vec<Vec<T>> {
    let mut groups: Vec<(Vec<usize>, Vec<T>)> = vec![];
    for item in items {
        let mut of_group = trainings(&item);
        let (shared, others): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(of_other, _)| of_other.iter().any(|training| of_group.contains(training)));
        groups = others;
        let mut members = vec![];
        for (of_other, items) in shared {
            of_group.extend(of_other);
            members.extend(items);
        }
        members.push(item);
        groups.push((of_group, members));
    }
    groups.into_iter().map(|(_, items)| items).collect()
}

/// Treats runs of an arm with identical samples as runs that share a training run, so that they count once: they are
/// copies, whatever the graph says. Returns a note for each group of copies that the graph does not show.
pub fn merge_copies(measured: &mut [Measured]) -> Vec<String> {
    let mut next = measured.iter().flat_map(|run| &run.trainings).max().map_or(0, |last| last + 1);
    let mut notes = vec![];
    for arm in measured.chunk_by_mut(|a, b| a.name == b.name) {
        let mut groups: IndexMap<Digest, Vec<usize>> = IndexMap::new();
        for (i, run) in arm.iter().enumerate() {
            if let Some(digest) = &run.samples_digest {
                groups.entry(digest.clone()).or_default().push(i);
            }
        }
        for runs in groups.values() {
            let (original, others) = (runs[0], &runs[1..]);
            let shares =
                |run: &usize| arm[*run].trainings.iter().any(|training| arm[original].trainings.contains(training));
            let copies: Vec<usize> = others.iter().copied().filter(|run| !shares(run)).collect();
            if copies.is_empty() {
                continue;
            }
            if arm[original].trainings.is_empty() {
                arm[original].trainings.push(next);
                next += 1;
            }
            for &copy in &copies {
                let shared = arm[original].trainings.clone();
                arm[copy].trainings.extend(shared);
                arm[copy].trainings.sort_unstable();
            }
            let seeds: Vec<&str> = copies.iter().filter_map(|copy| arm[*copy].seed.as_deref()).collect();
            notes.push(format!(
                "{}: the samples of {} {} are identical to those of seed {}, so these runs count once",
                arm[original].name,
                if seeds.len() == 1 { "seed" } else { "seeds" },
                seeds.join(", "),
                arm[original].seed.as_deref().unwrap_or_default(),
            ));
        }
    }
    notes
}

/// Describes what varies between several runs of an arm, such as `6 sampling seeds of one training run`. `trainings` is
/// the number of independent training runs among them, if known.
pub(super) fn variation(runs: usize, trainings: Option<usize>) -> String {
    match trainings {
        None => format!("{runs} seeds"),
        Some(0) => format!("{runs} runs without training"),
        Some(1) => format!("{runs} sampling seeds of one training run"),
        Some(trainings) if trainings < runs => format!("{runs} seeds of {trainings} training runs"),
        Some(_) => format!("{runs} training runs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_share_a_training_run_are_one_group() {
        let of = |items: &[&[usize]]| {
            let groups = group(items.to_vec(), |trainings| trainings.to_vec());
            groups.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(of(&[&[0], &[1], &[2]]), [1, 1, 1]);
        assert_eq!(of(&[&[], &[]]), [1, 1]);
        assert_eq!(of(&[&[0, 1], &[2], &[1]]), [1, 2]);
        // The last item connects the first two.
        assert_eq!(of(&[&[0], &[1], &[0, 1]]), [3]);
    }

    #[test]
    fn identical_samples_of_an_arm_count_once() {
        let run = |name: &str, seed: usize, samples: &str, trainings: &[usize]| Measured {
            seed: Some(seed.to_string()),
            samples_digest: Some(Digest::of(samples.as_bytes())),
            trainings: trainings.to_vec(),
            ..Measured::named(name)
        };
        let mut runs = vec![
            Measured::named("bicubic"),
            run("a", 0, "x", &[0]),
            run("a", 1, "y", &[1]),
            run("a", 2, "x", &[2]),
            run("a", 3, "y", &[3]),
            run("b", 0, "x", &[4]),
            // The graph already shows that samples of one training run count once.
            run("b", 1, "x", &[4]),
            run("c", 0, "z", &[]),
            run("c", 1, "z", &[]),
        ];
        let notes = merge_copies(&mut runs);
        let trainings: Vec<&[usize]> = runs.iter().map(|run| &run.trainings[..]).collect();
        assert_eq!(trainings, [&[][..], &[0], &[1], &[0, 2], &[1, 3], &[4], &[4], &[5], &[5]]);
        let note = |of: &str, copy, original| {
            format!(
                "{of}: the samples of seed {copy} are identical to those of seed {original}, so these runs count once"
            )
        };
        assert_eq!(notes, [note("a", 2, 0), note("a", 3, 1), note("c", 1, 0)]);
    }

    #[test]
    fn variation_describes_what_varies() {
        assert_eq!(variation(6, Some(6)), "6 training runs");
        assert_eq!(variation(6, Some(1)), "6 sampling seeds of one training run");
        assert_eq!(variation(6, Some(2)), "6 seeds of 2 training runs");
        assert_eq!(variation(6, Some(0)), "6 runs without training");
        assert_eq!(variation(6, None), "6 seeds");
    }
}
