//! Sweeps: a `matrix` lists values of parameters, and a stage gets one instance per combination.
//!
//! `matrix` reads a matrix into axes and combinations, `variants` returns the typed parameters of each combination that
//! applies to a stage, and `names` names axes, values and instances. The sibling `instances` adds the axes of swept
//! inputs; the resulting stages contain no matrix.
//!
//! - A matrix belongs to a stage, to `defaults.KIND`, or to the top level of the file. Axes in `defaults.KIND` apply to
//!   all stages of the kind that do not set the parameter themselves. At the top level only `seed` can be swept; this
//!   applies to every stage that has a `seed` parameter. Data are created once, from the file's seed, so that all seeds
//!   are compared on the same images.
//! - Two inputs of a stage that were swept along the same [`Axis`] are joined on it; other axes are crossed.
//! - A `compare` stage is not swept by its arms: it gathers all their instances.

mod matrix;
mod names;
mod variants;

use super::diagnostics::Span;
use super::tree::Node;
use crate::config::StageKind;

pub(super) use matrix::{Matrix, read, too_large, too_many};
pub(super) use names::{axis_names, with_labels};
pub(super) use variants::{Applied, Sweeps, Typed, Variant, variants};

/// The maximum number of instances in a pipeline.
pub(super) const MAX_INSTANCES: usize = 100_000;

/// The maximum memory for the parameters of all instances of a pipeline, in bytes as computed by [`Node::weight`].
/// Otherwise `defaults` and a matrix could repeat a long list or text until memory runs out.
pub(super) const MAX_BYTES: u64 = 512 << 20;

/// The maximum number of arm samples that all comparisons of a pipeline may gather.
pub(super) const MAX_GATHERED: usize = 500_000;

/// The name of the parameter whose values are repetitions of an arm in a comparison, instead of arms of their own.
pub(super) const SEED: &str = "seed";

/// What a matrix belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    Pipeline,
    Kind(StageKind),
    Stage(String),
}

/// A swept parameter and its values.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    scope: Scope,
    /// The path within the stage as written, such as `model.base_channels`. Names of instances are derived from it.
    pub(super) path: String,
    /// The path with the current names of its keys.
    pub(super) parameter: String,
    /// The span of the key in the matrix.
    key: Span,
    pub(super) values: Vec<AxisValue>,
}

#[derive(Debug, Clone)]
pub(super) struct AxisValue {
    pub(super) node: Node,
    /// The value in instance names. Empty until the value is validated, because only then `1e3` is an integer.
    pub(super) label: String,
}

/// Axis values as pairs of axis index and value index, in the order in which they appear in names.
pub(super) type Combination = Vec<(usize, usize)>;

/// Whether two parameter paths are equal or one contains the other.
fn overlap(a: &str, b: &str) -> bool {
    let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    a == b || within(a, b) || within(b, a)
}
