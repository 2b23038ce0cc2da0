//! The executors, which run stages.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What runs stages. Not part of any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// This machine.
    #[default]
    Local,
    /// Jobs of Slurm on a cluster.
    Slurm,
    #[cfg(test)]
    Fake,
}

impl ExecutorKind {
    pub const ALL: &[Self] = &[
        Self::Local,
        Self::Slurm,
        #[cfg(test)]
        Self::Fake,
    ];

    /// Returns the names, as the user writes them.
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|kind| kind.name()).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Slurm => "slurm",
            #[cfg(test)]
            Self::Fake => "fake",
        }
    }

    /// Whether stages continue without the process that started them.
    pub fn outlives_run(self) -> bool {
        match self {
            Self::Local => false,
            Self::Slurm => true,
            #[cfg(test)]
            Self::Fake => true,
        }
    }
}

impl FromStr for ExecutorKind {
    type Err = &'static str;

    /// The error lists the names, to follow "must be".
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|kind| kind.name() == text).ok_or("`local` or `slurm`")
    }
}
