//! Sweeps: `matrix:` lists values of parameters, and a stage becomes as many instances as there are combinations.
//!
//! `matrix` reads the axes of a matrix and the combinations it asks for, `variants` makes typed parameters of each
//! combination that a stage has of its own, `expand` adds what comes down from swept stages that it names, and `names`
//! calls the instances. What comes out is a list of plain stages: nobody after this room knows of a matrix.
//!
//! - A matrix stands in a stage, in `defaults.KIND` (then its axes are shared by the stages of that kind, unless one
//!   gives the parameter itself), or at the top of the file, where `seed` alone can be swept: it reaches every stage
//!   with a `seed` of its own. Data are made once, from the file's seed, so that the seeds are compared on the same
//!   images.
//! - An [`Axis`] is one place of the file. Two inputs of a stage that were swept along the same axis are joined on it;
//!   other axes are crossed.
//! - A `compare` stage is not swept by what it names: it gathers all instances.

mod expand;
mod matrix;
mod names;
mod variants;

use super::diagnostics::Span;
use super::tree::Node;
use crate::config::StageKind;

pub(super) use expand::{Instance, expand};
pub(super) use matrix::{Matrix, read, too_large};
pub(super) use variants::{Applied, Sweeps, Typed, Variant, variants};

/// Instances that a pipeline may have, all stages together.
pub(super) const MAX_INSTANCES: usize = 100_000;

/// The maximum memory for the parameters of all instances of a pipeline, in bytes as computed by [`Node::weight`].
/// `defaults` and a matrix can repeat a long list or text more often than memory allows.
pub(super) const MAX_BYTES: u64 = 512 << 20;

/// The maximum number of arm samples that all comparisons of a pipeline may gather.
const MAX_GATHERED: usize = 500_000;

/// The name of the parameter whose values make no arms of their own in a comparison, but repetitions of one.
pub(super) const SEED: &str = "seed";

/// Where a matrix stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    Pipeline,
    Kind(StageKind),
    Stage(String),
}

/// A parameter and the values that it takes.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub scope: Scope,
    /// From the stage: `model.base_channels`.
    pub path: String,
    pub key: Span,
    pub values: Vec<AxisValue>,
}

#[derive(Debug, Clone)]
pub(super) struct AxisValue {
    pub node: Node,
    /// As instances are called by it; empty until the value is known to be valid, since only then `1e3` is an integer.
    pub label: String,
}

/// Values of some axes, each by its index and that of the value, in the order in which names have them.
pub(super) type Combination = Vec<(usize, usize)>;

/// Whether one of two parameters is the other or within it.
fn overlap(a: &str, b: &str) -> bool {
    let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    a == b || within(a, b) || within(b, a)
}
