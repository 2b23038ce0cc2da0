//! Expands stages into instances: combines their variants with the axes of swept inputs, and gathers the arms of
//! comparisons and the candidates of selections.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use indexmap::{IndexMap, IndexSet};

use super::diagnostics::{Diagnostic, Errors};
use super::draft::StageDraft;
use super::sweep::{
    Axis, Combination, MAX_BYTES, MAX_GATHERED, MAX_INSTANCES, SEED, Typed, axis_names, too_large, too_many,
    with_labels,
};
use super::text::quote;
use crate::config::StageParams;
use crate::config::{Arm, ArmRun, CandidateModel, CompareParams, Label, SelectParams};

/// A stage of the expanded pipeline.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) name: String,
    /// The index of the stage in the draft.
    pub(super) stage: usize,
    /// The index of the stage's variant.
    pub(super) variant: usize,
    pub(super) labels: Vec<Label>,
    pub(super) typed: Typed,
}

/// An instance before it gets a name.
struct Unnamed {
    stage: usize,
    variant: usize,
    /// All axis values, those inherited from inputs first.
    combination: Combination,
    /// The index of the instance that each input refers to, in the order of [`StageParams::inputs`].
    inputs: Vec<Option<usize>>,
}

impl Unnamed {
    /// Returns the index of the instance whose model this `sample` instance uses; `None` for other kinds.
    fn model(&self, stages: &[StageDraft]) -> Option<usize> {
        let params = &stages[self.stage].variants[self.variant].typed.as_ref()?.params;
        let inputs = matches!(params, StageParams::Sample(_)).then(|| params.inputs())?;
        self.inputs[inputs.iter().position(|input| input.role == "model")?]
    }
}

/// Returns the instances of all stages, skipping variants with errors. The stages must be sorted topologically.
pub(super) fn expand(stages: &[StageDraft], axes: &[Axis], errors: &mut Errors) -> Vec<Instance> {
    let Some((unnamed, of_stage)) = combine(stages, axes, errors) else { return vec![] };
    let axis_names = axis_names(axes, unnamed.iter().map(|u| &u.combination));
    let label = |&(axis, value): &(usize, usize)| Label {
        axis: axis_names[axis].clone(),
        value: axes[axis].values[value].label.clone(),
    };
    let mut instances: Vec<Instance> = Vec::with_capacity(unnamed.len());
    // The indices of the instances that sample validation images, for selections.
    let mut validated: HashMap<String, usize> = HashMap::new();
    for (index, of) in unnamed.iter().enumerate() {
        let Unnamed { stage, variant, combination, inputs } = of;
        let labels: Vec<Label> = combination.iter().map(label).collect();
        let name = name(&stages[*stage].name, &labels);
        let mut typed = stages[*stage].variants[*variant].typed.clone().expect("`combine` skips invalid variants");
        match &mut typed.params {
            StageParams::Compare(compare) => gather(compare, |arm| {
                let found = of_stage.get(arm).cloned().unwrap_or(0..0);
                let seeds = |i: usize| unnamed[i].combination.iter().map(|&(axis, _)| axes[axis].path == SEED);
                // A later instance belongs to a cycle, which has been reported.
                found.filter_map(|i| Some((instances.get(i)?, seeds(i).collect()))).collect()
            }),
            params => {
                let mut inputs = inputs.iter();
                params.rename_inputs(|stage| {
                    if let Some(Some(input)) = inputs.next() {
                        stage.clone_from(&instances[*input].name);
                    }
                });
            }
        }
        if let StageParams::Sample(sample) = &mut typed.params
            && sample.seed.is_none()
        {
            let model = of.model(stages).and_then(|model| instances.get(model));
            sample.seed = model.and_then(|model| seed_of_model(model, &instances));
        }
        if let StageParams::Select(select) = &mut typed.params {
            let is_seed = |pair: &&(usize, usize)| axes[pair.0].path == SEED;
            let seeds = combination.iter().filter(is_seed).copied().collect();
            let from = inputs.first().copied().flatten().and_then(|from| instances.get(from));
            set_candidates(select, from, |sample| {
                let model = unnamed[*validated.get(sample)?].model(stages)?;
                let own: Combination = unnamed[model].combination.iter().filter(is_seed).copied().collect();
                // Stages that each have their own matrix have different axes with the same seeds.
                let is_equal = label_values(&own, axes) == label_values(&seeds, axes);
                (is_within(&own, &seeds) || is_equal).then(|| instances[model].name.clone())
            });
        }
        if matches!(&typed.params, StageParams::Sample(sample) if !sample.split.is_test()) {
            validated.insert(name.clone(), index);
        }
        instances.push(Instance { name, stage: *stage, variant: *variant, labels, typed });
    }
    let mut names = HashSet::new();
    for instance in &instances {
        if !names.insert(instance.name.as_str()) {
            let message = format!("two instances have the name {}", quote(&instance.name));
            errors.push(Diagnostic::new(stages[instance.stage].key, message));
        }
    }
    instances
}

