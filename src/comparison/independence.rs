//! Which runs count as independent, and what varies between them.

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

/// Describes what varies between several runs of an arm, such as `6 sampling seeds of one training`. `trainings` is the
/// number of independent training runs among them, if known.
pub(super) fn variation(runs: usize, trainings: Option<usize>) -> String {
    match trainings {
        None => format!("{runs} seeds"),
        Some(0) => format!("{runs} runs without training"),
        Some(1) => format!("{runs} sampling seeds of one training"),
        Some(trainings) if trainings < runs => format!("{runs} seeds of {trainings} trainings"),
        Some(_) => format!("{runs} trainings"),
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
    fn variation_describes_what_varies() {
        assert_eq!(variation(6, Some(6)), "6 trainings");
        assert_eq!(variation(6, Some(1)), "6 sampling seeds of one training");
        assert_eq!(variation(6, Some(2)), "6 seeds of 2 trainings");
        assert_eq!(variation(6, Some(0)), "6 runs without training");
        assert_eq!(variation(6, None), "6 seeds");
    }
}
