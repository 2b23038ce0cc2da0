//! The pipeline file: parsed with positions, validated against the parameter types, resolved into values.
//!
//! Pure: text in, a [`Pipeline`] or every one of its errors out. What a stage *does* is not known here.
//!
//! [`load()`] and [`parse`] lead through it: `reader` makes a `tree` in which every value knows its place, `flags` puts
//! the values of the command line over it, `resolve` merges the defaults and holds every stage against the `schema` of
//! its type in [`params`], `references` finds missing stages and cycles and sorts, `sweep` makes instances of stages that
//! are swept, `checks` has what only several values together tell. Each adds to the same list of errors, which
//! [`Diagnostics`] shows.

pub mod claims;
pub mod command;
pub mod names;
pub mod params;
pub mod schedule;

mod checks;
mod diagnostics;
mod expansion;
mod flags;
mod load;
mod reader;
mod references;
mod resolve;
mod resolved;
mod resources;
mod schema;
mod secret;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;
mod unread;
mod words;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use checks::{MAX_IMAGE_SIZE, check_network};
pub use diagnostics::{Diagnostic, Diagnostics, Position};
pub use expansion::expansion_hint;
pub use flags::Flags;
pub use load::{load, parse};
use params::*;
pub use resources::{ResourceParams, Resources, Retry, Site, bytes, duration};
pub use schema::{file as file_schema, reference};
pub use secret::{SecretUrl, redact, redact_value};
pub use words::did_you_mean;

/// A valid pipeline: references resolve, there is no cycle, defaults are filled in.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The file it was read from.
    pub file: PathBuf,
    pub name: String,
    pub description: Option<String>,
    pub seed: u64,
    pub device: Device,
    /// Where it says so.
    pub executor: Option<ExecutorKind>,
    /// In an order in which every stage comes after those it names; otherwise as in the file, instances of one stage
    /// together.
    pub stages: Vec<Stage>,
    /// What the file says; where, is told by its positions.
    draft: Arc<load::Source>,
}

impl Pipeline {
    /// For tests of what comes after the file: one that was never written.
    #[cfg(test)]
    pub fn of_stages(stages: Vec<Stage>) -> Self {
        Self {
            file: PathBuf::new(),
            name: "test".to_string(),
            description: None,
            seed: 0,
            device: Device::Cpu,
            executor: None,
            stages,
            draft: Arc::default(),
        }
    }

    /// The whole pipeline as YAML, every default and what the command line says filled in; reads as this pipeline.
    pub fn resolved(&self) -> String {
        self.draft.resolved()
    }

    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.name == name)
    }

    /// The stages that `name` means: the one of that name, or all instances of it.
    pub fn named(&self, name: &str) -> Vec<usize> {
        let is = |stage: &Stage| stage.name == name || stage.base == name;
        (0..self.stages.len()).filter(|&i| is(&self.stages[i])).collect()
    }

    /// Leaves these stages and those that they need.
    pub fn keep(&mut self, wanted: impl IntoIterator<Item = usize>) {
        let mut keep = vec![false; self.stages.len()];
        wanted.into_iter().for_each(|i| keep[i] = true);
        let index: std::collections::HashMap<String, usize> =
            self.stages.iter().enumerate().map(|(i, stage)| (stage.name.clone(), i)).collect();
        // What a stage needs comes before it.
        for i in (0..self.stages.len()).rev() {
            if keep[i] {
                self.stages[i].params.inputs().iter().for_each(|input| keep[index[&input.stage]] = true);
            }
        }
        let mut keep = keep.into_iter();
        self.stages.retain(|_| keep.next().unwrap_or(false));
    }

    /// Where a stage, or with a path such as `model.base_channels` a parameter of it, is given: in the stage, in
    /// `defaults` or on the command line. An empty path is the stage itself. `None` for what is left to its default.
    pub fn position(&self, stage: &Stage, path: &str) -> Option<Position> {
        self.draft.position(stage, path)
    }

    /// As [`Pipeline::position`], of what encloses the parameter where it is left to its default itself.
    pub fn nearest_position(&self, stage: &Stage, path: &str) -> Option<Position> {
        let shorter = std::iter::successors(Some(path), |p| match p.rsplit_once('.') {
            Some((outer, _)) => Some(outer),
            None => (!p.is_empty()).then_some(""),
        });
        shorter.into_iter().find_map(|p| self.position(stage, p))
    }
}