fn name(base: &str, labels: &[Label]) -> String {
    with_labels(base, labels.iter().map(|label| (label.axis.as_str(), label.value.as_str())))
}

/// The index range of each stage's instances, by stage name.
type Ranges<'a> = HashMap<&'a str, Range<usize>>;

/// Combines the variants of each stage with the instances of its inputs. Returns None if there are too many instances.
fn combine<'a>(stages: &'a [StageDraft], axes: &[Axis], errors: &mut Errors) -> Option<(Vec<Unnamed>, Ranges<'a>)> {
    let mut unnamed: Vec<Unnamed> = vec![];
    let mut of_stage = Ranges::new();
    let (mut bytes, mut gathered) = (0, 0);
    for (index, stage) in stages.iter().enumerate() {
        let first = unnamed.len();
        let weight = stage.node.weight();
        for (variant, own) in stage.variants.iter().enumerate() {
            let Some(Typed { params, .. }) = &own.typed else { continue };
            if let StageParams::Compare(compare) = params {
                let arms = compare.arms.values().flat_map(|arm| &arm.runs);
                gathered += arms.map(|run| of_stage.get(run.stage.as_str()).map_or(0, Range::len)).sum::<usize>();
                if gathered > MAX_GATHERED {
                    let message = format!(
                        "with stage {}, the arms of all comparisons have more than {MAX_GATHERED} samples in total",
                        quote(&stage.name)
                    );
                    errors.push(Diagnostic::new(stage.key, message));
                    return None;
                }
            }
            let seeds = match params {
                StageParams::Select(_) => seeds_of_candidates(stages, axes, params, &unnamed, &of_stage),
                _ => vec![vec![]],
            };
            let mut joined = vec![(vec![], vec![])];
            if !matches!(params, StageParams::Compare(_)) {
                for input in params.inputs() {
                    // A missing stage has been reported.
                    let range = of_stage.get(input.stage.as_str()).cloned().unwrap_or(0..0);
                    joined = match join(joined, &unnamed, range, MAX_INSTANCES - unnamed.len().min(MAX_INSTANCES)) {
                        Ok(joined) => joined,
                        Err(count) => {
                            let count = count.saturating_add(unnamed.len() as u128);
                            errors.push(too_many(
                                stage.key,
                                &format!("with stage {} there are at least", quote(&stage.name)),
                                count,
                            ));
                            return None;
                        }
                    };
                }
            }
            let with_seeds = |(combination, inputs): (Combination, Vec<Option<usize>>)| {
                seeds.iter().map(move |seeds| ([&combination[..], seeds].concat(), inputs.clone()))
            };
            for (mut combination, inputs) in joined.into_iter().flat_map(with_seeds) {
                // If the stage's own axis is also inherited, both must have the same value.
                let agrees =
                    |pair: &(usize, usize)| combination.iter().all(|(axis, value)| *axis != pair.0 || *value == pair.1);
                if own.combination.iter().all(agrees) {
                    let new: Combination =
                        own.combination.iter().filter(|pair| !combination.contains(pair)).copied().collect();
                    combination.extend(new);
                    unnamed.push(Unnamed { stage: index, variant, combination, inputs });
                }
            }
            if bytes + (unnamed.len() - first) as u64 * weight > MAX_BYTES {
                errors.push(too_large(stage.key, &stage.name));
                return None;
            }
            if unnamed.len() > MAX_INSTANCES {
                let what = format!("with stage {} there are at least", quote(&stage.name));
                errors.push(too_many(stage.key, &what, unnamed.len() as u128));
                return None;
            }
        }
        // Inherited axes vary slowest.
        unnamed[first..].sort_by(|a, b| (&a.inputs, a.variant).cmp(&(&b.inputs, b.variant)));
        bytes += (unnamed.len() - first) as u64 * weight;
        of_stage.insert(&stage.name, first..unnamed.len());
    }
    Some((unnamed, of_stage))
}

