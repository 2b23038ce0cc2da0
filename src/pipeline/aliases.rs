//! Older spellings of values in pipeline files. They are accepted, and hash to the same keys as the current ones.

/// The path of a parameter in its stage, and an older spelling of one of its values.
const VALUES: [(&str, &str); 3] =
    [("model.attention.kind", "seed"), ("model.attention.matches", "seed"), ("model.time_embedding", "seed")];

/// Whether `text` is an older spelling of a value of the parameter at `path`.
pub(super) fn is_older_spelling(path: &str, text: &str) -> bool {
    VALUES.contains(&(path, text))
}