/// One stage of a pipeline, or one instance of a stage that is swept.
#[derive(Debug, Clone)]
pub struct Stage {
    pub name: String,
    /// Its name in the file, which the instances of one stage have in common.
    pub base: String,
    /// The values that tell it from other instances of its stage, by axis; those of stages before it first.
    pub labels: Vec<Label>,
    pub params: StageParams,
    pub resources: Resources,
    pub site: Site,
    pub retry: Retry,
    /// Where in the draft it comes from: the stage, and which combination of it.
    origin: (usize, usize),
}

impl Stage {
    /// For tests of what comes after the file.
    #[cfg(test)]
    pub fn new(name: &str, params: StageParams) -> Self {
        Self {
            name: name.to_string(),
            base: name.to_string(),
            labels: vec![],
            params,
            resources: Resources::default(),
            site: Site::default(),
            retry: Retry::default(),
            origin: (0, 0),
        }
    }
}

/// Where networks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// A CUDA device where there is one, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for Device {
    type Err = &'static str;

    /// The error says what a device looks like, to follow "must be".
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let index = |n: &str| match n.bytes().all(|b| b.is_ascii_digit()) {
            true => n.parse::<u16>().ok().map(|n| Self::Cuda(n.into())),
            false => None,
        };
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(index),
        }
        .ok_or("`auto`, `cpu`, `cuda` or a numbered one such as `cuda:1`")
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// What stages are run by; no part of any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// This machine.
    #[default]
    Local,
    /// A cluster, by jobs of Slurm.
    Slurm,
}

impl ExecutorKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Slurm => "slurm",
        }
    }
}

impl FromStr for ExecutorKind {
    type Err = &'static str;

    /// The error says what there is, to follow "must be".
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Local, Self::Slurm].into_iter().find(|kind| kind.name() == text).ok_or("`local` or `slurm`")
    }
}

/// What a stage does, with its parameters.
// There are few of them, one a stage.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageParams {
    Fetch(FetchParams),
    Degrade(DegradeParams),
    Train(TrainParams),
    Sample(SampleParams),
    Compare(CompareParams),
    Command(CommandParams),
}

/// The kinds of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    Fetch,
    Degrade,
    Train,
    Sample,
    Compare,
    Command,
}

impl StageKind {
    pub const ALL: [Self; 6] = [Self::Fetch, Self::Degrade, Self::Train, Self::Sample, Self::Compare, Self::Command];

    /// As in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Degrade => "degrade",
            Self::Train => "train",
            Self::Sample => "sample",
            Self::Compare => "compare",
            Self::Command => "command",
        }
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An artifact of another stage that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What the artifact is to the stage: the parameter's name, for an arm `arms.NAME`.
    pub role: String,
    /// The stage that makes it.
    pub stage: String,
    /// The blobs of it that are read; the content of others does not matter.
    pub blobs: Blobs,
}

/// Which blobs of an artifact are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blobs {
    All,
    Only(Vec<Cow<'static, str>>),
}

impl Blobs {
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|n| n == name),
        }
    }
}

/// The three splits of a dataset, and the names of their blobs.
pub mod blobs {
    pub const TRAIN_HR: &str = "train_hr.safetensors";
    pub const TRAIN_LR: &str = "train_lr.safetensors";
    pub const VALIDATION_HR: &str = "validation_hr.safetensors";
    pub const VALIDATION_LR: &str = "validation_lr.safetensors";
    pub const TEST_HR: &str = "test_hr.safetensors";
    pub const TEST_LR: &str = "test_lr.safetensors";
    /// Weights of the last step, with the model's configuration in the header.
    pub const WEIGHTS: &str = "weights.safetensors";
    /// Moving average of the weights, likewise.
    pub const EMA: &str = "ema.safetensors";
    /// Training and held-out loss by step.
    pub const LOSS: &str = "loss.csv";
    /// What layers of attention do on held-out images, by step; of models that have any.
    pub const ATTENTION: &str = "attention.csv";
    /// `samples`: u8 `(N, K, H, W, 3)`.
    pub const SAMPLES: &str = "samples.safetensors";
    pub const METRICS: &str = "metrics.csv";
    pub const SUMMARY: &str = "summary.json";
    pub const COMPARISON: &str = "comparison.png";
    pub const LOSS_CURVES: &str = "loss.png";
}

