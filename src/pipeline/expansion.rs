//! What shells replace in paths, and pipeline files do not.

use std::path::Path;

/// What to say where a path does not exist that looks as if a shell should replace something in it; empty otherwise.
pub fn expansion_hint(path: impl AsRef<Path>) -> String {
    let path = path.as_ref().to_string_lossy();
    let variable = ["$HOME", "${", "$USER", "$PWD"].into_iter().find(|variable| path.contains(variable));
    match path.split('/').next() {
        Some(first) if first.starts_with('~') => {
            format!(". `{first}` is not expanded here: write the whole path of the home folder")
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
    fn only_what_a_shell_replaces_is_pointed_at() {
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
