//! The user's settings for all pipelines: `$XDG_CONFIG_HOME/srpipe/config.yaml`, by default
//! `~/.config/srpipe/config.yaml`.
//!
//! ```yaml
//! # A bucket, or a folder such as ~/cache. SRPIPE_REMOTE takes precedence; if it is empty, no cache is used.
//! remote: s3://bucket/prefix
//! executor: slurm                # unless the command line or the pipeline file sets it
//! slurm:
//!   grace: 60 s                  # the maximum delay until the file system shows a job's output
//!   timeout: 30 s                # the time limit of a Slurm command
//!   all: { account: lab }        # default `resources` of all stages,
//!   train: { partition: gpu, gpus: 1, time: 4 h }    # and of the stages of one kind
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::config::InputError;
use crate::config::{ExecutorKind, ResourceParams, StageKind, duration};
use crate::run::slurm;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    remote: Option<String>,
    executor: Option<ExecutorKind>,
    slurm: BTreeMap<String, serde_yaml::Value>,
}

/// Returns the address of the shared cache, if one is configured.
pub(super) fn remote() -> Result<Option<String>, InputError> {
    if let Some(address) = std::env::var_os("SRPIPE_REMOTE") {
        let address = address.into_string().map_err(|_| InputError("SRPIPE_REMOTE is not UTF-8".into()))?;
        return Ok(Some(expand_tilde(address, home())).filter(|address| !address.is_empty()));
    }
    Ok(settings()?.remote.map(|address| expand_tilde(address, home())))
}

/// Replaces a leading `~` with the home folder, as a shell would.
fn expand_tilde(path: String, home: Option<PathBuf>) -> String {
    let home = home.and_then(|home| home.into_os_string().into_string().ok());
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => home + rest,
        _ => path,
    }
}

fn home() -> Option<PathBuf> {
    path_in_variable("HOME")
}

/// Returns the path in an environment variable; None if it is unset or empty.
fn path_in_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns the default executor, if one is configured.
pub(super) fn executor() -> Result<Option<ExecutorKind>, InputError> {
    Ok(settings()?.executor)
}

/// Returns the settings for Slurm.
pub(super) fn slurm() -> Result<slurm::Settings, InputError> {
    parse_slurm(settings()?.slurm).map_err(|e| InputError(format!("{}: {e}", path().unwrap_or_default().display())))
}

/// Parses the settings for Slurm, by their names.
fn parse_slurm(entries: BTreeMap<String, serde_yaml::Value>) -> Result<slurm::Settings, String> {
    let mut settings = slurm::Settings::default();
    for (name, value) in entries {
        let kind = StageKind::ALL.into_iter().find(|kind| kind.name() == name);
        let time = match name.as_str() {
            "grace" => Some(&mut settings.grace),
            "timeout" => Some(&mut settings.timeout),
            "all" => None,
            _ if kind.is_some() => None,
            _ => {
                let problem = "unknown setting, expected `grace`, `timeout`, `all` or a kind of stage";
                return Err(format!("`slurm.{name}`: {problem}"));
            }
        };
        if let Some(time) = time {
            let parsed = value.as_str().and_then(duration);
            *time = parsed.ok_or_else(|| format!("`slurm.{name}` must be a time, such as `60 s`"))?;
            continue;
        }
        let resources: ResourceParams = serde_yaml::from_value(value).map_err(|e| format!("`slurm.{name}`: {e}"))?;
        let resources =
            resources.resolve().map_err(|(field, what)| format!("`slurm.{name}.{field}` must be {what}"))?;
        match kind {
            Some(kind) => drop(settings.defaults.kinds.insert(kind, resources)),
            None => settings.defaults.all = resources,
        }
    }
    Ok(settings)
}

/// Reads the user's settings, or the defaults if there is no file.
fn settings() -> Result<Settings, InputError> {
    let Some(path) = path() else { return Ok(Settings::default()) };
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Settings::default()),
        read => read.map_err(|e| InputError(format!("reading {}: {e}", path.display())))?,
    };
    parse(&text).map_err(|e| InputError(format!("{}: {e}", path.display())))
}

/// Returns the path of the file of settings; None without a home folder.
fn path() -> Option<PathBuf> {
    let folder = path_in_variable("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")))?;
    Some(folder.join("srpipe").join("config.yaml"))
}

fn parse(text: &str) -> Result<Settings, serde_yaml::Error> {
    if text.trim().is_empty() { Ok(Settings::default()) } else { serde_yaml::from_str(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_settings_are_refused() {
        assert_eq!(parse("remote: s3://a/b\n").unwrap().remote.as_deref(), Some("s3://a/b"));
        assert_eq!(parse(" \n").unwrap().remote, None);
        let error = parse("remot: x\n").unwrap_err().to_string();
        assert!(error.contains("unknown field `remot`, expected one of `remote`"), "{error}");
    }

    #[test]
    fn a_leading_tilde_expands_to_the_home_folder() {
        let expand = |path: &str| expand_tilde(path.into(), Some("/home/a".into()));
        assert_eq!(
            ["~/cache", "~", "a/~/b", "~user/x", "s3://a/~"].map(expand),
            ["/home/a/cache", "/home/a", "a/~/b", "~user/x", "s3://a/~",]
        );
        assert_eq!(expand_tilde("~/cache".into(), None), "~/cache");
    }

    #[test]
    fn settings_for_slurm_are_parsed() {
        let slurm = |text: &str| parse_slurm(parse(&format!("slurm: {text}")).unwrap().slurm);
        let settings = slurm("{grace: 5 s, all: {account: lab}, train: {gpus: 1, partition: gpu}}").unwrap();
        assert_eq!(settings.grace.as_secs(), 5);
        assert_eq!(settings.defaults.all.1.account.as_deref(), Some("lab"));
        assert_eq!(settings.defaults.kinds[&StageKind::Train].0.gpus, Some(1));
        for (wrong, expected) in [
            ("{grace: 5}", "`slurm.grace` must be a time"),
            ("{trian: {gpus: 1}}", "`slurm.trian`: unknown setting"),
            ("{grase: 60 s}", "`slurm.grase`: unknown setting"),
            ("{train: {gpu: 1}}", "`slurm.train`: unknown field `gpu`"),
            ("{all: {extra: [--arr=0-3]}}", "`slurm.all.extra` must be without"),
            ("{all: {extra: [--wrap=ls]}}", "`slurm.all.extra` must be without"),
        ] {
            let error = slurm(wrong).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
