//! The resolved pipeline as text: what a run keeps beside its results.

use super::resolve::Draft;

/// The whole pipeline as YAML that reads as the same pipeline: defaults filled in, `--set` applied.
pub(super) fn to_yaml(draft: &Draft) -> Result<String, serde_yaml::Error> {
    use serde_yaml::Value as Yaml;
    let mut stages = serde_yaml::Mapping::new();
    for stage in &draft.stages {
        let mut written = serde_yaml::Mapping::new();
        if let Some(kind) = stage.kind {
            written.insert("kind".into(), kind.name().into());
        }
        let mut params = stage.node.to_yaml();
        fill(&mut params, serde_yaml::to_value(&stage.params)?);
        written.extend(params.as_mapping().cloned().unwrap_or_default());
        stages.insert(stage.name.as_str().into(), written.into());
    }
    let mut root = serde_yaml::Mapping::new();
    root.insert("name".into(), draft.name.as_str().into());
    if let Some(description) = &draft.description {
        root.insert("description".into(), description.as_str().into());
    }
    root.insert("seed".into(), draft.seed.into());
    root.insert("device".into(), draft.device.to_string().into());
    root.insert("stages".into(), stages.into());
    serde_yaml::to_string(&Yaml::Mapping(root))
}

/// Adds what `typed` has and `written` has not: the defaults of the types.
fn fill(written: &mut serde_yaml::Value, typed: serde_yaml::Value) {
    if let (serde_yaml::Value::Mapping(written), serde_yaml::Value::Mapping(typed)) = (written, typed) {
        for (key, value) in typed {
            match written.get_mut(&key) {
                Some(inner) => fill(inner, value),
                None if value.is_null() => {}
                None => {
                    // Filled in as well, which leaves out what is null further in.
                    let mut own = if value.is_mapping() { serde_yaml::Mapping::new().into() } else { value.clone() };
                    fill(&mut own, value);
                    written.insert(key, own);
                }
            }
        }
    }
}
