//! Stage kinds, with their parameters, inputs and outputs.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::*;

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