impl StageKind {
    /// The outputs of every stage of this kind; a `command` declares its own.
    pub fn outputs(self) -> &'static [&'static str] {
        use blobs::*;
        match self {
            Self::Fetch => &[TRAIN_HR, VALIDATION_HR, TEST_HR],
            Self::Degrade => &[TRAIN_HR, TRAIN_LR, VALIDATION_HR, VALIDATION_LR, TEST_HR, TEST_LR],
            Self::Train => &[WEIGHTS, EMA, LOSS],
            Self::Sample => &[SAMPLES, TEST_HR, TEST_LR, LOSS],
            Self::Compare => &[METRICS, SUMMARY, COMPARISON, LOSS_CURVES],
            Self::Command => &[],
        }
    }

    /// Further outputs that some stages of this kind have.
    pub fn optional_outputs(self) -> &'static [&'static str] {
        match self {
            Self::Train => &[blobs::ATTENTION],
            _ => &[],
        }
    }
}

impl StageParams {
    pub fn kind(&self) -> StageKind {
        match self {
            Self::Fetch(_) => StageKind::Fetch,
            Self::Degrade(_) => StageKind::Degrade,
            Self::Train(_) => StageKind::Train,
            Self::Sample(_) => StageKind::Sample,
            Self::Compare(_) => StageKind::Compare,
            Self::Command(_) => StageKind::Command,
        }
    }

    /// The blobs that the stage makes.
    pub fn outputs(&self) -> Vec<&str> {
        match self {
            Self::Command(p) => p.outputs.iter().map(String::as_str).collect(),
            _ => self.kind().outputs().to_vec(),
        }
    }

    /// What the stage reads of other stages.
    pub fn inputs(&self) -> Vec<Input> {
        use blobs::*;
        let input = |role: &str, stage: &str, blobs: &[&'static str]| Input {
            role: role.to_string(),
            stage: stage.to_string(),
            blobs: Blobs::Only(blobs.iter().map(|&name| name.into()).collect()),
        };
        match self {
            Self::Fetch(_) => vec![],
            Self::Degrade(p) => vec![input("input", &p.input, &[TRAIN_HR, VALIDATION_HR, TEST_HR])],
            Self::Train(p) => vec![input("data", &p.data, &[TRAIN_HR, TRAIN_LR, VALIDATION_HR, VALIDATION_LR])],
            Self::Sample(p) => {
                let weights = match p.weights {
                    Weights::Ema => EMA,
                    Weights::Raw => WEIGHTS,
                };
                vec![input("model", &p.model, &[weights, LOSS]), input("data", &p.data, &[TEST_HR, TEST_LR])]
            }
            Self::Compare(p) => {
                let runs = p.arms.iter().flat_map(|(name, arm)| arm.runs.iter().map(move |run| (name, run)));
                runs.map(|(name, run)| input(&run.role(name), &run.stage, &[SAMPLES, TEST_HR, TEST_LR, LOSS])).collect()
            }
            Self::Command(p) => {
                let input = |(name, input): (&String, &String)| Input {
                    role: format!("inputs.{name}"),
                    stage: command::split(input).0.to_string(),
                    blobs: command::blobs(input),
                };
                p.inputs.iter().map(input).collect()
            }
        }
    }

    /// Passes the stages of [`inputs`](Self::inputs), in their order, to somebody who may call them otherwise.
    pub fn rename_inputs(&mut self, mut rename: impl FnMut(&mut String)) {
        match self {
            Self::Fetch(_) => {}
            Self::Degrade(p) => rename(&mut p.input),
            Self::Train(p) => rename(&mut p.data),
            Self::Sample(p) => [&mut p.model, &mut p.data].into_iter().for_each(rename),
            Self::Compare(p) => {
                p.arms.values_mut().flat_map(|arm| &mut arm.runs).for_each(|run| rename(&mut run.stage));
            }
            Self::Command(p) => p.inputs.values_mut().for_each(|input| command::rename(input, &mut rename)),
        }
    }

    /// The seed of a stage that draws random numbers, the pipeline's unless it has its own.
    pub fn seed(&self, pipeline: u64) -> Option<u64> {
        match self {
            Self::Fetch(FetchParams::Synthetic(_)) => Some(pipeline),
            Self::Train(p) => Some(p.seed.unwrap_or(pipeline)),
            Self::Sample(p) => Some(p.seed.unwrap_or(pipeline)),
            Self::Command(p) => p.uses_seed().then(|| p.seed.unwrap_or(pipeline)),
            Self::Fetch(_) | Self::Degrade(_) | Self::Compare(_) => None,
        }
    }

    /// Whether the stage runs a network, so that its result depends on the class of device.
    pub fn runs_network(&self) -> bool {
        matches!(self.kind(), StageKind::Train | StageKind::Sample)
    }
}
