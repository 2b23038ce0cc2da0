//! Short names of arms for plots.

use std::collections::BTreeSet;

use super::text::is_shortened;

/// Returns shorter names that still distinguish the arms. Instances of a sweep are named by their values:
/// `unet[channels=16,schedule=cosine]` becomes "16, cosine", preceded by the stage name if there are several stages.
/// Names stay unchanged if two would become equal.
pub fn short(names: &[&str]) -> Vec<String> {
    let split = |name: &&str| -> Option<(String, String)> {
        let (stage, axes) = name.strip_suffix(']')?.split_once('[')?;
        let values: Option<Vec<&str>> = axes.split(',').map(|axis| Some(axis.split_once('=')?.1)).collect();
        Some((stage.to_string(), values?.join(", ")))
    };
    let parts: Vec<Option<(String, String)>> = names.iter().map(split).collect();
    let stages: BTreeSet<&String> = parts.iter().flatten().map(|(stage, _)| stage).collect();
    let short = |(name, parts): (&&str, &Option<(String, String)>)| match parts {
        Some((_, values)) if stages.len() == 1 => values.clone(),
        Some((stage, values)) => format!("{stage}: {values}"),
        None => name.to_string(),
    };
    let short: Vec<String> = names.iter().zip(&parts).map(short).collect();
    let distinct = |names: &mut dyn Iterator<Item = &str>| names.collect::<BTreeSet<&str>>().len();
    match distinct(&mut short.iter().map(String::as_str)) == distinct(&mut names.iter().copied()) {
        true => short,
        false => names.iter().map(|name| name.to_string()).collect(),
    }
}

/// Wraps the names with `wrap`, which also gets their index; shortens all of them if one would be truncated.
pub(super) fn wrapped(names: &[&str], wrap: impl Fn(usize, &str) -> Vec<String>) -> Vec<Vec<String>> {
    let whole: Vec<Vec<String>> = names.iter().enumerate().map(|(i, name)| wrap(i, name)).collect();
    match whole.iter().any(|lines| is_shortened(lines)) {
        true => short(names).iter().enumerate().map(|(i, name)| wrap(i, name)).collect(),
        false => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_distinguished_by_their_values() {
        assert_eq!(
            short(&["bicubic", "unet[c=16,s=linear]", "unet[c=32,s=linear]"]),
            ["bicubic", "16, linear", "32, linear"]
        );
        assert_eq!(short(&["a[c=1]", "b[c=1]", "b[c=2]"]), ["a: 1", "b: 1", "b: 2"]);
        assert_eq!(short(&["a[c=1]", "a[d=1]"]), ["a[c=1]", "a[d=1]"], "they would be one");
        assert_eq!(short(&["a[x]", "a]", "b"]), ["a[x]", "a]", "b"]);
        assert_eq!(short(&["a[c=1]", "a[c=1]"]), ["1", "1"], "columns of one arm");
    }

    #[test]
    fn names_that_fit_are_unchanged() {
        let wrap = |most: usize| {
            move |_: usize, name: &str| match name.len() > most {
                true => vec![format!("{}…", &name[..most])],
                false => vec![name.to_string()],
            }
        };
        let names = ["bicubic", "unet[c=16]"];
        assert_eq!(wrapped(&names, wrap(10)), [["bicubic"], ["unet[c=16]"]]);
        assert_eq!(wrapped(&names, wrap(9)), [["bicubic"], ["16"]]);
    }
}
