//! Translates a stage's resources into options of `sbatch`. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Resources, Site, StageKind};
use crate::plan::PlannedStage;

/// Default resources: of all stages, and of each kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defaults {
    pub all: (Resources, Site),
    pub kinds: BTreeMap<StageKind, (Resources, Site)>,
}

/// The minimum and maximum time between the signal to save and the time limit. Within these bounds, it is a fifth of
/// the limit.
const WARNING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));

impl Defaults {
    /// Returns a stage's resources with defaults filled in. With `cuda`, a stage that runs a network gets one GPU if
    /// none is requested.
    pub(super) fn complete(&self, stage: &PlannedStage, cuda: bool) -> (Resources, Site) {
        let requested = (stage.resources, stage.site.clone());
        let of_kind = self.kinds.get(&stage.kind).cloned().unwrap_or_default();
        let (mut resources, site) = merge(merge(requested, of_kind), self.all.clone());
        if cuda && stage.params.runs_network() && resources.gpus.is_none() {
            resources.gpus = Some(1);
        }
        (resources, site)
    }
}

/// Fills in the resources that are not set with `defaults`.
fn merge(set: (Resources, Site), defaults: (Resources, Site)) -> (Resources, Site) {
    let ((a, mut site), (b, default_site)) = (set, defaults);
    let resources = Resources {
        cpus: a.cpus.or(b.cpus),
        memory: a.memory.or(b.memory),
        gpus: a.gpus.or(b.gpus),
        time: a.time.or(b.time),
    };
    site.partition = site.partition.or(default_site.partition);
    site.account = site.account.or(default_site.account);
    site.qos = site.qos.or(default_site.qos);
    site.constraint = site.constraint.or(default_site.constraint);
    // The last of several equal options counts, so the stage's own options come last.
    site.extra.splice(0..0, default_site.extra);
    (resources, site)
}

/// Returns the options of `sbatch` for these resources.
pub(super) fn options((resources, site): &(Resources, Site)) -> Vec<String> {
    let warning = resources.time.map_or(Duration::from_secs(60), |time| (time / 5).clamp(WARNING.0, WARNING.1));
    let texts = [("partition", &site.partition), ("account", &site.account), ("qos", &site.qos)];
    let texts = texts.into_iter().chain([("constraint", &site.constraint)]);
    let mut options: Vec<String> = [
        resources.cpus.map(|cpus| format!("--cpus-per-task={cpus}")),
        // For Slurm, M is MiB.
        resources.memory.map(|bytes| format!("--mem={}M", bytes.div_ceil(1 << 20))),
        resources.gpus.filter(|&gpus| gpus > 0).map(|gpus| format!("--gres=gpu:{gpus}")),
        resources.time.map(|time| format!("--time={}", slurm_duration(time))),
    ]
    .into_iter()
    .flatten()
    .collect();
    options.extend(texts.filter_map(|(name, text)| Some(format!("--{name}={}", text.as_ref()?))));
    options.push(format!("--signal=B:USR2@{}", warning.as_secs()));
    // A job that is requeued after a node failure or preemption appends to its output.
    options.extend(["--requeue".to_string(), "--open-mode=append".to_string()]);
    options.extend(site.extra.iter().cloned());
    options
}

/// Formats a duration for Slurm as `days-hours:minutes:seconds`, rounded up.
fn slurm_duration(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    format!("{days}-{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(resources: &str) -> (Resources, Site) {
        let params: crate::config::ResourceParams = serde_yaml::from_str(resources).unwrap();
        params.resolve().unwrap()
    }

    #[test]
    fn every_resource_has_its_option() {
        let all = "{cpus: 8, memory: 16 GB, gpus: 2, time: 90 min, partition: gpu, account: lab, qos: high, \
                   constraint: 'a100|h100', extra: [--exclude=n7, '--mail-type=END']}";
        let expected = "--cpus-per-task=8 --mem=15259M --gres=gpu:2 --time=0-01:30:00 --partition=gpu --account=lab \
                        --qos=high --constraint=a100|h100 --signal=B:USR2@120 --requeue --open-mode=append \
                        --exclude=n7 --mail-type=END";
        assert_eq!(options(&parse(all)).join(" "), expected);
        assert_eq!(options(&parse("{}")).join(" "), "--signal=B:USR2@60 --requeue --open-mode=append");
        assert_eq!(options(&parse("{gpus: 0, time: 1 min, memory: 1 MiB}"))[..2], ["--mem=1M", "--time=0-00:01:00"]);
        assert!(options(&parse("{time: 60 s}")).contains(&"--signal=B:USR2@12".to_string()));
        assert_eq!(slurm_duration(Duration::from_secs_f64(90_061.5)), "1-01:01:02");
    }

    #[test]
    fn a_stages_own_resources_override_the_defaults_of_its_kind() {
        let text = "name: p\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic}\n  \
                    pairs: {kind: degrade, input: images}\n  \
                    net: {kind: train, data: pairs, optim: {steps: 1}, resources: {cpus: 2, extra: [--nice=1]}}\n";
        let pipeline = crate::pipeline::parse("p.yaml", text, &Default::default()).unwrap();
        let plan = crate::plan::plan(&pipeline);
        let train = parse("{cpus: 4, time: 1 h, partition: gpu, extra: [--nice=2]}");
        let defaults = Defaults {
            all: parse("{account: lab, partition: cpu, time: 5 min}"),
            kinds: [(StageKind::Train, train)].into(),
        };
        let options_of = |stage: usize, cuda: bool| options(&defaults.complete(&plan.stages[stage], cuda)).join(" ");
        let tail = "--requeue --open-mode=append";
        assert_eq!(
            options_of(2, true),
            format!(
                "--cpus-per-task=2 --gres=gpu:1 --time=0-01:00:00 --partition=gpu --account=lab \
                 --signal=B:USR2@120 {tail} --nice=2 --nice=1"
            )
        );
        assert_eq!(
            options_of(1, true),
            format!("--time=0-00:05:00 --partition=cpu --account=lab --signal=B:USR2@60 {tail}")
        );
        assert!(!options_of(2, false).contains("gres"));
    }
}
