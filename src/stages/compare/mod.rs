//! The `compare` stage: measures every arm and bicubic enlargement against the high-resolution images.
//!
//! `inputs` reads and checks the artifacts of the arms. This module measures one arm at a time, so that only one arm's
//! samples are in memory, and stores the files that `comparison` creates from the measurements.

mod inputs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::Context as _;

use self::inputs::{Arm, Pairs, arms, curves, read_losses, read_samples, same_count};
use super::{Context, Interrupted, Outcome, StageEvent};
use crate::comparison::{self, BICUBIC, Column, MANY_COLUMNS, Measured, Summary};
use crate::config::CompareParams;
use crate::config::blobs;
use crate::config::metrics::{Metric, Unit};
use crate::data::{Images, Samples, resample};
use crate::metrics::{Population, forecasts, mean_image, score};

/// The metric of each arm in the stage's own metrics.
const HEADLINE: Metric = Metric::PsnrMean;
/// The number of images measured between two progress events.
const CHUNK: usize = 256;

/// Measures the arms of `params` and stores `metrics.csv`, `summary.json`, `comparison.png` and `loss.png`.
///
/// The metrics of the outcome are `psnr_mean.NAME` of every arm and of bicubic enlargement, in dB. An interrupted
/// comparison restarts from the beginning; it takes seconds.
///
/// # Errors
/// Fails if arms were sampled from different images or different numbers of them, or if an arm is named `bicubic`.
pub(super) fn run(params: &CompareParams, ctx: &Context) -> anyhow::Result<Outcome> {
    let arms = arms(params, ctx)?;
    let losses = arms.iter().map(|arm| read_losses(arm, ctx.store)).collect::<anyhow::Result<Vec<_>>>()?;
    let first = read_samples(&arms[0], ctx.store)?;
    let count = first.0.count;
    let pairs = Pairs::read(&arms, count, ctx.store)?;
    let population = Population::new(&pairs.hr, pairs.scale);
    let (rows, total) = (params.rows.min(count), count * (arms.len() + 1));
    let mut bench = Bench { ctx, pairs: &pairs, population: &population, rows, done: 0, total };

    let enlarged = resample::enlarge(&pairs.lr, pairs.scale);
    let enlarged = Samples::new(count, 1, enlarged.height, enlarged.width, enlarged.pixels);
    let bicubic = Measured { split: arms[0].run.split, ..Measured::named(BICUBIC) };
    let mut measured = vec![bench.measure(bicubic, &enlarged, true)?];
    drop(enlarged);
    let mut first = Some(first);
    for (arm, losses) in arms.iter().zip(losses) {
        let (samples, diffusion) = match first.take() {
            Some(samples) => samples,
            None => read_samples(arm, ctx.store)?,
        };
        same_count(&arms[0], count, arm, samples.count)?;
        let of_arm = Measured {
            name: arm.name.to_string(),
            axes: arm.params.axes.clone(),
            seed: arm.run.seed.clone(),
            split: arm.run.split,
            is_selected: arm.run.is_selected,
            trainings: arm.run.trainings.clone(),
            samples_digest: arm.digest_of(blobs::SAMPLES),
            loss_digest: arm.digest_of(blobs::LOSS),
            loss_kind: arm.run.loss_kind,
            diffusion,
            losses,
            ..Measured::default()
        };
        measured.push(bench.measure(of_arm, &samples, arm.is_first).with_context(|| format!("measuring {arm}"))?);
    }

    let (mut measured, pictures): (Vec<Measured>, Vec<Option<Pictures>>) = measured.into_iter().unzip();
    let copies = comparison::merge_copies(&mut measured);
    let control = params.control();
    let mut summary = Summary {
        claims: comparison::answers(params, &measured),
        differences: control.map_or(vec![], |control| comparison::against(control, &measured, params.seeds)),
        best: comparison::best(&measured, params.seeds),
        ..Summary::of(&measured, comparison::floors(population.floor()))
    };
    summary.notes.extend(copies);
    for text in &summary.notes {
        (ctx.report)(StageEvent::Message { text: text.clone() });
    }
    let columns = columns(&pairs, &measured, &pictures);
    // The first is bicubic enlargement, which is not trained.
    let curves = curves(&arms, &measured[1..]);
    let outputs = [
        (blobs::METRICS, comparison::metrics_csv(&measured)?),
        (blobs::SUMMARY, summary.to_json()?),
        (blobs::COMPARISON, comparison::comparison(&columns, bench.rows)?),
        (blobs::LOSS_CURVES, comparison::loss_curves(&curves)?),
    ];
    let mut outcome = Outcome::default();
    for (name, bytes) in outputs {
        outcome.outputs.insert(name.to_string(), ctx.store.put(&bytes).with_context(|| format!("storing {name}"))?);
    }
    outcome.metrics = summary
        .arms
        .iter()
        .filter_map(|(name, arm)| Some((format!("{HEADLINE}.{name}"), arm.figures.get(HEADLINE)?)))
        .collect();
    Ok(outcome)
}

