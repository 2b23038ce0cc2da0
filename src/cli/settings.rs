//! The user's settings for all pipelines: `$XDG_CONFIG_HOME/srpipe/config.yaml`, by default
//! `~/.config/srpipe/config.yaml`.
//!
//! ```yaml
//! remote: s3://bucket/prefix     # or a folder, such as ~/cache; SRPIPE_REMOTE takes precedence, and an empty value means none
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
        return Ok(Some(in_home(address, home())).filter(|address| !address.is_empty()));
    }
    Ok(settings()?.remote.map(|address| in_home(address, home())))
}

/// Replaces a leading `~` with the home folder, as a shell would.
fn in_home(path: String, home: Option<PathBuf>) -> String {
    let home = home.and_then(|home| home.into_os_string().into_string().ok());
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => home + rest,
        _ => path,
    }
}

fn home() -> Option<PathBuf> {
    variable("HOME")
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns the default executor, if one is configured.
pub(super) fn executor() -> Result<Option<ExecutorKind>, InputError> {
    Ok(settings()?.executor)
}

/// Returns the settings for Slurm.
pub(super) fn slurm() -> Result<slurm::Settings, InputError> {
    of_slurm(settings()?.slurm).map_err(|e| InputError(format!("{}: {e}", path().unwrap_or_default().display())))
}

fn of_slurm(said: BTreeMap<String, serde_yaml::Value>) -> Result<slurm::Settings, String> {
    let mut settings = slurm::Settings::default();
    for (name, value) in said {
        let kind = StageKind::ALL.into_iter().find(|kind| kind.name() == name);
        let time = match name.as_str() {
            "grace" => Some(&mut settings.grace),
            "timeout" => Some(&mut settings.timeout),
            "all" => None,
            _ if kind.is_some() => None,
            _ => {
                let known = "unknown setting, expected `grace`, `timeout`, `all` or a kind of stage";
                return Err(format!("`slurm.{name}`: {known}"));
            }
        };
        if let Some(time) = time {
            let said = value.as_str().and_then(duration);
            *time = said.ok_or_else(|| format!("`slurm.{name}` must be a time, such as `60 s`"))?;
            continue;
        }
        let asked: ResourceParams = serde_yaml::from_value(value).map_err(|e| format!("`slurm.{name}`: {e}"))?;
        let asked = asked.resolve().map_err(|(field, what)| format!("`slurm.{name}.{field}` must be {what}"))?;
        match kind {
            Some(kind) => drop(settings.defaults.kinds.insert(kind, asked)),
            None => settings.defaults.all = asked,
        }
    }
    Ok(settings)
}

fn settings() -> Result<Settings, InputError> {
    let Some(path) = path() else { return Ok(Settings::default()) };
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Settings::default()),
        read => read.map_err(|e| InputError(format!("reading {}: {e}", path.display())))?,
    };
    read(&text).map_err(|e| InputError(format!("{}: {e}", path.display())))
}

fn path() -> Option<PathBuf> {
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")))?;
    Some(folder.join("srpipe").join("config.yaml"))
}

fn read(text: &str) -> Result<Settings, serde_yaml::Error> {
    if text.trim().is_empty() { Ok(Settings::default()) } else { serde_yaml::from_str(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_settings_are_refused() {
        assert_eq!(read("remote: s3://a/b\n").unwrap().remote.as_deref(), Some("s3://a/b"));
        assert_eq!(read(" \n").unwrap().remote, None);
        let error = read("remot: x\n").unwrap_err().to_string();
        assert!(error.contains("unknown field `remot`, expected one of `remote`"), "{error}");
    }

    #[test]
    fn a_leading_tilde_expands_to_the_home_folder() {
        let of = |path: &str| in_home(path.into(), Some("/home/a".into()));
        assert_eq!(
            ["~/cache", "~", "a/~/b", "~user/x", "s3://a/~"].map(of),
            ["/home/a/cache", "/home/a", "a/~/b", "~user/x", "s3://a/~",]
        );
        assert_eq!(in_home("~/cache".into(), None), "~/cache");
    }

    #[test]
    fn settings_for_slurm_are_parsed() {
        let slurm = |text: &str| of_slurm(read(&format!("slurm: {text}")).unwrap().slurm);
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
