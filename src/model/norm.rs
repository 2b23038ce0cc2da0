//! The number of groups of a group normalisation.

/// Returns the number of groups for this many channels: their largest divisor up to 8.
pub(super) fn groups(channels: usize) -> usize {
    (1..=8).rev().find(|&g| channels.is_multiple_of(g)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_groups_divides_the_channels() {
        assert_eq!([2, 3, 8, 10, 12, 14, 48].map(groups), [2, 3, 8, 5, 6, 7, 8]);
    }
}