/// The images of an arm in `comparison.png`.
struct Pictures {
    sample: Images,
    mean: Images,
}

/// Measures arms one after another.
struct Bench<'a> {
    ctx: &'a Context<'a>,
    pairs: &'a Pairs,
    /// The high-resolution images as a distribution.
    population: &'a Population,
    /// The number of rows of `comparison.png`.
    rows: usize,
    /// The number of images measured so far, out of `total`.
    done: usize,
    total: usize,
}

impl Bench<'_> {
    /// Measures `samples` and completes `arm`; also returns their images if they are plotted.
    fn measure(
        &mut self,
        arm: Measured,
        samples: &Samples,
        is_shown: bool,
    ) -> anyhow::Result<(Measured, Option<Pictures>)> {
        let (mut of_sample, mut of_mean, mut of_all) = (vec![], vec![], vec![]);
        for start in (0..samples.count).step_by(CHUNK) {
            if (self.ctx.interrupted)() {
                return Err(Interrupted.into());
            }
            let range = start..samples.count.min(start + CHUNK);
            let (hr, lr) = (self.pairs.hr.slice(range.clone()), self.pairs.lr.slice(range.clone()));
            let score = |sr: &Images| score(&hr, &lr, sr, self.pairs.scale, self.pairs.degradation);
            of_sample.extend(score(&samples.first(range.clone()))?);
            if samples.samples > 1 {
                of_mean.extend(score(&samples.each(range.clone(), mean_image))?);
            }
            of_all.extend(forecasts(&self.pairs.hr, samples, range.clone()));
            self.done += range.len();
            let progress = StageEvent::Progress {
                done: self.done as u64,
                total: self.total as u64,
                unit: "images".to_string(),
                values: BTreeMap::new(),
            };
            (self.ctx.report)(progress);
        }
        if samples.samples == 1 {
            of_mean.clone_from(&of_sample);
        }
        let pictures =
            || Pictures { sample: samples.first(0..self.rows), mean: samples.each(0..self.rows, mean_image) };
        let distances = self.population.distances(&samples.first(0..samples.count));
        let measured = Measured {
            samples: samples.samples,
            sample: of_sample,
            mean: of_mean,
            forecasts: of_all,
            distances,
            ..arm
        };
        Ok((measured, is_shown.then(pictures)))
    }
}

/// Returns the columns HR, LR, bicubic, and the first sample of each arm, followed by the mean of its samples unless
/// there are too many columns.
fn columns<'a>(pairs: &'a Pairs, measured: &[Measured], pictures: &'a [Option<Pictures>]) -> Vec<Column<'a>> {
    let size = |i: &Images| format!("{}×{}", i.width, i.height);
    let plain = |head: &str, images: &'a Images| Column {
        head: head.to_string(),
        note: size(images),
        images,
        captions: vec![String::new(); images.count],
    };
    let decibels = |psnr: f64| format!("{psnr:.2}{}", Unit::Decibel.suffix());
    let mut columns = vec![plain("HR", &pairs.hr), plain("LR", &pairs.lr)];
    let shown = || measured.iter().zip(pictures).filter_map(|(arm, pictures)| Some((arm, pictures.as_ref()?)));
    let several = shown().filter(|(arm, _)| arm.samples > 1).count();
    let means = 2 + shown().count() + several <= MANY_COLUMNS;
    for (arm, pictures) in shown() {
        let note = match arm.name.as_str() {
            BICUBIC => format!("enlarged ×{}", pairs.scale),
            _ if arm.draws() => "one sample".to_string(),
            _ => "single output".to_string(),
        };
        let captions = arm.sample.iter().map(|s| decibels(s.psnr)).collect();
        columns.push(Column { head: arm.name.clone(), note, images: &pictures.sample, captions });
        if means && arm.samples > 1 {
            let note = format!("mean of {}", arm.samples);
            let captions = arm.mean.iter().map(|s| decibels(s.psnr)).collect();
            columns.push(Column { head: arm.name.clone(), note, images: &pictures.mean, captions });
        }
    }
    columns
}

impl std::fmt::Display for Arm<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "arm `{}` (stage `{}`)", self.name, self.run.stage)
    }
}
