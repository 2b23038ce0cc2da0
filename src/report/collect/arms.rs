//! Collects the arms of a comparison: their parameters, images and training losses.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexSet;
use serde_json::Value;

use crate::comparison::{Curve, LossRow, read_loss, selection};
use crate::config;
use crate::config::CompareParams;
use crate::config::metrics::VAL_LOSS_FIELD;
use crate::config::names::base;
use crate::config::{EvaluationSplit, StageParams, blobs};
use crate::data::images::lr_scale;
use crate::data::{Images, Samples};
use crate::format;
use crate::pipeline::{Pipeline, current_path, current_value};
use crate::plan::leaves;
use crate::report::html::{Arm, ArmPictures, PairedTrainings, Pictures, Training};
use crate::runs::{RunRecord, StageRecord};
use crate::stages::StageEvent;
use crate::store::{Action, Key, Store, read_file};

/// The data of the stages of a run.
pub(super) struct RunData<'a> {
    pub(super) store: &'a Store,
    pub(super) record: &'a RunRecord,
    pub(super) pipeline: &'a Pipeline,
}

impl RunData<'_> {
    fn record(&self, stage: &str) -> Option<&StageRecord> {
        self.record.stages.iter().find(|record| record.name == stage)
    }

    fn key(&self, stage: &str) -> Option<&Key> {
        self.record(stage)?.key.as_ref()
    }

    /// Returns the outcome of a stage; `None` if it is not done.
    pub(super) fn action(&self, stage: &str) -> Option<Action> {
        self.store.action(self.key(stage)?).ok()?
    }

    pub(super) fn read(&self, stage: &str, blob: &str) -> Option<Vec<u8>> {
        self.store.read(self.action(stage)?.outputs.get(blob)?).ok()
    }

    pub(super) fn params(&self, stage: &str) -> Option<&StageParams> {
        Some(&self.pipeline.stage(stage)?.params)
    }

    /// Returns the `train` or `select` stage whose model a `sample` stage reads.
    fn training(&self, sample: &str) -> Option<&str> {
        match self.params(sample)? {
            StageParams::Sample(params) => Some(params.model.as_str()),
            _ => None,
        }
    }

    /// Describes the selections that the arms' models come from.
    pub(super) fn selected(&self, params: &CompareParams) -> Vec<String> {
        let selects = params.arms.values().filter_map(|arm| self.training(&arm.runs.first()?.stage));
        let described = selects.filter_map(|stage| {
            let candidates = selection::read_csv(&self.read(stage, blobs::SELECTION)?).ok()?;
            Some(format!("{} is {}", base(stage), selection::describe(&candidates)))
        });
        described.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns the images and the arms' outputs; `None` if no arm has any.
    pub(super) fn pictures(&self, params: &CompareParams) -> Option<Pictures> {
        let mut arms = vec![];
        let mut test: Option<(Images, Images, usize)> = None;
        for (name, arm) in &params.arms {
            let stage = &arm.runs[0].stage;
            let Some(bytes) = self.read(stage, blobs::SAMPLES) else { continue };
            let Ok((samples, _)) = Samples::from_safetensors(&bytes) else { continue };
            if test.is_none() {
                test = self.compared_images(stage, samples.count);
            }
            arms.push(ArmPictures::of(name, &samples, params.rows));
        }
        let (hr, lr, scale) = test?;
        Some(Pictures::new(&hr, &lr, scale, params.rows, arms))
    }

    /// Returns the first `count` images, as passed on by the `sample` stage.
    pub(super) fn compared_images(&self, sample: &str, count: usize) -> Option<(Images, Images, usize)> {
        let images = |blob| Images::from_safetensors(&self.read(sample, blob)?).ok();
        let split = match self.params(sample)? {
            StageParams::Sample(params) => params.split,
            _ => EvaluationSplit::Test,
        };
        let [hr, lr] = split.blobs();
        let ((hr, _), (lr, metadata)) = (images(hr)?, images(lr)?);
        let scale = lr_scale(&metadata).ok()?;
        let count = count.min(hr.count).min(lr.count);
        let fits = (lr.height * scale, lr.width * scale) == (hr.height, hr.width);
        fits.then(|| (hr.slice(0..count), lr.slice(0..count), scale))
    }

    /// Returns the trainings of a comparison's arms; arms that sample the same model share one. `place` is the index of
    /// the first arm.
    pub(super) fn trainings(&self, params: &CompareParams) -> Vec<Training> {
        let mut trainings: Vec<(&str, Training)> = vec![];
        for (place, (name, arm)) in params.arms.iter().enumerate() {
            let stages: Vec<&str> = arm.runs.iter().filter_map(|run| self.training(&run.stage)).collect();
            let Some(&first) = stages.first() else { continue };
            if let Some((_, existing)) = trainings.iter_mut().find(|(stage, _)| *stage == first) {
                existing.curve.name += &format!(", {name}");
            } else if let Some(training) = self.training_of(name, place, &stages) {
                trainings.push((first, training));
            }
        }
        trainings.into_iter().map(|(_, training)| training).collect()
    }

    /// Returns the training runs of each arm, paired by seed with those of its controls: that of the comparison and
    /// those of the claims. Omits pairs of arms whose losses are not comparable.
    pub(super) fn paired(&self, params: &CompareParams) -> Vec<PairedTrainings> {
        let mut paired = vec![];
        for (place, (name, arm)) in params.arms.iter().enumerate() {
            let of_claims =
                params.claims.values().filter(|claim| claim.arm == *name).map(|claim| claim.control.as_str());
            let controls: IndexSet<&str> = params.control().into_iter().chain(of_claims).collect();
            for control in controls.into_iter().filter(|control| control != name) {
                let Some(of_control) = params.arms.get(control) else { continue };
                paired.extend(self.paired_with((control, of_control), (name, arm), place));
            }
        }
        paired
    }

    /// Pairs the training runs of an arm with those of its control. `place` is the index of the arm.
    fn paired_with(
        &self,
        (control_name, control): (&str, &config::Arm),
        (name, arm): (&str, &config::Arm),
        place: usize,
    ) -> Option<PairedTrainings> {
        let mut seen = BTreeSet::new();
        let mut trainings: Vec<[&str; 2]> = vec![];
        for run in &arm.runs {
            let Some(of_control) = control.runs.iter().find(|of_control| of_control.seed == run.seed) else { continue };
            let pair = [self.training(&run.stage)?, self.training(&of_control.stage)?];
            let is_shared = run.trainings.iter().any(|training| of_control.trainings.contains(training));
            if is_shared || !run.has_comparable_loss(of_control) {
                return None;
            }
            // Several samples of one training run have the same curve.
            if pair.iter().all(|stage| seen.insert(*stage)) {
                trainings.push(pair);
            }
        }
        let losses = |pair: &[&str; 2]| Some([self.losses(pair[0])?.0, self.losses(pair[1])?.0]);
        let pairs: Vec<[Vec<LossRow>; 2]> = trainings.iter().filter_map(losses).collect();
        let pace = |side: usize| {
            let paces = trainings.iter().filter_map(|pair| self.seconds_per_step(pair[side]));
            let paces: Vec<f64> = paces.collect();
            (!paces.is_empty()).then(|| paces.iter().sum::<f64>() / paces.len() as f64)
        };
        let seconds_per_step = [pace(0), pace(1)];
        let (arm, control) = (name.to_string(), control_name.to_string());
        (!pairs.is_empty()).then_some(PairedTrainings { arm, control, place, pairs, seconds_per_step })
    }

    fn seconds_per_step(&self, training: &str) -> Option<f64> {
        let pace = self.record(training)?.metrics.get("steps_per_s").copied();
        pace.filter(|pace| *pace > 0.0).map(|pace| 1.0 / pace)
    }

    /// Returns one training with its seeds; for an unfinished training, the losses reported so far.
    pub(super) fn training_of(&self, name: &str, arm: usize, stages: &[&str]) -> Option<Training> {
        let StageParams::Train(params) = self.params(stages.first()?)? else { return None };
        let mut seeds = stages.iter().filter_map(|stage| self.losses(stage));
        let (rows, is_done) = seeds.next()?;
        let paces: Vec<f64> = stages.iter().filter_map(|stage| self.seconds_per_step(stage)).collect();
        Some(Training {
            curve: Curve {
                name: if is_done { name.to_string() } else { format!("{name} (not done)") },
                rows,
                diffusion: Some(params.diffusion.clone()),
            },
            other_seeds: seeds.map(|(rows, _)| rows).collect(),
            arm,
            seconds_per_step: (!paces.is_empty()).then(|| paces.iter().sum::<f64>() / paces.len() as f64),
        })
    }

    fn losses(&self, stage: &str) -> Option<(Vec<LossRow>, bool)> {
        if let Some(csv) = self.read(stage, blobs::LOSS) {
            return Some((read_loss(&csv).ok()?, true));
        }
        let events = String::from_utf8(read_file(&self.store.events_path(self.key(stage)?)).ok()?).ok()?;
        let row = |line: &str| match serde_json::from_str(line).ok()? {
            StageEvent::Progress { done, values, .. } => {
                let value = |name: &str| values.get(name).copied();
                Some(LossRow { step: done, loss: value("loss"), val_loss: value(VAL_LOSS_FIELD), flops: None })
            }
            StageEvent::Message { .. } => None,
        };
        let mut rows: Vec<LossRow> = events.lines().filter_map(row).collect();
        // Every event repeats the last measured validation loss.
        let mut last = None;
        for row in &mut rows {
            match row.val_loss == last {
                true => row.val_loss = None,
                false => last = row.val_loss,
            }
        }
        (!rows.is_empty()).then_some((rows, false))
    }

    /// Returns the parameters of an arm: of its sampling, its training and its data.
    pub(super) fn arm(&self, name: &str, arm: &config::Arm) -> Arm {
        let mut found = BTreeMap::new();
        // The stages upstream of the arm, nearest first; of several stages of one kind, the nearest counts.
        let mut behind = vec![arm.runs[0].stage.clone()];
        let mut kinds = vec![];
        let mut at = 0;
        while let Some(stage) = behind.get(at) {
            at += 1;
            let Some(params) = self.params(stage).filter(|params| !kinds.contains(&params.kind())) else { continue };
            kinds.push(params.kind());
            leaves(&own(params), String::new(), &mut |path, value| {
                let path = current_path(params.kind(), &path);
                let value = current_value(&path, &text(value)).to_string();
                found.insert(format!("{}.{path}", params.kind().name()), value);
            });
            behind.extend(params.inputs().into_iter().map(|input| input.stage));
        }
        if arm.runs.len() > 1 {
            found.retain(|path, _| !path.ends_with(".seed"));
        }
        let trainings: Vec<&StageRecord> = arm
            .runs
            .iter()
            .filter_map(|run| self.record(self.training(&run.stage)?))
            .filter(|record| !record.metrics.is_empty())
            .collect();
        Arm { name: name.to_string(), params: found, costs: self.costs(&trainings) }
    }

    /// Averages over training runs that differ only in their seeds.
    fn costs(&self, trainings: &[&StageRecord]) -> Vec<(&'static str, String)> {
        let mean = |value: &dyn Fn(&StageRecord) -> Option<f64>| {
            let values: Vec<f64> = trainings.iter().filter_map(|record| value(record)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let flops = |record: &StageRecord| self.losses(&record.name)?.0.last()?.flops;
        let metric = |name: &str| mean(&|record| record.metrics.get(name).copied());
        let millions = |flops: f64| format!("{:.1}", flops / 1e6);
        let shown = [
            ("parameters", metric("parameters").map(thousands)),
            ("MFLOPs per image", metric("forward_flops").map(millions)),
            ("in training", metric("training_flops").map(millions)),
            ("TFLOPs", mean(&flops).map(|flops| format!("{:.2}", flops / 1e12))),
            ("images/s", metric("images_per_s").map(|v| format!("{v:.0}"))),
            ("waiting for data", metric("data_wait").map(|share| format!("{:.1} %", 100.0 * share))),
            ("training took", mean(&|record| record.seconds).map(format::duration)),
        ];
        shown.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Formats `1 234 567`, with non-breaking spaces.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let group = |(i, c): (usize, char)| {
        let space = i > 0 && (digits.len() - i).is_multiple_of(3);
        space.then_some('\u{202f}').into_iter().chain([c])
    };
    digits.chars().enumerate().flat_map(group).collect()
}

/// Returns the parameters of a stage without its inputs.
fn own(params: &StageParams) -> Value {
    let mut params = params.clone();
    params.rename_inputs(|name| name.clear());
    let mut value = serde_json::to_value(&params).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.remove("kind");
        fields.retain(|_, value| value.as_str() != Some(""));
    }
    value
}

/// Formats a value that is not a mapping.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([7.0, 1234.0, 1234567.4].map(thousands), ["7", "1\u{202f}234", "1\u{202f}234\u{202f}567"]);
    }
}
