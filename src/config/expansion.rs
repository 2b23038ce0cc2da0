//! Hints about shell expansions, which pipeline files do not perform.

use std::path::Path;

/// Returns a hint for a path that does not exist and contains `~` or a variable that a shell would expand; empty
/// otherwise.
pub fn expansion_hint(path: impl AsRef<Path>) -> String {
    let path = path.as_ref().to_string_lossy();
    let variable = ["$HOME", "${", "$USER", "$PWD"].into_iter().find(|variable| path.contains(variable));
    match path.split('/').next() {
        Some(first) if first.starts_with('~') => {
            format!(". `{first}` is not expanded here: write the full path")
        }
        _ => variable.map_or(String::new(), |variable| {
            let variable = if variable == "${" { "${…}" } else { variable };
            format!(". `{variable}` is not expanded here: write its value")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shell_expansions_give_a_hint() {
        for (path, expected) in [
            ("~/pics", "`~` is not"),
            ("~ann/x", "`~ann` is not"),
            ("$HOME/x", "`$HOME` is"),
            ("a/${D}/x", "`${…}` is"),
        ] {
            assert!(expansion_hint(path).contains(expected), "{path}");
        }
        assert_eq!(["pics", "a~b", "a/~/b", "5$", ""].map(expansion_hint), [""; 5]);
    }
}
