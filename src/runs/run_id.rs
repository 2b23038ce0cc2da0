//! The ids of runs.

use std::hash::{BuildHasher, Hasher, RandomState};

use jiff::Timestamp;

/// Creates a run id, such as `20261123-083227.123-k3xa`.
pub(super) fn new_run_id(now: Timestamp) -> String {
    // Random letters from std's randomly seeded hash.
    let mut bits = RandomState::new().build_hasher().finish();
    let letters = std::iter::repeat_with(|| {
        let letter = b'a' + (bits % 26) as u8;
        bits /= 26;
        char::from(letter)
    });
    format!("{}-{}", now.strftime("%Y%m%d-%H%M%S.%3f"), letters.take(4).collect::<String>())
}

/// Whether a name has the form of a run id.
pub fn is_run_id(name: &str) -> bool {
    let form = "dddddddd-dddddd.ddd-llll";
    let fits = |(c, form): (char, char)| match form {
        'd' => c.is_ascii_digit(),
        'l' => c.is_ascii_lowercase() || c.is_ascii_digit(),
        _ => c == form,
    };
    name.len() == form.len() && name.chars().zip(form.chars()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_have_a_fixed_form() {
        let id = |time: &str| new_run_id(time.parse().unwrap());
        let first = id("2026-11-23T08:32:27.123456Z");
        assert!(first.starts_with("20261123-083227.123-") && first.len() == 24, "{first}");
        assert!(first.bytes().rev().take(4).all(|b| b.is_ascii_lowercase()), "{first}");
        assert!(is_run_id(&first));
        let wrong = ["latest", "", "20261123-083227.123-K3XA", "20261123-083227.123-k3xab", "2026112x-083227.123-kxxa"];
        assert!(!wrong.into_iter().any(is_run_id));
        let ids = [first, id("2026-11-23T08:32:27.2Z"), id("2026-11-23T08:32:28Z"), id("2027-01-01T00:00:00Z")];
        assert!(ids.is_sorted());
        let distinct: std::collections::HashSet<_> = (0..50).map(|_| id("2026-11-23T08:32:27Z")).collect();
        assert!(distinct.len() > 40, "{}", distinct.len());
    }
}
