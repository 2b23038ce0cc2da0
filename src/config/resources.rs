//! The resources and retries of stages of any kind. They do not change results.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters that stages of every kind have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CommonParams {
    /// The resources that the stage needs.
    pub resources: ResourceParams,
    /// How often the stage is retried after a failure: one number for all causes, or one for each.
    pub retry: Option<RetryParams>,
}

impl CommonParams {
    pub const NAMES: [&str; 2] = ["resources", "retry"];
}

/// The resources that a stage needs. It waits until they are free, and cannot use more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceParams {
    /// The number of cores, which is also the number of threads.
    #[schemars(range(min = 1, max = 4096))]
    cpus: Option<usize>,
    /// Memory of all its processes, such as `8 GB` or `512 MiB`. A stage that uses more is killed.
    memory: Option<String>,
    /// The number of GPUs, which the stage sees through `CUDA_VISIBLE_DEVICES`.
    #[schemars(range(max = 1024))]
    gpus: Option<usize>,
    /// The time limit, such as `90 s`, `30 min` or `2 h`. A stage that reaches it saves its progress and is stopped.
    time: Option<String>,
    /// On a cluster: the partition.
    partition: Option<String>,
    /// On a cluster: the account to charge.
    account: Option<String>,
    /// On a cluster: the quality of service.
    qos: Option<String>,
    /// On a cluster: features that the node must have.
    constraint: Option<String>,
    /// On a cluster: further options of `sbatch`, passed unchanged, such as `--exclude=node7`.
    extra: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RetryParams {
    Each(#[schemars(range(max = 100))] usize),
    ByCause(Retry),
}

/// How often a stage is retried, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Its process was killed or disappeared.
    #[schemars(range(max = 100))]
    pub lost: usize,
    /// It used more memory than it requested, or than was available.
    #[schemars(range(max = 100))]
    pub out_of_memory: usize,
    /// It reported an error.
    #[schemars(range(max = 100))]
    pub failed: usize,
    /// It reached its time limit; training resumes from its last checkpoint.
    #[schemars(range(max = 100))]
    pub time: usize,
}

impl From<Option<RetryParams>> for Retry {
    fn from(params: Option<RetryParams>) -> Self {
        match params {
            None => Self::default(),
            Some(RetryParams::Each(n)) => Self { lost: n, out_of_memory: n, failed: n, time: n },
            Some(RetryParams::ByCause(retry)) => retry,
        }
    }
}

/// The resources of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub cpus: Option<usize>,
    /// Bytes.
    pub memory: Option<u64>,
    pub gpus: Option<usize>,
    pub time: Option<Duration>,
}

impl ResourceParams {
    /// The error is a field and the expected value.
    pub fn resolve(&self) -> Result<(Resources, Site), (&'static str, &'static str)> {
        Ok((Resources::of(self)?, Site::of(self)?))
    }
}

impl Resources {
    /// The error is a field and the expected value.
    fn of(params: &ResourceParams) -> Result<Self, (&'static str, &'static str)> {
        let memory = params.memory.as_deref().map(|text| bytes(text).ok_or(("memory", SIZE)));
        let time = params.time.as_deref().map(|text| duration(text).ok_or(("time", TIME)));
        Ok(Self { cpus: params.cpus, memory: memory.transpose()?, gpus: params.gpus, time: time.transpose()? })
    }
}

/// Settings for a cluster beyond [`Resources`]; a single machine ignores them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub partition: Option<String>,
    pub account: Option<String>,
    pub qos: Option<String>,
    pub constraint: Option<String>,
    /// Options of `sbatch`.
    pub extra: Vec<String>,
}

impl Site {
    /// Options that srpipe sets itself, to find its jobs.
    const OURS: [&str; 9] = [
        "--array",
        "--chdir",
        "--comment",
        "--dependency",
        "--error",
        "--job-name",
        "--output",
        "--parsable",
        "--wrap",
    ];

    /// The error is a field and the expected value.
    fn of(params: &ResourceParams) -> Result<Self, (&'static str, &'static str)> {
        // sbatch accepts abbreviated options, so compare prefixes.
        let is_ours = |option: &String| {
            let name = option.split('=').next().unwrap_or(option);
            Self::OURS.iter().any(|ours| ours.starts_with(name))
        };
        if params.extra.iter().any(|option| !option.starts_with("--")) {
            return Err(("extra", "a list of long options of sbatch, such as `[--exclude=node7]`"));
        }
        if params.extra.iter().any(is_ours) {
            return Err((
                "extra",
                "without the options that srpipe sets to find its jobs (name, comment, files, array)",
            ));
        }
        let ResourceParams { partition, account, qos, constraint, extra, .. } = params.clone();
        Ok(Self { partition, account, qos, constraint, extra })
    }
}

const SIZE: &str = "a number with a unit, such as `8 GB` or `512 MiB`";
const TIME: &str = "a number with a unit, such as `90 s`, `30 min` or `2 h`";

/// Parses a size such as `8 GB` (8·10⁹) or `512 MiB` (512·2²⁰). A single letter is a power of two, as in Slurm.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let unit: f64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024f64.powi(2),
        "g" | "gib" => 1024f64.powi(3),
        "t" | "tib" => 1024f64.powi(4),
        _ => return None,
    };
    let bytes = number * unit;
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}

/// Parses a duration such as `90 s`, `30 min`, `2 h` or `1 d`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit {
        "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let seconds = number * unit;
    // At most a year: no stage takes longer, and adding it to the current time cannot overflow.
    (seconds > 0.0 && seconds < 3.2e7).then(|| Duration::from_secs_f64(seconds))
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        let sizes = ["8 GB", "512MiB", "1.5 k", "2G", "7 b"].map(|text| bytes(text).unwrap());
        assert_eq!(sizes, [8_000_000_000, 512 << 20, 1536, 2 << 30, 7]);
        for wrong in ["", "8", "GB", "-1 GB", "1 XB", "0 GB", "1e3 GB", "999999999 TB", "1..5 GB", "nan GB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        let times = ["90 s", "1.5min", "2h", "1 d"].map(|text| duration(text).unwrap().as_secs());
        assert_eq!(times, [90, 90, 7200, 86_400]);
        for wrong in ["", "90", "0 s", "-1 s", "2 hours", "1000 d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_of_retries_is_that_of_every_cause() {
        let read = |text: &str| Retry::from(serde_yaml::from_str::<Option<RetryParams>>(text).unwrap());
        assert_eq!(read("2"), Retry { lost: 2, out_of_memory: 2, failed: 2, time: 2 });
        assert_eq!(read("{lost: 3}"), Retry { lost: 3, ..Retry::default() });
        assert_eq!(read("null"), Retry::default());
    }
}
