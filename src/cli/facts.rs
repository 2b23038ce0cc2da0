//! The parameters and metrics of runs, for `diff` and `runs`. Parameters are the leaves of the resolved pipeline, by
//! the paths of `--set`. They are read as plain YAML, so that runs of other versions can be compared too.

use std::collections::BTreeMap;

use serde_yaml::Value as Yaml;

use crate::runs::RunDir;
use crate::runs::RunView;

/// The parameters and metrics of a run.
pub struct Facts {
    pub view: RunView,
    /// Parameters by their path from the file's root.
    pub params: BTreeMap<String, String>,
    /// Metrics by stage and name: `compare.psnr_mean.baseline`.
    pub metrics: BTreeMap<String, f64>,
}

impl Facts {
    /// Returns None if the run cannot be read.
    pub fn of(run: &RunDir) -> Option<Self> {
        let view = RunView::of(run)?;
        let yaml = run.resolved().ok().and_then(|text| serde_yaml::from_slice(&text).ok()).unwrap_or(Yaml::Null);
        let mut params = BTreeMap::new();
        leaves(&yaml, String::new(), &mut params);
        ["name", "description"].iter().for_each(|key| drop(params.remove(*key)));
        let stages = view.record.stages.iter();
        let metrics = stages
            .flat_map(|stage| stage.metrics.iter().map(|(name, value)| (format!("{}.{name}", stage.name), *value)));
        let metrics = metrics.collect();
        Some(Self { view, params, metrics })
    }
}

fn leaves(yaml: &Yaml, path: String, found: &mut BTreeMap<String, String>) {
    match yaml {
        Yaml::Mapping(mapping) => {
            for (key, value) in mapping {
                let key = scalar(key);
                leaves(value, if path.is_empty() { key } else { format!("{path}.{key}") }, found);
            }
        }
        Yaml::Null => {}
        _ => drop(found.insert(path, scalar(yaml))),
    }
}

fn scalar(yaml: &Yaml) -> String {
    match yaml {
        Yaml::Null => "null".to_string(),
        Yaml::Bool(b) => b.to_string(),
        Yaml::Number(n) => n.to_string(),
        Yaml::String(text) => text.clone(),
        Yaml::Sequence(items) => format!("[{}]", items.iter().map(scalar).collect::<Vec<_>>().join(", ")),
        Yaml::Mapping(mapping) => {
            let entries = mapping.iter().map(|(key, value)| format!("{}: {}", scalar(key), scalar(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Yaml::Tagged(tagged) => scalar(&tagged.value),
    }
}
