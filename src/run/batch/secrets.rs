//! Passes secrets to jobs: the passwords and signatures in the URLs of a run's downloads. They are not written to
//! files, but passed in the environment, which Slurm exports to jobs unless `--export` is set.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::config::StageParams;
use crate::plan::Plan;

/// The name of the environment variable that contains the secrets.
pub(in crate::run) const VARIABLE: &str = "SRPIPE_SECRET_URLS";

/// URLs by stage and by the index of the URL.
type Secrets = BTreeMap<String, BTreeMap<usize, String>>;

/// Returns the value of the variable; None if the plan has no secrets.
pub(super) fn to_variable(plan: &Plan) -> Option<String> {
    let secrets = plan.stages.iter().map(|stage| (stage.name.clone(), stage.params.secret_urls()));
    let secrets: Secrets = secrets.filter(|(_, urls)| !urls.is_empty()).collect();
    (!secrets.is_empty()).then(|| serde_json::to_string(&secrets).expect("addresses are strings"))
}

/// Restores the secrets in a stage's parameters that were read from a file, from the variable's `value`.
pub(super) fn restore(params: &mut StageParams, stage: &str, value: Option<&str>) -> Result<()> {
    if !params.has_redacted_urls() {
        return Ok(());
    }
    let secrets: Secrets = match value {
        Some(value) => serde_json::from_str(value).with_context(|| format!("reading {VARIABLE} as JSON"))?,
        None => Secrets::new(),
    };
    if let Some(urls) = secrets.get(stage) {
        params.restore_secret_urls(urls);
    }
    ensure!(
        !params.has_redacted_urls(),
        "a URL of stage {stage} has a password or a signature, which srpipe does not write to disk, and {VARIABLE} is \
         missing from this job's environment. Let the batch system export the environment to jobs (with Slurm, \
         `--export=ALL`), or download the file yourself and set `url: file:PATH`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    #[test]
    fn secrets_are_passed_in_the_environment_and_not_in_files() {
        let text = "name: p\ndevice: cpu\nstages:\n  c: {kind: fetch, dataset: cifar10, url: 'http://u:SECRET@h/a', \
                    mirrors: ['http://h/b', 'https://h/b?sig=SECRET'], sha256: \
                    0000000000000000000000000000000000000000000000000000000000000001}\n  \
                    s: {kind: fetch, dataset: synthetic}\n";
        let plan = plan(&crate::pipeline::parse("p.yaml", text, &Default::default()).unwrap());
        let written = serde_json::to_string(&plan).unwrap();
        assert!(!written.contains("SECRET"), "{written}");
        let value = to_variable(&plan).unwrap();
        let read: Plan = serde_json::from_str(&written).unwrap();
        for (stage, expected) in read.stages.iter().zip(&plan.stages) {
            let mut params = stage.params.clone();
            restore(&mut params, &stage.name, Some(&value)).unwrap();
            assert_eq!(params, expected.params);
        }
        let mut params = read.stages[0].params.clone();
        for lacking in [None, Some("{}"), Some("{\"c\":{\"0\":\"http://u:x@h/\"}}")] {
            let error = restore(&mut params, "c", lacking).unwrap_err().to_string();
            assert!(error.contains("--export=ALL"), "{error}");
        }
        assert_eq!(to_variable(&Plan { stages: read.stages[1..].to_vec() }), None);
    }
}
