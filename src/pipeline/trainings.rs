//! Determines the training runs that the samples of each arm depend on, and the kind of their losses. Runs of an arm
//! count as independent only if they share no training run.
//!
//! This module reads only the graph, not the content of results: copies of a result count as the same result, and
//! commands that train need not write losses. A comparison also merges runs with identical samples.

use std::collections::{BTreeSet, HashMap};

use super::instances::Instance;
use crate::config::blobs::{TEST_HR, TEST_LR, TRAIN_HR, TRAIN_LR, VALIDATION_HR, VALIDATION_LR};
use crate::config::{CommandParams, Input, LossKind, StageKind, StageParams};

/// The blobs of a dataset.
const DATA: [&str; 6] = [TRAIN_HR, TRAIN_LR, VALIDATION_HR, VALIDATION_LR, TEST_HR, TEST_LR];

/// Sets, for every run of an arm, the training runs that it depends on, the kind of its loss, and whether its model was
/// selected. Numbers training runs and kinds within each comparison, in the order of its arms. The instances must be
/// sorted topologically.
pub(super) fn number(instances: &mut [Instance], pipeline_seed: u64) {
    let mut graph = Graph::default();
    for instance in &mut *instances {
        graph.add(&instance.name, &instance.typed.params, pipeline_seed);
    }
    for instance in instances {
        let StageParams::Compare(compare) = &mut instance.typed.params else { continue };
        let mut numbers: HashMap<Identity, usize> = HashMap::new();
        let mut losses: Vec<&LossKind> = vec![];
        for run in compare.arms.values_mut().flat_map(|arm| &mut arm.runs) {
            let Some(stage) = graph.stages.get(&run.stage) else { continue };
            let number = |training: &Identity| {
                let next = numbers.len();
                *numbers.entry(*training).or_insert(next)
            };
            run.trainings = stage.trainings.iter().map(number).collect();
            run.trainings.sort_unstable();
            run.is_selected = stage.is_selected;
            run.loss_kind = stage.loss.as_ref().map(|loss| {
                losses.iter().position(|known| *known == loss).unwrap_or_else(|| {
                    losses.push(loss);
                    losses.len() - 1
                })
            });
        }
    }
}

/// Identifies the computation of a stage: stages with the same parameters, seed and inputs have the same identity,
/// whatever their names are.
type Identity = usize;

#[derive(Default)]
struct Graph {
    identities: HashMap<String, Identity>,
    stages: HashMap<String, Node>,
}

struct Node {
    identity: Identity,
    /// The training runs that it depends on, including itself if it is one.
    trainings: BTreeSet<Identity>,
    /// Whether it depends on a selected model.
    is_selected: bool,
    /// The kind of its loss, or of the loss of the model that it samples; `None` if unknown.
    loss: Option<LossKind>,
}

impl Graph {
    /// Adds a stage whose inputs have been added. Inputs that do not exist are reported elsewhere.
    fn add(&mut self, name: &str, params: &StageParams, pipeline_seed: u64) {
        let inputs = params.inputs();
        let of_input = |input: &Input| {
            let identity = self.stages.get(&input.stage).map(|node| node.identity);
            format!("{} {identity:?} {:?}", input.role, input.blobs)
        };
        // Keys do not depend on the source of a dataset, but different sources may have different images.
        let computation = match params.kind() {
            StageKind::Fetch => params.complete(),
            _ => params.to_semantic_json(),
        };
        let of_inputs: Vec<String> = inputs.iter().map(of_input).collect();
        let text = format!("{computation} {:?} {of_inputs:?}", params.seed(pipeline_seed));
        let next = self.identities.len();
        let identity = *self.identities.entry(text).or_insert(next);

        let of = |role: &dyn Fn(&str) -> bool| -> BTreeSet<Identity> {
            let read =
                inputs.iter().filter(|input| role(&input.role)).filter_map(|input| self.stages.get(&input.stage));
            read.flat_map(|node| node.trainings.iter().copied()).collect()
        };
        let trainings = match params {
            StageParams::Fetch(_) | StageParams::Degrade(_) => BTreeSet::new(),
            // Data counts as fixed, even if a command prepared it: a claim is about other seeds with the same data.
            StageParams::Train(_) => [identity].into(),
            StageParams::Sample(_) => of(&|role| role == "model"),
            // The selected model may be any of the candidates. The training runs of the comparison include other seeds,
            // which only affect which arm is selected.
            StageParams::Select(_) => of(&|role| role != "from"),
            StageParams::Compare(_) => of(&|_| true),
            StageParams::Command(command) if is_data(command) => of(&|_| true),
            StageParams::Command(_) => &of(&|_| true) | &[identity].into(),
        };
        let is_selected = matches!(params, StageParams::Select(_))
            || inputs.iter().any(|input| self.stages.get(&input.stage).is_some_and(|node| node.is_selected));
        let node = |name: &str| self.stages.get(name);
        let loss = match params {
            StageParams::Train(train) => node(&train.data)
                .map(|data| LossKind::new(&train.diffusion, train.validation.images, data.identity.to_string())),
            StageParams::Sample(sample) => node(&sample.model).and_then(|model| model.loss.clone()),
            StageParams::Select(select) => {
                let mut losses = select.candidates.values().map(|candidate| node(&candidate.stage)?.loss.as_ref());
                let first = losses.next().flatten();
                first.filter(|_| losses.all(|loss| loss == first)).cloned()
            }
            _ => None,
        };
        self.stages.insert(name.to_string(), Node { identity, trainings, is_selected, loss });
    }
}

/// Whether a command only prepares a dataset. Any other command may train.
fn is_data(command: &CommandParams) -> bool {
    command.outputs.iter().all(|output| DATA.contains(&output.as_str()))
}