/// Returns the combinations of seeds of a selection's candidates; the selection has one instance for each. Contains one
/// empty combination if no seed is swept.
fn seeds_of_candidates(
    stages: &[StageDraft],
    axes: &[Axis],
    select: &StageParams,
    unnamed: &[Unnamed],
    of_stage: &Ranges,
) -> Vec<Combination> {
    let range = |stage: &str| of_stage.get(stage).cloned().unwrap_or(0..0);
    let comparisons = select.inputs().into_iter().flat_map(|input| range(&input.stage));
    let samples: BTreeSet<usize> = comparisons
        .filter_map(|i| stages[unnamed[i].stage].variants[unnamed[i].variant].typed.as_ref())
        .flat_map(|typed| typed.params.inputs())
        .flat_map(|input| range(&input.stage))
        .collect();
    let models = samples.into_iter().filter_map(|i| unnamed[i].model(stages));
    let seeds =
        |i: usize| unnamed[i].combination.iter().filter(|(axis, _)| axes[*axis].path == SEED).copied().collect();
    let all: IndexSet<Combination> = models.map(seeds).collect();
    // A model without a swept seed is a candidate for every seed.
    let largest =
        all.iter().filter(|seeds| !all.iter().any(|other| other.len() > seeds.len() && is_within(seeds, other)));
    // Stages that each have their own matrix have different axes with the same seeds.
    let distinct: IndexMap<Vec<&str>, &Combination> =
        largest.rev().map(|seeds| (label_values(seeds, axes), seeds)).collect();
    let all: Vec<Combination> = distinct.into_values().rev().cloned().collect();
    if all.is_empty() { vec![vec![]] } else { all }
}

/// Returns the values of a combination as they appear in names.
fn label_values<'a>(combination: &Combination, axes: &'a [Axis]) -> Vec<&'a str> {
    combination.iter().map(|&(axis, value)| axes[axis].values[value].label.as_str()).collect()
}

/// Whether `whole` contains every axis value of `part`.
fn is_within(part: &Combination, whole: &Combination) -> bool {
    part.iter().all(|pair| whole.contains(pair))
}

type Joined = Vec<(Combination, Vec<Option<usize>>)>;

