//! Converts training budgets in seconds to steps.
//!
//! A budget states the measured speed of a machine and is not itself a measurement. The steps follow from the pipeline
//! file alone, so the same file gives the same results, and stage keys contain the number of steps. Arms that share a
//! budget take the same number of steps; otherwise the comparison would also compare their cost.

use crate::config::StageParams;
use crate::config::{FetchParams, TrainParams};
use crate::model::{ModelCost, unet};
use crate::pipeline::Pipeline;

/// Replaces every training budget with steps: as many as the costliest training with the same budget has time for, and
/// at least one.
pub fn fix_steps(pipeline: &mut Pipeline) {
    let costs: Vec<Option<f64>> = pipeline
        .stages
        .iter()
        .map(|stage| {
            let StageParams::Train(p) = &stage.params else { return None };
            // Every file passes through here first; most have no budget and need no networks built.
            p.optim.budget?;
            Some(training_cost(pipeline, p)?.training_flops as f64 * p.optim.batch_size as f64)
        })
        .collect();
    let budget = |params: &StageParams| match params {
        StageParams::Train(p) => p.optim.budget.zip(p.optim.gflops),
        _ => None,
    };
    let of_stage: Vec<_> = pipeline.stages.iter().map(|s| budget(&s.params)).collect();
    for (stage, mine) in pipeline.stages.iter_mut().zip(&of_stage) {
        let (Some((seconds, gflops)), StageParams::Train(p)) = (mine, &mut stage.params) else { continue };
        let shared = costs.iter().zip(&of_stage).filter(|(_, other)| *other == mine).filter_map(|(cost, _)| *cost);
        let costliest = shared.fold(0.0, f64::max);
        p.optim.steps = Some(((*seconds as f64 * gflops * 1e9 / costliest) as u64).max(1));
    }
}

/// Returns the cost of a `train` stage's network; `None` if no stage creates its images.
pub fn training_cost(pipeline: &Pipeline, params: &TrainParams) -> Option<ModelCost> {
    let stage = |name: &str| pipeline.stage(name).map(|s| &s.params);
    let Some(StageParams::Degrade(degrade)) = stage(&params.data) else { return None };
    let Some(StageParams::Fetch(fetch)) = stage(&degrade.input) else { return None };
    let size = FetchParams::image_size(fetch);
    Some(ModelCost::of(&unet(&params.model, size, degrade.scale)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::parse;

    const FILE: &str = "
name: budget
defaults:
  train: { data: pairs, model: { base_channels: 8 }, optim: { budget: 10, gflops: 50 } }
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images }
  narrow: { kind: train }
  wide: { kind: train, model: { base_channels: 16 } }
  longer: { kind: train, optim: { budget: 20 } }
  fixed: { kind: train, optim: { steps: 7 } }
";

    fn steps(text: &str) -> Vec<Option<u64>> {
        let mut pipeline = parse("test.yaml", text, &Default::default()).unwrap();
        fix_steps(&mut pipeline);
        let of = |name: &str| match &pipeline.stage(name).unwrap().params {
            StageParams::Train(p) => p.optim.steps,
            _ => None,
        };
        ["narrow", "wide", "longer", "fixed"].map(of).to_vec()
    }

    #[test]
    fn the_most_expensive_arm_determines_the_steps_of_all_arms_with_its_budget() {
        let [narrow, wide, longer, fixed] = steps(FILE)[..] else { unreachable!("four") };
        let graph = |base_channels| {
            let model = crate::config::ModelParams { base_channels, ..Default::default() };
            unet(&model, 32, 4).training_flops() as f64 * 16.0
        };
        assert_eq!(wide, Some((10.0 * 50e9 / graph(16)) as u64));
        assert_eq!(narrow, wide);
        assert_eq!(longer, Some((20.0 * 50e9 / graph(8)) as u64));
        assert_eq!(fixed, Some(7));
    }

    #[test]
    fn every_budget_allows_at_least_one_step() {
        assert_eq!(steps(&FILE.replace("gflops: 50", "gflops: 0.001"))[1], Some(1));
    }
}
