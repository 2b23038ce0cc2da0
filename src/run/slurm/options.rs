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

/// The minimum and maximum time between the signal to save and the time limit; in between, it is a fifth of the limit.
const WARNING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));

impl Defaults {
    /// Returns a stage's resources with defaults filled in. With `cuda`, a stage that runs a network gets one GPU if
    /// none is requested.
    pub(super) fn complete(&self, stage: &PlannedStage, cuda: bool) -> (Resources, Site) {
        let asked = (stage.resources, stage.site.clone());
        let of_kind = self.kinds.get(&stage.kind).cloned().unwrap_or_default();
        let (mut resources, site) = over(over(asked, of_kind), self.all.clone());
        if cuda && stage.params.runs_network() && resources.gpus.is_none() {
            resources.gpus = Some(1);
        }
        (resources, site)
    }
}

fn over(one: (Resources, Site), under: (Resources, Site)) -> (Resources, Site) {
    let ((a, mut site), (b, below)) = (one, under);
    let resources = Resources {
        cpus: a.cpus.or(b.cpus),
        memory: a.memory.or(b.memory),
        gpus: a.gpus.or(b.gpus),
        time: a.time.or(b.time),
    };
    site.partition = site.partition.or(below.partition);
    site.account = site.account.or(below.account);
    site.qos = site.qos.or(below.qos);
    site.constraint = site.constraint.or(below.constraint);
    // The last option counts, so the stage's own come last.
    site.extra.splice(0..0, below.extra);
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
        resources.time.map(|time| format!("--time={}", clock(time))),
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

/// `days-hours:minutes:seconds`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    format!("{days}-{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(resources: &str) -> (Resources, Site) {
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
        assert_eq!(options(&asked(all)).join(" "), expected);
        assert_eq!(options(&asked("{}")).join(" "), "--signal=B:USR2@60 --requeue --open-mode=append");
        assert_eq!(options(&asked("{gpus: 0, time: 1 min, memory: 1 MiB}"))[..2], ["--mem=1M", "--time=0-00:01:00"]);
        assert!(options(&asked("{time: 60 s}")).contains(&"--signal=B:USR2@12".to_string()));
        assert_eq!(clock(Duration::from_secs_f64(90_061.5)), "1-01:01:02");
    }

    #[test]
    fn a_stages_own_resources_override_the_defaults_of_its_kind() {
        let text = "name: p\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic}\n  \
                    pairs: {kind: degrade, input: images}\n  \
                    net: {kind: train, data: pairs, optim: {steps: 1}, resources: {cpus: 2, extra: [--nice=1]}}\n";
        let pipeline = crate::pipeline::parse("p.yaml", text, &Default::default()).unwrap();
        let plan = crate::plan::plan(&pipeline);
        let train = asked("{cpus: 4, time: 1 h, partition: gpu, extra: [--nice=2]}");
        let defaults = Defaults {
            all: asked("{account: lab, partition: cpu, time: 5 min}"),
            kinds: [(StageKind::Train, train)].into(),
        };
        let said = |stage: usize, cuda: bool| options(&defaults.complete(&plan.stages[stage], cuda)).join(" ");
        let tail = "--requeue --open-mode=append";
        assert_eq!(
            said(2, true),
            format!(
                "--cpus-per-task=2 --gres=gpu:1 --time=0-01:00:00 --partition=gpu --account=lab \
                 --signal=B:USR2@120 {tail} --nice=2 --nice=1"
            )
        );
        assert_eq!(said(1, true), format!("--time=0-00:05:00 --partition=cpu --account=lab --signal=B:USR2@60 {tail}"));
        assert!(!said(2, false).contains("gres"));
    }
}
