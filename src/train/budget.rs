//! Converts training budgets in seconds to steps.
//!
//! The pipeline file states the training speed; srpipe does not measure it here. So the number of steps follows from
//! the file alone, and the same file gives the same results everywhere. Stage keys contain the number of steps instead
//! of the budget. Arms with the same budget train for the same number of steps; otherwise a comparison would also
//! compare their cost.

use crate::config::StageParams;
use crate::config::{FetchParams, TrainParams};
use crate::model::{ModelCost, unet};
use crate::pipeline::Pipeline;

/// Sets the steps of every `train` stage with a budget: as many as the most expensive stage with the same budget can do
/// in that time, but at least one.
pub fn fix_steps(pipeline: &mut Pipeline) {
    let costs: Vec<Option<f64>> = pipeline
        .stages
        .iter()
        .map(|stage| {
            let StageParams::Train(p) = &stage.params else { return None };
            // Don't build networks for stages without a budget, as in most files.
            p.optim.budget?;
            Some(training_cost(pipeline, p)?.training_flops as f64 * p.optim.batch_size as f64)
        })
        .collect();
    let budget = |params: &StageParams| match params {
        StageParams::Train(p) => p.optim.budget.zip(p.optim.gflops),
        _ => None,
    };
    let budgets: Vec<_> = pipeline.stages.iter().map(|s| budget(&s.params)).collect();
    for (stage, budget) in pipeline.stages.iter_mut().zip(&budgets) {
        let (Some((seconds, gflops)), StageParams::Train(p)) = (budget, &mut stage.params) else { continue };
        let shared = costs.iter().zip(&budgets).filter(|(_, other)| *other == budget).filter_map(|(cost, _)| *cost);
        let max_cost = shared.fold(0.0, f64::max);
        p.optim.steps = Some(((*seconds as f64 * gflops * 1e9 / max_cost) as u64).max(1));
    }
}

/// Returns the cost of a `train` stage's network; `None` if its images do not come from `degrade` and `fetch` stages,
/// so that their size is unknown.
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
        let steps_of = |name: &str| match &pipeline.stage(name).unwrap().params {
            StageParams::Train(p) => p.optim.steps,
            _ => None,
        };
        ["narrow", "wide", "longer", "fixed"].map(steps_of).to_vec()
    }

    #[test]
    fn the_most_expensive_arm_determines_the_steps_of_all_arms_with_its_budget() {
        let [narrow, wide, longer, fixed] = steps(FILE)[..] else { unreachable!("there are four stages") };
        let batch_flops = |base_channels| {
            let model = crate::config::ModelParams { base_channels, ..Default::default() };
            unet(&model, 32, 4).training_flops() as f64 * 16.0
        };
        assert_eq!(wide, Some((10.0 * 50e9 / batch_flops(16)) as u64));
        assert_eq!(narrow, wide);
        assert_eq!(longer, Some((20.0 * 50e9 / batch_flops(8)) as u64));
        assert_eq!(fixed, Some(7));
    }

    #[test]
    fn every_budget_allows_at_least_one_step() {
        assert_eq!(steps(&FILE.replace("gflops: 50", "gflops: 0.001"))[1], Some(1));
    }
}
