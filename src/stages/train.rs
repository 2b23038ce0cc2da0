//! The `train` stage: trains a model on pairs of images.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::{Context, Interrupted, Outcome, StageEvent, read_images};
use crate::config::TrainParams;
use crate::config::blobs;
use crate::config::metrics::VAL_LOSS_FIELD;
use crate::model::{Checkpoint, Config, ModelCost, unet};
use crate::nn::{self, OutOfMemory};
use crate::pipeline::check_network;
use crate::train::{LossLog, Pairs, Progress, Recipe, Snapshot, Task, initial_state, train};

/// The interval between snapshots: the maximum loss of training time after a power cut.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_millis(250);

pub(super) fn run(params: &TrainParams, ctx: &Context) -> Result<Outcome> {
    let load = |hr, lr| Pairs::new(read_images(ctx, "data", hr)?, read_images(ctx, "data", lr)?);
    let pairs = load(blobs::TRAIN_HR, blobs::TRAIN_LR)?;
    let validation = load(blobs::VALIDATION_HR, blobs::VALIDATION_LR)?;
    let (image_size, scale) = (pairs.size(), pairs.scale());
    // If a program created the images, the pipeline file could not be checked for this.
    check_network(&params.model, &params.diffusion, image_size, scale)
        .map_err(|wrong| anyhow!("the network does not fit the images of `{}`: {wrong}", params.data))?;
    let mut recipe = Recipe::new(&params.optim, pairs.len());
    recipe.multiply_micro_batches(ctx.batch_divisor);
    let task = Task::new(pairs, validation, &params.diffusion, params.optim.flips, params.validation.images, ctx.seed);

    let graph = unet(&params.model, image_size, scale);
    let path = ctx.work.join("snapshot.safetensors");
    let resumed = Snapshot::load(&graph, &path).unwrap_or_else(|e| {
        let text = format!("{e:#}; the snapshot is discarded, and training restarts from step 0");
        (ctx.report)(StageEvent::Message { text });
        None
    });
    let Snapshot { state, mut log } =
        resumed.unwrap_or_else(|| Snapshot { state: initial_state(&graph, ctx.seed), log: LossLog::default() });
    let start = state.step;
    let cost = ModelCost::of(&graph);
    let text = format!("{cost}; steps {start} to {}", recipe.steps());
    (ctx.report)(StageEvent::Message { text });

    let mut network = nn::create_network(ctx.device, graph, &state)?;
    let (begun, mut saved, mut reported) = (Instant::now(), Instant::now(), Instant::now());
    let (mut images_per_s, mut waited, mut data_wait) = (0.0, Duration::ZERO, 0.0);
    let after_step = |progress: Progress| {
        let interrupted = (ctx.interrupted)();
        waited += progress.waited;
        let seconds = begun.elapsed().as_secs_f64();
        images_per_s = ((progress.step - start) * recipe.batch_size() as u64) as f64 / seconds;
        data_wait = waited.as_secs_f64() / seconds;
        if reported.elapsed() >= REPORT_EVERY || interrupted || progress.step == progress.steps {
            reported = Instant::now();
            let mut values = BTreeMap::from([("loss".into(), progress.loss), ("images_per_s".into(), images_per_s)]);
            values.extend(progress.log.val_loss().map(|loss| (VAL_LOSS_FIELD.into(), loss)));
            let (done, total) = (progress.step, progress.steps);
            (ctx.report)(StageEvent::Progress { done, total, unit: "steps".into(), values });
        }
        if progress.step < progress.steps && (interrupted || saved.elapsed() >= SNAPSHOT_EVERY) {
            let snapshot = Snapshot { state: progress.network.state(), log: progress.log.clone() };
            snapshot.save(progress.network.graph(), &path)?;
            saved = Instant::now();
        }
        if interrupted && progress.step < progress.steps { Err(Interrupted.into()) } else { Ok(()) }
    };
    train(network.as_mut(), &task, &recipe, params.validation.every, (start, &mut log), after_step).map_err(
        |error| {
            let remedy = "a batch is too large for the GPU (increase `optim.micro_batches` to split it into more \
                      micro-batches, or set `retry: { out_of_memory: 2 }` to retry with half the batch)";
            if error.is::<OutOfMemory>() { error.context(remedy) } else { error }
        },
    )?;

    let config = Config {
        model: params.model.clone(),
        diffusion: task.diffusion().clone(),
        image_size,
        scale,
        cost: cost.clone(),
        steps: recipe.steps(),
    };
    let state = network.state();
    let weights = Checkpoint { config: config.clone(), weights: state.weights };
    let ema = Checkpoint { config, weights: state.ema };
    let step_flops = cost.training_flops * recipe.batch_size() as u64;
    let mut outputs = vec![
        (blobs::WEIGHTS, weights.to_bytes()?),
        (blobs::EMA, ema.to_bytes()?),
        (blobs::LOSS, log.to_csv(step_flops)?),
    ];
    outputs.extend(log.layers_csv()?.map(|csv| (blobs::ATTENTION, csv)));
    let outputs = outputs.into_iter().map(|(name, bytes)| Ok((name.to_string(), ctx.store.put(&bytes)?)));
    let val_loss = log.val_loss().context("every training run measures its validation loss")?;
    let mut metrics = BTreeMap::from([(VAL_LOSS_FIELD.to_string(), val_loss)]);
    metrics.insert("parameters".to_string(), cost.parameters as f64);
    metrics.insert("forward_flops".to_string(), cost.forward_flops as f64);
    metrics.insert("training_flops".to_string(), cost.training_flops as f64);
    if ctx.batch_divisor > 1 {
        // The name in stored records.
        metrics.insert("batch_parts".to_string(), recipe.micro_batches() as f64);
    }
    if images_per_s > 0.0 {
        metrics.insert("images_per_s".to_string(), images_per_s);
        metrics.insert("data_wait".to_string(), data_wait);
        metrics.insert("steps_per_s".to_string(), images_per_s / recipe.batch_size() as f64);
    }
    Ok(Outcome { outputs: outputs.collect::<Result<_>>()?, metrics })
}