/// Joins `joined` with the instances in `range`: returns every pair that agrees on the axes that both have. If there
/// are more than `limit` pairs, returns their number as the error.
fn join(joined: Joined, unnamed: &[Unnamed], range: Range<usize>, limit: usize) -> Result<Joined, u128> {
    if range.is_empty() {
        let with_nothing = |(combination, mut inputs): (Combination, Vec<_>)| {
            inputs.push(None);
            (combination, inputs)
        };
        return Ok(joined.into_iter().map(with_nothing).collect());
    }
    let axes = |combination: &Combination| combination.iter().map(|&(axis, _)| axis).collect::<Vec<_>>();
    let left: HashSet<usize> = joined.iter().flat_map(|(c, _)| axes(c)).collect();
    let mut shared: Vec<usize> = unnamed[range.clone()].iter().flat_map(|u| axes(&u.combination)).collect();
    shared.sort_unstable();
    shared.dedup();
    shared.retain(|axis| left.contains(axis));
    let on = |combination: &Combination| -> Combination {
        shared.iter().filter_map(|axis| combination.iter().find(|pair| pair.0 == *axis).copied()).collect()
    };
    let mut right: HashMap<Combination, Vec<usize>> = HashMap::new();
    for index in range {
        right.entry(on(&unnamed[index].combination)).or_default().push(index);
    }
    let matching: Vec<&[usize]> =
        joined.iter().map(|(c, _)| right.get(&on(c)).map_or(&[][..], Vec::as_slice)).collect();
    let count: u128 = matching.iter().map(|m| m.len() as u128).sum();
    if count > limit as u128 {
        return Err(count);
    }
    let mut pairs = Vec::with_capacity(count as usize);
    for ((combination, inputs), matching) in joined.into_iter().zip(matching) {
        for &index in matching {
            let mut longer = combination.clone();
            let new = unnamed[index].combination.iter().filter(|pair| !combination.contains(pair));
            longer.extend(new);
            pairs.push((longer, inputs.iter().copied().chain([Some(index)]).collect()));
        }
    }
    Ok(pairs)
}

/// Expands each arm of a comparison: the instances of its stage become arms, and instances that differ only in seeds
/// share an arm. `instances` returns the instances of a stage, and whether each of their labels is a seed.
fn gather<'a>(compare: &mut CompareParams, instances: impl Fn(&str) -> Vec<(&'a Instance, Vec<bool>)>) {
    let mut gathered: IndexMap<String, Arm> = IndexMap::new();
    for (name, arm) in std::mem::take(&mut compare.arms) {
        let stage = arm.runs.first().map(|run| run.stage.clone()).unwrap_or_default();
        let found = instances(&stage);
        if found.is_empty() {
            gathered.insert(name, arm);
            continue;
        }
        for (instance, is_seed) in found {
            let labels = |seeds: bool| {
                let chosen = instance.labels.iter().zip(&is_seed).filter(move |(_, is_seed)| **is_seed == seeds);
                chosen.map(|(label, _)| label.clone()).collect::<Vec<_>>()
            };
            let (seeds, axes) = (labels(true), labels(false));
            let seeds: Vec<String> = seeds.into_iter().map(|label| label.value).collect();
            let seed = (!seeds.is_empty()).then(|| seeds.join(","));
            let empty = Arm { of: name.clone(), axes: axes.clone(), runs: vec![] };
            let arm = gathered.entry(self::name(&name, &axes)).or_insert(empty);
            let mut run = ArmRun::new(seed, &instance.name);
            if let StageParams::Sample(sample) = &instance.typed.params {
                run.split = sample.split;
            }
            arm.runs.push(run);
        }
    }
    compare.arms = gathered.into_iter().collect();
}

/// Sets the candidates of a selection: for each arm of the comparison `from`, the model that the arm samples. `model`
/// returns the name of the model of a `sample` instance, or `None` if the seeds of that model and of the selection differ.
fn set_candidates(select: &mut SelectParams, from: Option<&Instance>, model: impl Fn(&str) -> Option<String>) {
    let Some(StageParams::Compare(compare)) = from.map(|from| &from.typed.params) else { return };
    let candidate = |(name, arm): (&String, &Arm)| {
        let stage = arm.runs.iter().find_map(|run| model(&run.stage))?;
        Some((name.clone(), CandidateModel { stage }))
    };
    select.candidates = compare.arms.iter().filter_map(candidate).collect();
}

/// Returns the seed with which a model was trained, if it is not the pipeline's. Samples use it by default, so that networks
/// that are trained with different seeds are also sampled with different noise.
fn seed_of_model(model: &Instance, instances: &[Instance]) -> Option<u64> {
    match &model.typed.params {
        StageParams::Train(train) => train.seed,
        StageParams::Command(command) => command.seed,
        StageParams::Select(select) => {
            let first = &select.candidates.values().next()?.stage;
            seed_of_model(instances.iter().find(|instance| instance.name == *first)?, instances)
        }
        _ => None,
    }
}
