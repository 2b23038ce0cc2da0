//! The parameters and metrics of runs, for `diff` and `runs`. Parameters are the leaves of the resolved pipeline, named
//! by their paths as in `--set`. They are read as plain YAML, so that runs of other versions can be compared too.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::Result;
use serde_yaml::Value as Yaml;

use crate::config::StageKind;
use crate::config::metrics::shown_name;
use crate::config::names::base;
use crate::pipeline::{older_path, rename_yaml_keys};
use crate::runs::RunDir;
use crate::runs::RunView;

/// The parameters and metrics of a run.
pub(super) struct RunValues {
    pub(super) view: RunView,
    /// Parameters by their path from the file's root.
    pub(super) params: BTreeMap<String, String>,
    /// Metrics by stage and name: `compare.psnr_mean.baseline`.
    pub(super) metrics: BTreeMap<String, f64>,
    /// The older names of parameters and metrics, by their current names.
    older_names: BTreeMap<String, String>,
}

impl RunValues {
    /// Reads the record and the resolved pipeline of a run.
    pub fn read(run: &RunDir) -> Result<Self> {
        let view = RunView::read(run)?;
        let yaml = run.resolved().ok().and_then(|text| serde_yaml::from_slice(&text).ok());
        let mut yaml: Yaml = yaml.unwrap_or_default();
        let mut params = BTreeMap::new();
        let mut older_names = BTreeMap::new();
        let kinds: BTreeMap<&str, StageKind> =
            view.record.stages.iter().map(|stage| (base(&stage.name), stage.kind)).collect();
        for (name, kind) in &kinds {
            if let Some(params) = yaml.get_mut("stages").and_then(|stages| stages.get_mut(name)) {
                rename_yaml_keys(*kind, params);
            }
        }
        collect_leaves(&yaml, String::new(), &mut params);
        ["name", "description"].iter().for_each(|key| drop(params.remove(*key)));
        let mut metrics = BTreeMap::new();
        for (name, kind) in &kinds {
            let prefix = format!("stages.{name}.");
            for path in params.range(prefix.clone()..).map_while(|(path, _)| path.strip_prefix(&prefix)) {
                if let Cow::Owned(older) = older_path(*kind, path) {
                    older_names.insert(format!("{prefix}{path}"), format!("{prefix}{older}"));
                }
            }
        }
        for stage in &view.record.stages {
            for (name, value) in &stage.metrics {
                let path = |name: &str| format!("{}.{name}", stage.name);
                let shown = if stage.kind == StageKind::Train { shown_name(name) } else { name };
                metrics.insert(path(shown), *value);
                if shown != name {
                    older_names.insert(path(shown), path(name));
                }
            }
        }
        Ok(Self { view, params, metrics, older_names })
    }

    /// Whether a parameter or metric has this name, its older name or a suffix of them.
    pub(super) fn is_named(&self, path: &str, name: &str) -> bool {
        let ends = |path: &str| path == name || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        ends(path) || self.older_names.get(path).is_some_and(|older| ends(older))
    }

    /// Returns the entries under their current names and, if they have one, their older name: programs may read either.
    pub(super) fn with_older_names<T: Clone>(&self, entries: &BTreeMap<String, T>) -> BTreeMap<String, T> {
        let older = entries.iter().filter_map(|(path, value)| Some((self.older_names.get(path)?, value)));
        older.chain(entries).map(|(path, value)| (path.clone(), value.clone())).collect()
    }
}

/// Collects the values that are not mappings, by their paths.
fn collect_leaves(yaml: &Yaml, path: String, found: &mut BTreeMap<String, String>) {
    match yaml {
        Yaml::Mapping(mapping) => {
            for (key, value) in mapping {
                let key = yaml_text(key);
                collect_leaves(value, if path.is_empty() { key } else { format!("{path}.{key}") }, found);
            }
        }
        Yaml::Null => {}
        _ => drop(found.insert(path, yaml_text(yaml))),
    }
}

/// Returns a value as text, in flow style.
fn yaml_text(yaml: &Yaml) -> String {
    match yaml {
        Yaml::Null => "null".to_string(),
        Yaml::Bool(b) => b.to_string(),
        Yaml::Number(n) => n.to_string(),
        Yaml::String(text) => text.clone(),
        Yaml::Sequence(items) => format!("[{}]", items.iter().map(yaml_text).collect::<Vec<_>>().join(", ")),
        Yaml::Mapping(mapping) => {
            let entries = mapping.iter().map(|(key, value)| format!("{}: {}", yaml_text(key), yaml_text(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Yaml::Tagged(tagged) => yaml_text(&tagged.value),
    }
}
