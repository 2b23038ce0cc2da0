//! What the user has set for all pipelines: `$XDG_CONFIG_HOME/srpipe/config.yaml`, where that variable is not set
//! `~/.config/srpipe/config.yaml`.
//!
//! ```yaml
//! remote: s3://bucket/prefix     # or a folder; SRPIPE_REMOTE goes before it, and empty means none
//! ```

use std::path::PathBuf;

use serde::Deserialize;

use crate::run::InputError;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    remote: Option<String>,
}

/// The cache that results are taken from.
pub fn remote() -> Result<Option<String>, InputError> {
    if let Some(address) = std::env::var_os("SRPIPE_REMOTE") {
        let address = address.into_string().map_err(|_| InputError("SRPIPE_REMOTE is not UTF-8".into()))?;
        return Ok(Some(address).filter(|address| !address.is_empty()));
    }
    let Some(path) = path() else { return Ok(None) };
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| InputError(format!("reading {}: {e}", path.display())))?,
    };
    read(&text).map(|settings| settings.remote).map_err(|e| InputError(format!("{}: {e}", path.display())))
}

fn path() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(folder.join("srpipe").join("config.yaml"))
}

fn read(text: &str) -> Result<Settings, serde_yaml::Error> {
    if text.trim().is_empty() { Ok(Settings::default()) } else { serde_yaml::from_str(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_few() {
        assert_eq!(read("remote: s3://a/b\n").unwrap().remote.as_deref(), Some("s3://a/b"));
        assert_eq!(read(" \n").unwrap().remote, None);
        let error = read("remot: x\n").unwrap_err().to_string();
        assert!(error.contains("unknown field `remot`, expected `remote`"), "{error}");
    }
}
