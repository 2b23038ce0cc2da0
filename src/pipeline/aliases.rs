//! Older spellings of values in pipeline files. They hash to the same keys as the current ones.

use super::tree::{Node, Value};
use crate::config::StageKind;

/// The stage kind, the path of the parameter, the older spelling and the current one.
const VALUES: [(StageKind, [&str; 3], &str, &str); 3] = [
    (StageKind::Train, ["model", "attention", "kind"], "seed", "sagan"),
    (StageKind::Train, ["model", "attention", "matches"], "seed", "sagan"),
    (StageKind::Train, ["model", "time_embedding", ""], "seed", "bottleneck_mlp"),
];

/// Replaces older spellings in the parameters of a stage.
pub(super) fn replace(kind: StageKind, node: &mut Node) {
    for (_, path, old, current) in VALUES.iter().filter(|(of, ..)| *of == kind) {
        let path = path.iter().copied().filter(|key| !key.is_empty());
        if let Some(value) = node.entry_mut(path)
            && let Value::Text(text) = &mut value.node.value
            && text == old
        {
            *text = current.to_string();
        }
    }
}
