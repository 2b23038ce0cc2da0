//! The parameters of the arms of a comparison: those that differ and those in common.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One arm with its parameters and costs.
#[derive(Debug, Clone, Default)]
pub struct Arm {
    pub name: String,
    /// By path, starting with the stage kind: `train.model.base_channels`.
    pub params: BTreeMap<String, String>,
    /// Costs such as parameters and seconds, in column order; `None` for stages that did not run.
    pub costs: Vec<(&'static str, String)>,
}

/// A table with a column for each parameter that differs, and a list of the parameters in common.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Differences {
    /// Short names and full paths.
    columns: Vec<(String, String)>,
    costs: Vec<&'static str>,
    rows: Vec<Row>,
    common: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    cells: Vec<String>,
    costs: Vec<String>,
}

/// Shown for a parameter that an arm does not have.
const NONE: &str = "–";

impl Differences {
    pub(super) fn of(arms: &[Arm]) -> Self {
        let paths: BTreeSet<&String> = arms.iter().flat_map(|arm| arm.params.keys()).collect();
        let differs = |path: &String| arms.iter().any(|arm| arm.params.get(path) != arms[0].params.get(path));
        let (differing, common): (Vec<&String>, Vec<&String>) = paths.into_iter().partition(|path| differs(path));
        let mut costs: Vec<&'static str> = vec![];
        for (name, _) in arms.iter().flat_map(|arm| &arm.costs) {
            if !costs.contains(name) {
                costs.push(name);
            }
        }
        let row = |arm: &Arm| Row {
            name: arm.name.clone(),
            cells: differing
                .iter()
                .map(|path| arm.params.get(*path).map_or(NONE, String::as_str).to_string())
                .collect(),
            costs: costs
                .iter()
                .map(|cost| arm.costs.iter().find(|(name, _)| name == cost).map_or(NONE.to_string(), |c| c.1.clone()))
                .collect(),
        };
        Self {
            rows: arms.iter().map(row).collect(),
            columns: differing.iter().map(|path| (short(path, &differing), path.to_string())).collect(),
            common: common.into_iter().map(|path| (path.clone(), arms[0].params[path].clone())).collect(),
            costs,
        }
    }
}

/// Returns the shortest end of a path that is unique among the others, as a column heading.
fn short(path: &str, all: &[&String]) -> String {
    let ends = path.match_indices('.').map(|(dot, _)| &path[dot + 1..]).collect::<Vec<_>>();
    let is_its = |end: &&&str| all.iter().filter(|other| other.ends_with(&format!(".{end}"))).count() == 1;
    // `kind` alone is ambiguous.
    let names_something = |end: &&&str| end.contains('.') || !["kind", "method", "steps"].contains(*end);
    ends.iter().rev().filter(names_something).find(is_its).map_or(path, |end| end).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_parameters_that_differ() {
        let arm = |name: &str, params: &[(&str, &str)]| Arm {
            name: name.into(),
            params: params.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect(),
            costs: vec![("parameters", "7".into())],
        };
        let differences = Differences::of(&[
            arm("a", &[("train.optim.lr", "1"), ("train.model.attention.kind", "none"), ("train.optim.steps", "5")]),
            arm("b", &[("train.optim.lr", "2"), ("train.model.attention.kind", "mhsa"), ("train.optim.steps", "5")]),
            arm("c", &[("train.optim.lr", "2"), ("train.optim.steps", "5")]),
        ]);
        let names: Vec<&str> = differences.columns.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["attention.kind", "lr"]);
        assert_eq!(differences.rows[2].cells, [NONE, "2"]);
        assert_eq!(differences.common, [("train.optim.steps".to_string(), "5".to_string())]);
        assert_eq!(differences.costs, ["parameters"]);
        assert_eq!(Differences::of(&[]), Differences::default());
    }
}
