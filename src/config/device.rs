//! The device that networks run on.

use std::fmt;
use std::str::FromStr;

/// The device that networks run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// A CUDA device if there is one, otherwise the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for Device {
    type Err = &'static str;

    /// The error describes the valid values, to follow "must be".
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
